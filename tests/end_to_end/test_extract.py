"""Extraction into a store: what is done is kept, what changed is done again; engines come from the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine import ConfigError, Engine, StoreError
from engine.build.cache import user_engines
from engine.run.extraction import ExtractionSummary, extract_to_store
from engine.run.plan import Workers
from engine.store.store import read_descriptors
from engine.video.discovery import find_videos
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.videos import write_video


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(3):
        write_video(folder / f"V{index}.mp4", footage(500 + index, num_seconds=3), fps=FPS)
    return folder


def extract(videos: Path, engines: Path, output: Path, *, fps: float = 1.0) -> ExtractionSummary:
    engine = Engine.open(engines, fps=fps)
    workers = Workers.share_cores(1)
    return extract_to_store(engine, find_videos([videos]), role="query", output=output, workers=workers)


def test_only_what_changed_is_described_again(videos: Path, tiny_engines: Path, tmp_path: Path) -> None:
    output = tmp_path / "store"
    assert extract(videos, tiny_engines, output) == ExtractionSummary(3, 0, ())
    before = {item.video_id: item for item in read_descriptors(output)}
    write_video(videos / "V1.mp4", footage(600, num_seconds=4), fps=FPS)
    (videos / "V2.mp4").unlink()
    write_video(videos / "V3.mp4", footage(601, num_seconds=3), fps=FPS)
    assert extract(videos, tiny_engines, output) == ExtractionSummary(2, 1, ())
    after = {item.video_id: item for item in read_descriptors(output)}
    assert set(after) == {"V0", "V1", "V2", "V3"}, "what is not among the inputs stays"
    np.testing.assert_array_equal(after["V0"].descriptors, before["V0"].descriptors)
    assert len(after["V1"]) != len(before["V1"])


def test_a_store_of_other_settings_is_refused(videos: Path, tiny_engines: Path, tmp_path: Path) -> None:
    extract(videos, tiny_engines, tmp_path / "store")
    with pytest.raises(StoreError, match="fps"):
        extract(videos, tiny_engines, tmp_path / "store", fps=2.0)


def test_failed_videos_are_tried_again(videos: Path, tiny_engines: Path, tmp_path: Path) -> None:
    good = (videos / "V1.mp4").read_bytes()
    (videos / "V1.mp4").write_bytes(b"")
    summary = extract(videos, tiny_engines, tmp_path / "store")
    assert [(failure.video_id, failure.stage) for failure in summary.failures] == [("V1", "open")]
    (videos / "V1.mp4").write_bytes(good)
    assert extract(videos, tiny_engines, tmp_path / "store") == ExtractionSummary(1, 2, ())


def test_the_python_api_records_failures_and_goes_on(videos: Path, tiny_engines: Path) -> None:
    (videos / "V1.mp4").write_text("no video", encoding="utf-8")
    with Engine.open(tiny_engines) as engine:
        found = [item.video_id for item in engine.extract([videos], role="reference")]
    assert found == ["V0", "V2"]
    assert [failure.video_id for failure in engine.failures] == ["V1"]
    assert set(engine.times.as_dict()) >= {"open", "decode", "ensemble"}


def test_an_engine_is_used_inside_its_context(tiny_engines: Path) -> None:
    engine = Engine.open(tiny_engines)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        list(engine.describe_media([], role="query"))
    with pytest.raises(ConfigError, match="at least one thread"):
        Engine.open(tiny_engines, num_threads=0)


def test_without_engines_the_cached_ones_of_lite_are_used(
    videos: Path, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    user_engines("lite")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = run_cli("extract", videos, "--role", "query", "--output", tmp_path / "store", env=environment)
    assert "building" not in result.stderr
    assert len(read_descriptors(tmp_path / "store")) == 3
