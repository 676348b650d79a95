"""Single pictures of a video at given times, found by seeking: for looking at, not for describing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from PIL import Image

from engine.errors import MediaError
from engine.records import Frames, Media
from engine.video.media import OpenVideo, open_video
from engine.video.pyav import PyAvFrameSource

MAX_DECODED_FRAMES = 3000
"""For one picture: two minutes at 25 fps, and some seconds of work. No sensible file has its keyframes so far apart."""

_DECODE_ON_S = 2.0
_SEEK_EARLIER_S = (0.0, 5.0, 15.0)
_FPS_WITHOUT_SEEKING = 4.0


@dataclass(frozen=True, eq=False)
class Still:
    """What a video shows at ``time_s``, a time that was asked for: RGB uint8 ``(H, W, 3)``."""

    time_s: float
    picture: Frames


class _CannotSeekError(Exception):
    """The frames have no times, or a seek led past the one that was asked for. Callers never see it."""


def stills(path: Path, times_s: Sequence[float], *, short_side_px: int) -> Iterator[Still]:
    """Yield what a video shows at some times, the earliest first.

    Times are seconds since the start of the container. Before the first frame that one is taken, after the last that
    one. Pictures are turned upright and have at most ``short_side_px`` on the short side; one is held at a time. Where
    seeking fails the video is decoded from its start, and of four pictures a second the nearest are taken.

    Raises ``MediaError`` for a file that gives no picture, and where `MAX_DECODED_FRAMES` from a keyframe on do not
    lead to a time.
    """
    waiting_s = sorted(times_s)
    media = Media(path.stem, path)
    num_found = 0
    try:
        with open_video(media) as video:
            reader = _SeekingReader(video)
            for time_s in waiting_s:
                picture = _upright(reader.shown_at(time_s), short_side_px)
                num_found += 1
                yield Still(time_s, picture)
    except (FFmpegError, _CannotSeekError):
        yield from _without_seeking(media, waiting_s[num_found:], short_side_px)


class _SeekingReader:
    """Decodes from the keyframe before a time, or goes on where it is if that is not far."""

    def __init__(self, video: OpenVideo) -> None:
        self._video = video
        self._start_s = (video.container.start_time or 0) / av.time_base
        self._tick_s = float(video.stream.time_base or 0)
        self._shown: VideoFrame | None = None
        self._frames = self._decode()
        self._next = next(self._frames, None)

    def shown_at(self, time_s: float) -> VideoFrame:
        """The last frame that begins at ``time_s`` or before; times must not go backward."""
        if self._next is not None and self._is_far(time_s, self._next):
            self._seek(time_s)
        num_decoded = 0
        while self._next is not None and self._time_s(self._next) <= time_s:
            self._shown, self._next = self._next, next(self._frames, None)
            num_decoded += 1
            if num_decoded > MAX_DECODED_FRAMES:
                raise MediaError(f"no keyframe within {MAX_DECODED_FRAMES} frames before {time_s:.1f} s")
        shown = self._shown or self._next
        if shown is None:
            raise _CannotSeekError
        return shown

    def _is_far(self, time_s: float, frame: VideoFrame) -> bool:
        """Whether a keyframe, or with no index of them some time, lies between a frame and ``time_s``."""
        index = self._video.stream.index_entries
        keyframe = index.search_timestamp(round((time_s + self._start_s) / self._tick_s)) if self._tick_s else -1
        if keyframe < 0:
            return time_s - self._time_s(frame) > _DECODE_ON_S
        return index[keyframe].timestamp * self._tick_s - self._start_s > self._time_s(frame)

    def _seek(self, time_s: float) -> None:
        # Without an index (MPEG-TS) FFmpeg goes to a frame of this time, and what decodes begins at the next keyframe.
        for earlier_s in _SEEK_EARLIER_S:
            self._video.container.seek(round((self._start_s + time_s - earlier_s) * av.time_base))
            self._shown = None
            self._frames = self._decode()
            self._next = next(self._frames, None)
            if self._next is not None and self._time_s(self._next) <= time_s:
                return
        raise _CannotSeekError

    def _decode(self) -> Iterator[VideoFrame]:
        context = self._video.stream.codec_context
        packets = chain(self._video.packets(), [None])
        # Right after a seek some codecs give pictures that lack what they refer to.
        return (frame for packet in packets for frame in context.decode(packet) if not frame.is_corrupt)

    def _time_s(self, frame: VideoFrame) -> float:
        if frame.pts is None:
            raise _CannotSeekError
        return frame.pts * self._tick_s - self._start_s


def _without_seeking(media: Media, times_s: Sequence[float], short_side_px: int) -> Iterator[Still]:
    waiting_s = deque(times_s)
    picture = None
    for slot, picture in enumerate(PyAvFrameSource(media, fps=_FPS_WITHOUT_SEEKING, cache_bytes=0).pictures()):
        while waiting_s and waiting_s[0] * _FPS_WITHOUT_SEEKING < slot + 0.5:
            yield Still(waiting_s.popleft(), _reduced(picture, short_side_px))
        if not waiting_s:
            return
    if picture is not None:
        for time_s in waiting_s:
            yield Still(time_s, _reduced(picture, short_side_px))


def _upright(frame: VideoFrame, short_side_px: int) -> Frames:
    width, height = _reduced_size((frame.width, frame.height), short_side_px)
    rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)))


def _reduced(picture: Frames, short_side_px: int) -> Frames:
    image = Image.fromarray(picture)
    return np.asarray(image.resize(_reduced_size(image.size, short_side_px), Image.Resampling.BOX))


def _reduced_size(size_wh: tuple[int, int], short_side_px: int) -> tuple[int, int]:
    scale = min(1.0, short_side_px / min(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))
