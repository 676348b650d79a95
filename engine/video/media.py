"""Reads from the packets of a video file when each frame is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engine.errors import MediaError
from engine.records import Media
from engine.video.container import open_container


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the K frames of a video are shown, in presentation order, without the frames that an edit list drops.

    ``times_s``: float64 ``(K,)``, seconds since the start of the container: of its earliest stream, audio included.
    ``end_s``: when the last frame ends.
    ``pts``: int64 ``(K,)``, the same times in ticks of the stream, as a decoder labels its frames.
    ``is_exact``: False where the packets cannot be trusted (times missing, repeated or in an order that the codec
    denies; a file not readable to its end). Then only decoding every frame tells, and these times are an estimate.
    ``codec``: FFmpeg's name for it. ``size_wh``: pixels of a decoded picture, before ``rotation_deg``, the
    counter-clockwise angle (0, 90, 180 or 270) by which it is to be turned.

    The rest decides which decoder can take the video. ``pixel_format``, ``container``: FFmpeg's names (``yuv420p``,
    ``matroska,webm``). ``is_interlaced``: the first picture says so. ``num_dropped``: frames that an edit list drops.
    ``has_one_size``: the last keyframe is as large as the first. ``num_video_streams``: those of the file, cover
    pictures included. ``size_bytes``: of the file.
    """

    times_s: NDArray[np.float64]
    end_s: float
    pts: NDArray[np.int64]
    is_exact: bool
    codec: str
    size_wh: tuple[int, int]
    rotation_deg: int
    pixel_format: str
    container: str
    is_interlaced: bool
    num_dropped: int
    has_one_size: bool
    num_video_streams: int
    size_bytes: int

    def __len__(self) -> int:
        return len(self.pts)


class Stamp(NamedTuple):
    """What a packet or a decoded frame says of its time, in ticks of its stream; 0 is an unknown duration."""

    pts: int | None
    dts: int | None
    duration: int

    @classmethod
    def of(cls, item: Packet[VideoStream] | VideoFrame) -> Stamp:
        """The stamp of a packet or frame."""
        return cls(item.pts, item.dts, item.duration or 0)


class ShowTimes(NamedTuple):
    """Times in ascending order, in ticks, int64 ``(K,)``, and seconds, float64 ``(K,)``, and when the last one ends."""

    pts: NDArray[np.int64]
    times_s: NDArray[np.float64]
    end_s: float


