from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.errors import MediaError
from engine.records import Media
from engine.video.dali import DaliFrameSource
from engine.video.decoder import Decoder, decoders_line
from engine.video.pyav import PyAvFrameSource
from tests.videos import moving_frames, write_video


@pytest.fixture
def videos(tmp_path: Path) -> list[Media]:
    """One video that DALI decodes on a CPU, two that it does not, and one that nobody does."""
    for name, codec in {"a.webm": "libvpx-vp9", "b.mp4": "libx264", "c.mp4": "libx264"}.items():
        write_video(tmp_path / name, moving_frames(30, height=48, width=64), codec=codec)
    (tmp_path / "d.mp4").touch()
    return [Media(path.stem, path) for path in sorted(tmp_path.iterdir())]


def test_pyav_opens_everything_and_has_no_more_to_say(videos: list[Media]) -> None:
    decoder = Decoder("pyav", device="cpu", fps=2)
    assert isinstance(decoder.open(videos[0]), PyAvFrameSource)
    assert decoder.open(videos[1]).num_frames == 2
    assert not decoder.leaves_to_pyav


def test_dali_leaves_to_pyav_what_it_must_says_so_and_counts(
    videos: list[Media], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="engine")
    decoder = Decoder("dali", device="cpu", fps=2)
    decoder.start()
    assert caplog.messages == ["decoder: DALI on the CPU for mjpeg, vp9; other videos by PyAV"]
    sources = [decoder.open(item) for item in videos[:3]]
    assert all(isinstance(source, DaliFrameSource) for source in sources)
    assert caplog.messages[1:] == [f"{name}: decoded by PyAV, not by DALI: codec h264" for name in ("b", "c")]
    with pytest.raises(MediaError, match=r"d\.mp4: the file is empty"):
        decoder.open(videos[3])
    refusals = [decoder.refusal(name) for name in "abcd"]
    assert refusals == [None, "codec h264", "codec h264", None]
    line = decoders_line(1, Counter(filter(None, refusals)))
    assert line == "1 videos decoded by DALI, 2 by PyAV (2 x codec h264)"
    assert {type(source.scene_statistics().variance) for source in sources} == {np.ndarray}
