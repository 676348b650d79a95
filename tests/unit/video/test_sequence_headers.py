from __future__ import annotations

from pathlib import Path

import av
import pytest

from engine.video.sequence_headers import length_bytes, sequence_headers
from tests.videos import moving_frames

CODECS = {
    "h264": ("libx264", {}),
    "hevc": ("libx265", {"x265-params": "log-level=none:repeat-headers=1:keyint=10"}),
    "av1": ("libsvtav1", {"preset": "10"}),
}


def keyframe_headers(path: Path, codec: str, *, height: int, width: int) -> list[bytes]:
    """Those of each keyframe of an encoded video."""
    encoder, options = CODECS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25, options={"g": "10", **options})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in moving_frames(30, height=height, width=width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        units = length_bytes(codec, container.streams.video[0].codec_context.extradata)
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.is_keyframe and packet.size]
    return [sequence_headers(codec, packet, length_bytes=units) for packet in packets]


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "ts"), ("hevc", "ts"), ("hevc", "mkv"), ("av1", "mkv")])
def test_headers_differ_where_sizes_do(tmp_path: Path, codec: str, suffix: str) -> None:
    small = keyframe_headers(tmp_path / f"small.{suffix}", codec, height=96, width=128)
    large = keyframe_headers(tmp_path / f"large.{suffix}", codec, height=128, width=192)
    assert len(small) >= 2
    assert len(set(small)) == len(set(large)) == 1
    assert small[0] != large[0]
    assert 4 < len(small[0]) < 100


def test_headers_that_the_file_has_once_are_not_in_its_packets(tmp_path: Path) -> None:
    assert set(keyframe_headers(tmp_path / "v.mp4", "h264", height=96, width=128)) == {b""}


@pytest.mark.parametrize("packet", [b"", b"\0", b"\xff" * 9, b"\0\0\1", b"\x0a\xff\xff", bytes(40)])
@pytest.mark.parametrize("codec", [*CODECS, "vp8"])
def test_damaged_packets_do_no_harm(codec: str, packet: bytes) -> None:
    for size in (0, 1, 4):
        assert len(sequence_headers(codec, packet, length_bytes=size)) <= len(packet)
