"""Single pictures of a video at given times: for looking at, not for describing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from engine.errors import MediaError
from engine.records import Frames, Media
from engine.storage.location import Location
from engine.video.clock import Clock
from engine.video.media import OpenVideo, open_video, orientation_of
from engine.video.pyav import PyAvFrameSource

MAX_GROUP_FRAMES = 3000
"""From one keyframe to the next: two minutes at 25 fps, some seconds of work. No sensible file has more."""

_MAX_BYTES_AHEAD = 64 << 20
_DECODE_ON_S = 2.0
_SAMPLED_FPS = 4.0


@dataclass(frozen=True, eq=False)
class Still:
    """What a video shows at ``time_s``, a time that was asked for: RGB uint8 ``(H, W, 3)``."""

    time_s: float
    picture: Frames


class _CannotFindError(Exception):
    """The frames have no times, or a seek led past the one that was asked for. Callers never see it."""


def stills(path: Location, times_s: Sequence[float], *, short_side_px: int) -> Iterator[Still]:
    """Yield what a video shows at some times, the earliest first.

    Times are seconds since the start of the container. Before the first frame that one is taken, after the last that
    one. Pictures are oriented as they are shown, have at most ``short_side_px`` on the short side, and are held one at
    a time. A file that can be sought in is read and decoded at the keyframes before the times; one that cannot is read
    from its start; and where frames have no times, all are decoded, and of four pictures a second the nearest taken.

    Raises ``MediaError`` for a file that gives no picture, and where keyframes are more than `MAX_GROUP_FRAMES` apart.
    """
    media = Media(path.stem, path)
    waiting_s = deque(sorted(times_s))
    for find in (_by_seeking, _by_reading, _by_sampling):
        try:
            for picture in find(media, list(waiting_s), short_side_px):
                yield Still(waiting_s.popleft(), picture)
            if not waiting_s:
                return
        except (FFmpegError, _CannotFindError):
            continue
    raise MediaError(f"{path}: no picture at {waiting_s[0]:.1f} s")


def _by_seeking(media: Media, times_s: Sequence[float], short_side_px: int) -> Iterator[Frames]:
    with open_video(media) as video:
        if video.clock.may_leap:  # what a seek finds is not on the one clock that all times are on
            raise _CannotFindError
        reader = _SeekingReader(video)
        for time_s in times_s:
            yield _as_shown(reader.shown_at(time_s), short_side_px)


class _SeekingReader:
    """Decodes from the keyframe before a time, or goes on where it is if that is behind it.

    Of what is shown before that time only those frames are decoded that others refer to.
    """

    _ahead: deque[Packet[VideoStream]]
    _wanted_pts: int | None
    _shown: VideoFrame | None
    _next: VideoFrame | None

    def __init__(self, video: OpenVideo) -> None:
        self._video = video
        self._times = _Times(video)
        self._start()

    def _start(self) -> None:
        """Read from where the file stands."""
        self._packets = self._video.packets()
        self._ahead = deque()
        self._wanted_pts = self._shown = self._next = None
        self._frames = _decode(self._video, self._packets_to_decode())
        self._next = next(self._frames, None)

    def shown_at(self, time_s: float) -> VideoFrame:
        """The last frame that begins at ``time_s`` or before; times must not go backward."""
        if self._next is not None and self._is_far(time_s, self._next):
            self._seek(time_s)
        self._wanted_pts = self._read_up_to(time_s)
        num_decoded = 0
        while self._next is not None and self._times.of(self._next) <= time_s:
            self._shown, self._next = self._next, next(self._frames, None)
            num_decoded += 1
            if num_decoded > MAX_GROUP_FRAMES:
                raise MediaError(f"no keyframe within {MAX_GROUP_FRAMES} frames before {time_s:.1f} s")
        shown = self._shown or self._next
        if shown is None:
            raise _CannotFindError
        return shown

    def _is_far(self, time_s: float, frame: VideoFrame) -> bool:
        """Whether a keyframe, or where the file has no index of them some time, lies between a frame and ``time_s``."""
        index = self._video.stream.index_entries
        keyframe = index.search_timestamp(self._times.ticks(time_s))
        if keyframe < 0:
            return time_s - self._times.of(frame) > _DECODE_ON_S
        return index[keyframe].timestamp > cast(int, frame.pts)

    def _seek(self, time_s: float) -> None:
        self._video.container.seek(self._times.ticks(time_s), stream=self._video.stream)
        self._video.clock = Clock(self._video.clock.tick_s, may_leap=False)
        self._start()
        if self._next is None or self._times.of(self._next) > time_s:
            raise _CannotFindError

    def _read_up_to(self, time_s: float) -> int | None:
        """Read on to ``time_s``: the pts of the last frame that begins by then; None where that cannot be told."""
        num_bytes = sum(packet.size for packet in self._ahead)
        while len(self._ahead) <= MAX_GROUP_FRAMES and num_bytes < _MAX_BYTES_AHEAD:
            last = self._ahead[-1] if self._ahead else None
            if last is not None and (last.pts is None or last.dts is None):
                return None
            is_read = last is not None and self._times.seconds(last.dts) > time_s
            packet = None if is_read else next(self._packets, None)
            if packet is None:
                shown = (packet.pts for packet in self._ahead if self._times.of(packet) <= time_s)
                return max((pts for pts in shown if pts is not None), default=None)
            self._ahead.append(packet)
            num_bytes += packet.size
        return None

    def _packets_to_decode(self) -> Iterator[Packet[VideoStream]]:
        context = self._video.stream.codec_context
        while packet := self._ahead.popleft() if self._ahead else next(self._packets, None):
            # A frame of two fields may come in two packets, of which the second has the later time.
            is_woven = self._next is not None and self._next.interlaced_frame
            is_passed = self._wanted_pts is not None and packet.pts is not None and packet.pts < self._wanted_pts
            context.skip_frame = "NONREF" if is_passed and not is_woven else "DEFAULT"
            yield packet


def _by_reading(media: Media, times_s: Sequence[float], short_side_px: int) -> Iterator[Frames]:
    """Read all packets, and decode those from a keyframe to the next between which a time lies."""
    with open_video(media) as video:
        times, waiting_s = _Times(video), deque(times_s)
        group: list[Packet[VideoStream]] = []
        for packet in chain(video.packets(), [None]):
            if packet is None or packet.is_keyframe:
                end_s = np.inf if packet is None else times.of(packet)
                if group and waiting_s and waiting_s[0] < end_s:
                    yield from _of_group(video, group, waiting_s, end_s, short_side_px)
                group = []
            if packet is not None and waiting_s:
                group.append(packet)
            if len(group) > MAX_GROUP_FRAMES:
                raise MediaError(f"no keyframe within {MAX_GROUP_FRAMES} frames before {waiting_s[0]:.1f} s")


def _of_group(
    video: OpenVideo, group: Sequence[Packet[VideoStream]], waiting_s: deque[float], end_s: float, short_side_px: int
) -> Iterator[Frames]:
    times = _Times(video)
    shown: VideoFrame | None = None
    for frame in _decode(video, group):
        while shown is not None and waiting_s and waiting_s[0] < min(end_s, times.of(frame)):
            waiting_s.popleft()
            yield _as_shown(shown, short_side_px)
        shown = frame
    video.stream.codec_context.flush_buffers()
    while shown is not None and waiting_s and waiting_s[0] < end_s:
        waiting_s.popleft()
        yield _as_shown(shown, short_side_px)


def _by_sampling(media: Media, times_s: Sequence[float], short_side_px: int) -> Iterator[Frames]:
    waiting_s = deque(times_s)
    picture = None
    for slot, picture in enumerate(PyAvFrameSource(media, fps=_SAMPLED_FPS, cache_bytes=0).pictures()):
        while waiting_s and waiting_s[0] * _SAMPLED_FPS < slot + 0.5:
            waiting_s.popleft()
            yield _reduced(picture, short_side_px)
        if not waiting_s:
            return
    if picture is not None:
        yield from [_reduced(picture, short_side_px)] * len(waiting_s)


class _Times:
    """Seconds since the start of the container, and ticks of the stream."""

    def __init__(self, video: OpenVideo) -> None:
        self._tick_s = float(video.clock.tick_s)
        self._start_s = (video.container.start_time or 0) / av.time_base

    def of(self, item: VideoFrame | Packet[VideoStream]) -> float:
        return self.seconds(item.pts)

    def seconds(self, ticks: int | None) -> float:
        if ticks is None:
            raise _CannotFindError
        return ticks * self._tick_s - self._start_s

    def ticks(self, time_s: float) -> int:
        return round((time_s + self._start_s) / self._tick_s)


def _decode(video: OpenVideo, packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    context = video.stream.codec_context
    for packet in chain(packets, [None]):
        # Right after a seek some codecs give pictures that lack what they refer to.
        yield from (frame for frame in context.decode(packet) if not frame.is_corrupt)


def _as_shown(frame: VideoFrame, short_side_px: int) -> Frames:
    width, height = _reduced_size((frame.width, frame.height), short_side_px)
    rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return orientation_of(frame).apply(rgb.to_ndarray())


def _reduced(picture: Frames, short_side_px: int) -> Frames:
    image = Image.fromarray(picture)
    return np.asarray(image.resize(_reduced_size(image.size, short_side_px), Image.Resampling.BOX))


def _reduced_size(size_wh: tuple[int, int], short_side_px: int) -> tuple[int, int]:
    scale = min(1.0, short_side_px / min(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))
