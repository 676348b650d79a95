"""An extraction that is killed at a random moment goes on, and ends with the same bits."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.records import Descriptors
from engine.store.store import read_descriptors
from tests.conftest import MakeOnce
from tests.end_to_end.conftest import FPS, footage
from tests.faults.conftest import rounds
from tests.faults.extraction import all_children, arguments, run_and_hit
from tests.videos import write_video

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Undisturbed:
    """What comes of the videos if nobody disturbs, and in how many seconds."""

    videos: Path
    descriptors: list[Descriptors]
    npz: bytes
    duration_s: float


@pytest.fixture(scope="module")
def undisturbed(make_once: MakeOnce, tiny_engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    def write(folder: Path) -> None:
        folder.mkdir()
        for index in range(5):
            write_video(folder / f"V{index}.mp4", footage(900 + index, num_seconds=3 + 4 * index), fps=FPS)

    videos = make_once("faults", write)
    output = tmp_path_factory.mktemp("undisturbed")
    start_s = time.monotonic()
    for name in ("store", "out.npz"):
        subprocess.run(arguments(videos, tiny_engines, output / name), check=True, capture_output=True)
    duration_s = (time.monotonic() - start_s) / 2
    return Undisturbed(videos, read_descriptors(output / "store"), (output / "out.npz").read_bytes(), duration_s)


def kill_parent(pid: int, generator: random.Random) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_worker(pid: int, generator: random.Random) -> None:
    for child in generator.sample(found, 1) if (found := all_children(pid)) else []:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def kill_group(pid: int, generator: random.Random) -> None:
    os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_parent, kill_worker, kill_group])
@pytest.mark.parametrize("seed", rounds(1))
def test_the_same_bits_after_a_kill(
    undisturbed: Undisturbed, tiny_engines: Path, tmp_path: Path, kill: object, seed: int
) -> None:
    generator = random.Random(f"{kill} {seed}".split(" at ")[0] + str(seed))  # noqa: S311
    name = generator.choice(["store", "out.npz"])
    command = arguments(undisturbed.videos, tiny_engines, tmp_path / name)
    hits = []

    def hit(pid: int) -> None:
        hits.append(pid)
        kill(pid, generator)  # type: ignore[operator]

    within_s = undisturbed.duration_s
    while not hits:  # it was faster than before: again, and earlier
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        status, stderr = run_and_hit(command, generator, within_s=within_s, hit=hit)
        within_s *= 0.7
    print(f"faults: {kill.__name__} of {name}: status {status}")  # type: ignore[attr-defined]  # noqa: T201
    if kill is kill_worker:
        assert status == 0, stderr
    else:
        subprocess.run(command, check=True, capture_output=True)
    if name == "out.npz":
        assert (tmp_path / name).read_bytes() == undisturbed.npz
        left = {path.name for path in tmp_path.iterdir()}
        assert left <= {name, "out_failures.csv"}
        return
    found = read_descriptors(tmp_path / name)
    assert [item.video_id for item in found] == [item.video_id for item in undisturbed.descriptors]
    for one, other in zip(found, undisturbed.descriptors, strict=True):
        np.testing.assert_array_equal(one.descriptors, other.descriptors)
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
    assert not [path for path in (tmp_path / name).iterdir() if path.suffix == ".aside"]
