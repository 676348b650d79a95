"""Whole videos through the runner for GPUs, on the stub driver: the same descriptors as on the CPU, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.build.engines import build_engines
from engine.config import NoGate, load_preset
from engine.describe.engine import Engine
from engine.records import Descriptors, Role
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.runner import Runner
from tests.end_to_end.conftest import FPS, footage
from tests.host_execution import HostExecution, device_runner
from tests.stub_driver.control import MIB, StubDriver
from tests.videos import write_video

pytestmark = pytest.mark.stub_driver


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    build_engines(load_preset("lite"), folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        write_video(folder / f"V{number}.mp4", footage(number, num_seconds=2 + 2 * number), fps=FPS)
    return folder


def describe(engines: Path, videos: Path, role: Role) -> list[Descriptors]:
    with Engine.open(engines, num_threads=3) as engine:
        found = list(engine.extract([videos], role=role))
        assert engine.failures == []
    return found


@pytest.mark.parametrize(("role", "lazy"), [("query", 1), ("reference", 0)])
def test_describes_videos_as_on_the_cpu(
    engines: Path, videos: Path, stub_driver: StubDriver, monkeypatch: pytest.MonkeyPatch, role: Role, lazy: int
) -> None:
    expected = describe(engines, videos, role)

    def open_on_device(directory: EnginesDirectory, name: str, **_: object) -> Runner:
        config = directory.manifest.preset.gate
        max_rows = 32 if name != "edit_score" or isinstance(config, NoGate) else config.max_frames
        return device_runner(HostExecution(directory.path(directory.manifest.engines[name].main)), max_rows=max_rows)

    stub_driver.configure(lazy=lazy)
    monkeypatch.setattr(EnginesDirectory, "open_runner", open_on_device)
    found = describe(engines, videos, role)
    assert stub_driver.count("num_graph_launches") > len(found)
    assert stub_driver.count("bytes_htod") > MIB
    assert [item.video_id for item in found] == [item.video_id for item in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.descriptors, other.descriptors)
        assert one.edit_score == other.edit_score
