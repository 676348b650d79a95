from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from engine.video.vp9 import told_sizes
from tests.videos import moving_frames


def packets(path: Path, *, pix_fmt: str = "yuv420p", **options: str) -> Iterator[tuple[bytes, bool]]:
    """Content and whether it is a key frame, of 40 encoded frames of 98x66 pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25, options={"cpu-used": "8", **options})
        stream.width, stream.height, stream.pix_fmt = 98, 66, pix_fmt
        for frame in moving_frames(40, height=66, width=98):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield bytes(packet), packet.is_keyframe


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "gbrp"])
@pytest.mark.parametrize("options", [{}, {"auto-alt-ref": "1", "lag-in-frames": "16"}, {"error-resilient": "1"}])
def test_key_frames_tell_their_size_and_others_the_same_or_none(
    tmp_path: Path, pix_fmt: str, options: dict[str, str]
) -> None:
    for content, is_key in packets(tmp_path / "v.webm", pix_fmt=pix_fmt, g="15", **options):
        if is_key:
            assert told_sizes(content) == {(98, 66)}
        else:
            assert told_sizes(content) <= {(98, 66)}


@pytest.mark.parametrize("content", [b"\0", b"\0" * 40, b"\x82", b"\x82\x49\x83\x42", b"\xff" * 40, b"\xc9" * 9])
def test_what_is_no_frame_tells_nothing(content: bytes) -> None:
    assert told_sizes(content) == set()
