"""Peaks of a real small query, and the film that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_memory import FPS, SIZE_WH, Peak, cuts, default_lengths_s, measure, table, write_film
from engine.build.engines import build_engines
from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Descriptors, Media
from engine.video.media import index_timeline
from engine.video.pyav import PyAvFrameSource
from tests.packaged import tiny_preset, write_packaged
from tests.videos import moving_frames, write_video
from training.footage.clips import write_clip


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_engines(tiny_preset(), folder / "engines", packaged=write_packaged(folder / "weights"))
    return folder / "engines"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", moving_frames(20, height=96, width=128), fps=10)
    write_clip(folder / "base.mp4", cuts([folder / "a.mp4", folder / "b.mp4"], length_s=6), fps=FPS)
    return folder / "base.mp4"


@pytest.mark.parametrize("length_s", [4, 6, 15])
def test_a_film_is_as_long_as_it_should_be(base: Path, tmp_path: Path, length_s: int) -> None:
    write_film(tmp_path / "film.mp4", source=base, length_s=length_s)
    timeline = index_timeline(Media("film", tmp_path / "film.mp4"))
    assert timeline.is_exact
    assert timeline.size_wh == SIZE_WH
    assert timeline.end_s == pytest.approx(length_s, abs=0.1)
    source = PyAvFrameSource(Media("film", tmp_path / "film.mp4"))
    assert len(list(source.pictures())) == length_s
    assert not source.is_damaged


def test_rows_are_those_of_the_engine(base: Path, engines: Path) -> None:
    peak = measure(base, engines, length_s=6)
    with Engine.open(engines) as engine:
        described = engine.describe(Media("base", base), role="query")
    assert isinstance(described, Descriptors)
    assert peak.num_rows == len(described)
    assert 20e6 < peak.parent_bytes < 2e9
    assert 20e6 < peak.worker_bytes < 2e9
    assert peak.cpu_s > 0


def test_a_film_that_fails_is_an_error(engines: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(EngineError, match=r"bad\.mp4"):
        measure(tmp_path / "bad.mp4", engines, length_s=6)


def test_what_is_kept_is_largest_at_two_of_the_lengths() -> None:
    assert default_lengths_s() == [10, 226, 600, 681, 7200]


def test_a_line_for_each_length() -> None:
    lines = table([Peak(10, 31, 280_400_000, 180_000_000, 5.6)])
    assert lines[1].split() == ["10", "31", "280", "180", "6"]