@dataclass(eq=False)
class OpenVideo:
    """An open file and its video stream. ``read_error`` says why `packets` stopped before the end, if it did."""

    container: InputContainer
    stream: VideoStream
    read_error: str | None = None

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the stream in decoding order, as far as the file can be read; once."""
        try:
            # An empty packet would tell the decoder that the stream has ended.
            yield from (packet for packet in self.container.demux(self.stream) if packet.size)
        except FFmpegError as error:
            self.read_error = error.strerror

    def show_times(self, stamps: Sequence[Stamp]) -> ShowTimes:
        """When the K >= 1 packets or frames of these stamps are shown, relative to the start of the container.

        Where there is no presentation time the decoding time counts; where there is none either, the frame rate.
        """
        # Some containers leave durations out; FFmpeg then takes the average frame rate.
        usual = round(1 / (self.stream.average_rate * self._time_base)) if self.stream.average_rate else 0
        durations = np.array([stamp.duration or usual for stamp in stamps], dtype=np.int64)
        known = (stamp.dts if stamp.pts is None else stamp.pts for stamp in stamps)
        ticks = np.array([n * usual if tick is None else tick for n, tick in enumerate(known)], dtype=np.int64)
        order = np.argsort(ticks, kind="stable")
        end = self._seconds((ticks + durations)[order[-1:]])
        return ShowTimes(ticks[order], self._seconds(ticks[order]), float(end[0]))

    def _seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        start = round(Fraction(self.container.start_time or 0, av.time_base) / self._time_base)
        return (ticks - start) * self._time_base.numerator / self._time_base.denominator

    @property
    def _time_base(self) -> Fraction:
        return cast(Fraction, self.stream.time_base)


def claimed_duration_s(media: Media) -> float:
    """The length that the header of a file claims, in seconds, 0 where it says nothing; it may lie.

    Raises ``MediaError`` where FFmpeg cannot open the file.
    """
    with open_container(media.path) as container:
        return (container.duration or 0) / av.time_base


@contextmanager
def open_video(media: Media) -> Iterator[OpenVideo]:
    """Open a file at its video stream: of several, the largest of those marked as default, much as FFmpeg chooses.

    Decoding uses one thread, because many videos are decoded side by side. Raises ``MediaError`` for a file that is
    missing, empty, not a media file, or without a video stream that can be decoded.
    """
    with open_container(media.path) as container:
        # The cover picture of an audio file is a video stream to FFmpeg.
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise MediaError(f"{media.path}: no video stream in this file ({container.format.long_name})")
        stream = max(streams, key=_preference)
        if stream.codec_context is None:
            raise MediaError(f"{media.path}: FFmpeg has no decoder for the video stream")
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        yield OpenVideo(container, stream)


def _preference(stream: VideoStream) -> tuple[bool, bool, int]:
    if stream.codec_context is None:
        return False, False, 0
    return True, bool(stream.disposition & Disposition.default), stream.width * stream.height


def index_timeline(media: Media) -> Timeline:
    """Read the times of all frames from the packets; of the pictures only the first and last keyframe are decoded.

    Raises ``MediaError`` as `open_video` does, and for a video stream without packets.
    """
    with open_video(media) as video:
        context = video.stream.codec_context
        size_wh, reorders = (context.width, context.height), context.has_b_frames
        shown: list[Stamp] = []
        num_dropped = 0
        picture: VideoFrame | None = None
        last_keyframe: Packet[VideoStream] | None = None
        for packet in video.packets():
            if packet.is_keyframe and picture is None:
                picture = _decode_alone(video.stream, packet)
            elif packet.is_keyframe:
                last_keyframe = packet
            if packet.is_discard:
                num_dropped += 1
            else:
                shown.append(Stamp.of(packet))
        if not shown:
            raise MediaError(f"{media.path}: the video stream has no frames")
        times = video.show_times(shown)
        last_picture = _decode_alone(video.stream, last_keyframe) if last_keyframe else None
        return Timeline(
            times_s=times.times_s,
            end_s=times.end_s,
            pts=times.pts,
            is_exact=video.read_error is None and _are_trustworthy(shown, reorders=reorders),
            codec=context.codec.canonical_name,
            size_wh=size_wh,
            rotation_deg=round(picture.rotation / 90) * 90 % 360 if picture else 0,
            pixel_format=picture.format.name if picture else str(context.pix_fmt),
            container=video.container.format.name,
            is_interlaced=picture is not None and picture.interlaced_frame,
            num_dropped=num_dropped,
            has_one_size=picture is None or last_picture is None or _size(picture) == _size(last_picture),
            num_video_streams=len(video.container.streams.video),
            size_bytes=video.container.size,
        )


def _are_trustworthy(stamps: Sequence[Stamp], *, reorders: bool) -> bool:
    times = [stamp.pts for stamp in stamps if stamp.pts is not None]
    if len(times) < len(stamps) or len(set(times)) < len(times):
        return False
    # A codec that reorders and times that do not: the container has none (AVI) and FFmpeg made them up by counting.
    return not (reorders and len(times) > 2 and times == sorted(times))


def _decode_alone(stream: VideoStream, keyframe: Packet[VideoStream]) -> VideoFrame | None:
    """The picture of a packet that needs no other, None if it gives none."""
    context = stream.codec_context
    try:
        frames = [*context.decode(keyframe), *context.decode(None)]
    except FFmpegError:
        frames = []
    context.flush_buffers()
    return frames[0] if frames else None


def _size(picture: VideoFrame) -> tuple[int, int]:
    return picture.width, picture.height
