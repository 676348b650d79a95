from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks.bench_decode import compare, run, transcode
from benchmarks.gpu_usage import GpuUsage, parse
from engine.records import Media
from engine.video.dali import DaliFrameSource
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec
from tests.videos import moving_frames, write_video

SPEC = InputSpec("frames", 32)


@pytest.fixture
def copy(tmp_path: Path) -> Media:
    write_video(tmp_path / "original.mp4", moving_frames(75, height=48, width=64))
    return Media("copy", transcode(tmp_path / "original.mp4", tmp_path / "copy", "vp9"))


def test_equal_frames_are_timed(copy: Media) -> None:
    assert copy.path.suffix == ".webm"
    mean, largest = compare([copy], SPEC, PyAvFrameSource, DaliFrameSource)
    assert 0 < mean < 1
    assert largest <= 5
    assert run([copy, copy], SPEC, DaliFrameSource, num_workers=2).num_frames == 6


def test_no_time_for_other_frames(copy: Media) -> None:
    with pytest.raises(AssertionError, match="3 frames by PyAV, 6 by DALI; no time is reported"):
        compare([copy], SPEC, PyAvFrameSource, partial(DaliFrameSource, fps=2))

    def late(media: Media) -> PyAvFrameSource:
        source = PyAvFrameSource(media)
        source._samples = source._samples._replace(frames=source._samples.frames + 5)
        return source

    with pytest.raises(AssertionError, match=r"frame \d differs by \d+\.\d grey levels on average; no time"):
        compare([copy], SPEC, PyAvFrameSource, late)


def test_percentages_of_the_gpu() -> None:
    assert parse("37, 82") == (37.0, 82.0)
    with pytest.raises(ValueError, match="could not convert"):
        parse("[N/A], 82")
    assert GpuUsage().figures() == {"num_samples": 0, "nvdec_percent": 0.0, "sm_percent": 0.0}
