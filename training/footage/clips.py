"""Frames out of video files and into them at a constant rate, one at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from engine.errors import MediaError
from engine.records import Media
from engine.video.media import open_video
from training.footage.resizing import Frame, even, limit_short_side, size_of

_CLOCK_TOLERANCE_S = 1e-6


def read_clip(path: Path, *, fps: Fraction, start_s: float = 0.0, short_side_px: int | None = None) -> Iterator[Frame]:
    """Yield what is on screen at ``start_s + k / fps`` for k = 0, 1, ... to the end of the video.

    Times count from the container's start, rotation metadata is applied, and frames are shrunk to a short side of at
    most ``short_side_px``. Raises ``MediaError`` where no frame can be decoded; a damaged tail ends the clip.
    """
    index = 0
    for frame, until_s in _shown_until(path, start_s):
        pixels: Frame | None = None
        while start_s + float(index / fps) < until_s - _CLOCK_TOLERANCE_S:
            pixels = _to_rgb(frame, short_side_px) if pixels is None else pixels
            yield pixels
            index += 1


def write_clip(path: Path, frames: Iterable[Frame], *, fps: Fraction) -> int:
    """Encode frames of one even size as H.264 (4:2:0) and return their number.

    The same frames give the same file. Raises ``MediaError`` where there is no frame.
    """
    num_frames = 0
    with av.open(str(path), "w") as container:
        # One thread: x264 decides differently with another number of threads, and the output must not vary.
        options = {"crf": "23", "preset": "veryfast", "threads": "1", **_repeatable_x264()}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            if num_frames == 0:
                stream.width, stream.height = size_of(frame)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            num_frames += 1
        if num_frames:
            container.mux(stream.encode())
    if num_frames == 0:
        raise MediaError(f"there is no frame to write into {path}")
    return num_frames


def reencode(frames: Iterable[Frame], *, crf: int) -> Iterator[Frame]:
    """Pass frames through an H.264 encoder and decoder (0 <= crf <= 51, higher is worse); odd sizes lose a row."""
    encoder = av.CodecContext.create("libx264", "w")
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    for index, frame in enumerate(frames):
        width, height = even(size_of(frame))
        if index == 0:
            encoder.width, encoder.height = width, height
            encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
            options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
            encoder.options = options | _repeatable_x264()
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        picture.pts = index
        yield from _decoded(decoder, encoder.encode(picture))
    yield from _decoded(decoder, [*encoder.encode(None), None])


@functools.cache
def _repeatable_x264() -> dict[str, str]:
    """Options with which the same frames give the same bytes: with AVX-512, x264 of PyAV 18.1 encodes at random."""
    cpu = Path("/proc/cpuinfo")
    has_avx512 = cpu.is_file() and "avx512" in cpu.read_text(encoding="utf-8")
    return {"x264-params": "asm=AVX2"} if has_avx512 else {}


def _decoded(decoder: av.VideoCodecContext, packets: Iterable[av.Packet[Any] | None]) -> Iterator[Frame]:
    for packet in packets:
        for picture in decoder.decode(packet):
            yield np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


def _shown_until(path: Path, start_s: float) -> Iterator[tuple[av.VideoFrame, float]]:
    """Frames, and when each is replaced by the next one or, the last, ends."""
    shown: av.VideoFrame | None = None
    end_s = 0.0
    for time_s, frame in _frames_from(path, start_s):
        if shown is not None:
            yield shown, time_s
        shown, end_s = frame, time_s + _duration_s(frame)
    if shown is None:
        raise MediaError(f"{path}: no frame can be decoded")
    yield shown, end_s


def _frames_from(path: Path, start_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Times and frames, beginning at or before the frame that is on screen at ``start_s``."""
    if start_s > 0:
        frames = _decode(path, seek_s=start_s)
        first = next(frames, None)
        # Containers without a proper index seek too far.
        if first is not None and first[0] <= start_s + _CLOCK_TOLERANCE_S:
            return chain([first], frames)
    return _decode(path, seek_s=0.0)


def _decode(path: Path, *, seek_s: float) -> Iterator[tuple[float, av.VideoFrame]]:
    with open_video(Media(path.stem, path)) as video, suppress(FFmpegError):
        origin = video.container.start_time or 0
        if seek_s > 0:
            video.container.seek(int(seek_s * av.time_base) + origin)
        for frame in video.container.decode(video.stream):
            if frame.time is not None:
                yield frame.time - origin / av.time_base, frame


def _duration_s(frame: av.VideoFrame) -> float:
    return float(frame.duration * frame.time_base) if frame.time_base else 0.0


def _to_rgb(frame: av.VideoFrame, short_side_px: int | None) -> Frame:
    width, height = frame.width, frame.height
    if short_side_px is not None:
        width, height = limit_short_side((width, height), short_side_px)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
