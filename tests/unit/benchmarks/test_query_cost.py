"""Costs of a real small query, and their table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.query_cost import Cost, describing_rows, measure, table
from engine.build.engines import build_engines
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.records import Descriptors, Media
from engine.runtime.engines_directory import EnginesDirectory
from tests.packaged import tiny_preset, write_packaged
from tests.videos import moving_frames, write_video


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> EnginesDirectory:
    folder = tmp_path_factory.mktemp("tiny")
    build_engines(tiny_preset(), folder / "engines", packaged=write_packaged(folder / "weights"))
    return EnginesDirectory.open(folder / "engines")


def test_rows_are_those_of_the_engine(engines: EnginesDirectory, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_frames(50, height=96, width=128), fps=10)
    media = Media("a", tmp_path / "a.mp4")
    rows = describing_rows(engines)
    costs = measure(rows, [media, media])
    assert [cost.row for cost in costs] == [row.name for row in rows]
    assert costs[0].row == "whole frames"
    for row, cost in zip(rows, costs, strict=True):
        with Engine.open(row.engines, preset=row.preset) as engine:
            described = engine.describe(media, role="query")
        assert isinstance(described, Descriptors)
        assert cost.num_rows == 2 * len(described)
        assert cost.cpu_s > 0


def test_a_video_that_fails_is_an_error(engines: EnginesDirectory, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(ConfigError, match=r"bad\.mp4"):
        measure(describing_rows(engines)[:1], [Media("bad", tmp_path / "bad.mp4")])


def test_ratios_are_to_the_first() -> None:
    lines = table([Cost("whole frames", 10, 2.0), Cost("+ insets", 25, 3.0)])
    assert lines[1].split() == ["whole", "frames", "10", "1.00", "2.00", "1.00"]
    assert lines[2].split() == ["+", "insets", "25", "2.50", "3.00", "1.50"]
