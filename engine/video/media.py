"""Reads from the packets of a video file when each frame is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engine.config import DEFAULT_MAX_PIXELS
from engine.errors import MediaError
from engine.records import Media
from engine.storage.location import Location
from engine.video.clock import Clock, Stamp, decoded_times, forward_times
from engine.video.container import open_container
from engine.video.interlacing import is_combed
from engine.video.orientation import Orientation
from engine.video.sequence_headers import length_bytes, sequence_headers
from engine.video.tone_map import Transfer
from engine.video.vp9 import told_sizes

_MIN_FILM_SHARE = 0.1
"""A stream with fewer packets than this share of those of another is no film of its own."""

_MAX_MISSING_SHARE = 0.02
_CLAIMING_FORMATS = {"matroska,webm", "avi", "flv", "asf"}
"""Whose header says how long the file is, and which can be read without their end."""

_HDR: dict[int, Transfer] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
_BOTTOM_FIRST = {3, 4}
"""FFmpeg's `AVFieldOrder`: AV_FIELD_BB and AV_FIELD_TB, the field that is shown first comes second in the name."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the K frames of a video are shown, in presentation order, without the frames that an edit list drops.

    ``times_s``: float64 ``(K,)``, seconds since the start of the container: of its earliest stream, audio included.
    ``end_s``: when the last frame ends.
    ``pts``: int64 ``(K,)``, the same times in ticks of the stream, as a decoder labels its frames.
    ``is_exact``: False where the packets cannot be trusted (times missing, repeated or in an order that the codec
    denies; a file not readable to its end). Then only decoding every frame tells, and these times are an estimate.
    ``stream``: the index of the stream in the file. ``codec``: FFmpeg's name for it. ``size_wh``: pixels of a decoded
    picture, before it is shown by its ``orientation``. ``hdr``: how its values stand for light, None where they are for
    a standard display. ``bottom_first``: of the two fields of an interlaced picture, the lower one comes first.
    ``keyframes``: int64 ``(N,)``, the numbers of the frames that decode without any other, ascending.
    ``has_one_clock``: the times of all packets are on the clock of the first.
    ``warnings``: one line for each thing that was lost or assumed.

    The rest decides which decoder can take the video. ``pixel_format``, ``container``: FFmpeg's names (``yuv420p``,
    ``matroska,webm``). ``is_interlaced``: the first or last keyframe says so, or looks so. ``num_dropped``: frames that
    an edit list drops. ``has_one_size``: all keyframes that tell their size have that of the first, and in VP9 all
    frames that do. ``num_video_streams``: those of the file, cover pictures included. ``size_bytes``: of the file.
    """

    times_s: NDArray[np.float64]
    end_s: float
    pts: NDArray[np.int64]
    is_exact: bool
    stream: int
    codec: str
    size_wh: tuple[int, int]
    orientation: Orientation
    hdr: Transfer | None
    bottom_first: bool
    keyframes: NDArray[np.int64]
    warnings: tuple[str, ...]
    pixel_format: str
    container: str
    is_interlaced: bool
    num_dropped: int
    has_one_size: bool
    num_video_streams: int
    size_bytes: int
    has_one_clock: bool = False

    def __len__(self) -> int:
        return len(self.pts)


class ShowTimes(NamedTuple):
    """Times in ascending order, in ticks, int64 ``(K,)``, and seconds, float64 ``(K,)``, and when the last one ends."""

    pts: NDArray[np.int64]
    times_s: NDArray[np.float64]
    end_s: float


@dataclass(eq=False)
class OpenVideo:
    """An open file and its video stream. ``read_error`` says why `packets` stopped before the end, if it did.

    ``has_one_clock``: it is known to have one, see `Timeline`, and need not be watched.
    """

    container: InputContainer
    stream: VideoStream
    has_one_clock: bool = False
    read_error: str | None = None

    def __post_init__(self) -> None:
        may_leap = bool(self.container.format.flags & cast(int, Flags.ts_discont.value))
        self.clock = Clock(self._time_base, may_leap=may_leap)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the stream in decoding order, on one clock, as far as the file can be read; once."""
        try:
            for packet in self.container.demux(self.stream):
                if not packet.size:  # it would tell the decoder that the stream has ended
                    continue
                shift = 0 if self.has_one_clock else self.clock.shift(self.stamp(packet))
                if shift:
                    packet.pts = None if packet.pts is None else packet.pts + shift
                    packet.dts = None if packet.dts is None else packet.dts + shift
                yield packet
        except FFmpegError as error:
            self.read_error = error.strerror

    def stamp(self, item: Packet[VideoStream] | VideoFrame) -> Stamp:
        """The stamp of a packet or frame; of those without a duration, the one that the frame rate gives."""
        return Stamp(item.pts, item.dts, item.duration or self._usual_duration)

    def packet_times(self, stamps: Sequence[Stamp]) -> ShowTimes:
        """When the K >= 1 packets of these stamps are shown: in the order of their times.

        Where there is no presentation time the decoding time counts; where there is none either, the frame rate.
        """
        ticks = self._ticks([stamp.dts if stamp.pts is None else stamp.pts for stamp in stamps])
        order = np.argsort(ticks, kind="stable")
        return self._show_times(ticks[order], last=stamps[order[-1]])

    def frame_times(self, stamps: Sequence[Stamp]) -> ShowTimes:
        """When the K >= 1 decoded frames of these stamps are shown: in the order in which they come."""
        return self._show_times(forward_times(self._ticks(decoded_times(stamps))), last=stamps[-1])

    @cached_property
    def _usual_duration(self) -> int:
        return round(1 / (self.stream.average_rate * self._time_base)) if self.stream.average_rate else 0

    def _ticks(self, times: Sequence[int | None]) -> NDArray[np.int64]:
        known = (n * self._usual_duration if tick is None else tick for n, tick in enumerate(times))
        return np.array(list(known), dtype=np.int64)

    def _show_times(self, ticks: NDArray[np.int64], *, last: Stamp) -> ShowTimes:
        start = round(Fraction(self.container.start_time or 0, av.time_base) / self._time_base)
        edges = np.append(ticks, ticks[-1] + last.duration) - start
        edges_s = edges * self._time_base.numerator / self._time_base.denominator
        return ShowTimes(ticks, edges_s[:-1], float(edges_s[-1]))

    @property
    def _time_base(self) -> Fraction:
        return cast(Fraction, self.stream.time_base)


def claimed_duration_s(media: Media) -> float:
    """The length that the header of a file claims, in seconds, 0 where it says nothing; it may lie.

    Raises ``MediaError`` where FFmpeg cannot open the file.
    """
    with open_container(media.path) as container:
        return (container.duration or 0) / av.time_base


def claimed_size(media: Media) -> tuple[int, int]:
    """Width and height in pixels that the header of the film claims. Raises as `open_video` does."""
    with open_video(media) as video:
        return video.stream.codec_context.width, video.stream.codec_context.height


@contextmanager
def open_video(
    media: Media,
    *,
    stream: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    has_one_clock: bool = False,
    keyframes_alone: bool = False,
) -> Iterator[OpenVideo]:
    """Open a file at one of its video streams, by default at the film, see `_film`.

    ``keyframes_alone``: see `engine.video.container.open_container`.

    Decoding uses one thread, because many videos are decoded side by side. Raises ``MediaError`` for a file that is
    missing, empty, not a media file, or without a video stream that can be decoded, and for pictures larger than
    ``max_pixels``; ``RemoteError`` for a remote file that cannot be read.
    """
    with open_container(media.path, keyframes_alone=keyframes_alone) as container:
        chosen = _film(media.path, container) if stream is None else cast(VideoStream, container.streams[stream])
        context = chosen.codec_context
        if context is None:
            raise MediaError(f"{media.path}: FFmpeg has no decoder for the video stream")
        if context.width * context.height > max_pixels:
            size = f"{context.width}x{context.height}"
            raise MediaError(f"{media.path}: pictures of {size} pixels, more than --max-pixels {max_pixels}")
        context.thread_type, context.thread_count = "NONE", 1
        # Pictures may grow in the middle of a file. What decoders count has margins.
        context.options = {"max_pixels": str(2 * max_pixels)}
        yield OpenVideo(container, chosen, has_one_clock)


def _film(path: Location, container: InputContainer) -> VideoStream:
    """The video stream that a viewer would call the film.

    Of several: not a cover, a poster, a still or the thumbnails of a film (which have a small part of its packets);
    with a decoder; marked as default; the largest; the first.
    """
    # The cover picture of an audio file is a video stream to FFmpeg.
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError(f"{path}: no video stream in this file ({container.format.long_name})")
    if len(streams) == 1:
        return streams[0]
    num_packets = _num_packets(path)
    most = max(num_packets.values(), default=0)

    def preference(stream: VideoStream) -> tuple[bool, bool, bool, int]:
        context = stream.codec_context
        moves = num_packets[stream.index] >= most * _MIN_FILM_SHARE
        area = context.width * context.height if context else 0
        return moves, context is not None, bool(stream.disposition & Disposition.default), area

    return max(streams, key=preference)


def _num_packets(path: Location) -> Counter[int]:
    """How many packets each video stream has, by its index."""
    num_packets: Counter[int] = Counter()
    with open_container(path, keyframes_alone=True) as container, suppress(FFmpegError):
        for packet in container.demux(video=list(range(len(container.streams.video)))):
            num_packets[packet.stream_index] += packet.size > 0
    return num_packets


def index_timeline(
    media: Media,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    compares_keyframes: bool = True,
    keyframes_alone: bool = False,
) -> Timeline:
    """Read the times of all frames from the packets; of the pictures, only the first and last keyframe are decoded.

    ``compares_keyframes``: False decodes the first alone, for PyAV, and what decides on other decoders counts for it.
    ``keyframes_alone``: read no other frames where they need not be, see `engine.video.container.open_container`.
    Raises ``MediaError`` as `open_video` does, and for a video stream without packets.
    """
    with open_video(media, max_pixels=max_pixels, keyframes_alone=keyframes_alone) as video:
        context = video.stream.codec_context
        codec, reorders = context.codec.canonical_name, context.has_b_frames
        size_wh = context.width, context.height
        shown: list[Stamp] = []
        of_keyframes: list[int | None] = []
        num_dropped = 0
        picture: VideoFrame | None = None
        last_keyframe: Packet[VideoStream] | None = None
        sizes: set[tuple[int, int]] = set()
        headers, unit_length_bytes = b"", length_bytes(codec, context.extradata)
        for packet in video.packets():
            if packet.is_keyframe and (compares_keyframes or picture is None):
                before, headers = headers, sequence_headers(codec, bytes(packet), length_bytes=unit_length_bytes)
                if picture is None:
                    picture = decode_alone(video.stream, packet)
                else:
                    last_keyframe = packet
                    if headers != before or packet.has_sidedata("new_extradata"):
                        sizes |= _sizes(decode_alone(video.stream, packet))
            if codec == "vp9" and compares_keyframes:
                sizes |= told_sizes(bytes(packet))
            if packet.is_discard:
                num_dropped += 1
            else:
                shown.append(video.stamp(packet))
                of_keyframes += [packet.pts] if packet.is_keyframe else []
        if not shown:
            raise MediaError(f"{media.path}: the video stream has no frames")
        times = video.packet_times(shown)
        last_picture = decode_alone(video.stream, last_keyframe) if last_keyframe else None
        sizes |= _sizes(picture) | _sizes(last_picture)
        return Timeline(
            times_s=times.times_s,
            end_s=times.end_s,
            pts=times.pts,
            is_exact=video.read_error is None and _are_trustworthy(shown, reorders=reorders),
            stream=video.stream.index,
            codec=codec,
            size_wh=size_wh,
            orientation=orientation_of(picture),
            hdr=_HDR.get(picture.color_trc) if picture else None,
            bottom_first=context.field_order in _BOTTOM_FIRST,
            keyframes=np.flatnonzero(np.isin(times.pts, [pts for pts in of_keyframes if pts is not None])),
            warnings=tuple(_assumptions(media, video, times)),
            pixel_format=picture.format.name if picture else str(context.pix_fmt),
            container=video.container.format.name,
            is_interlaced=any(is_interlaced(found) for found in (picture, last_picture) if found),
            num_dropped=num_dropped,
            has_one_size=len(sizes) <= 1,
            num_video_streams=len(video.container.streams.video),
            size_bytes=video.container.size,
            has_one_clock=not video.clock.breaks_s,
        )


def orientation_of(picture: VideoFrame | None) -> Orientation:
    """As the container or the codec has it: FFmpeg's decoders attach both to the pictures."""
    side_data = cast(Iterable[Any], picture.side_data if picture else ())
    matrices = [bytes(data) for data in side_data if data.type is SideDataType.DISPLAYMATRIX]
    return Orientation.of_matrix(matrices[0]) if matrices else Orientation()


def _assumptions(media: Media, video: OpenVideo, times: ShowTimes) -> Iterator[str]:
    """What is told of a file whose packets were all read."""
    films = [stream for stream in video.container.streams.video if not stream.disposition & Disposition.attached_pic]
    if len(films) > 1:
        yield f"described is video stream {films.index(video.stream) + 1} of {len(films)} of the file"
    if breaks_s := video.clock.breaks_s:
        at = ", ".join(f"{time_s:.1f} s" for time_s in breaks_s[:3])
        rest = f" and {len(breaks_s) - 3} more times" if len(breaks_s) > 3 else ""
        yield f"the clock of the file is set anew at {at}{rest}; taken to go on at once"
    elif (missing := _missing(media, video, end_s=times.end_s)) is not None:
        yield missing


def _missing(media: Media, video: OpenVideo, *, end_s: float) -> str | None:
    """How much of the length that the header claims is missing, where that tells of a file that was cut off."""
    if video.container.format.name not in _CLAIMING_FORMATS:
        return None
    claimed_s = (video.container.duration or 0) / av.time_base
    if video.stream.frames and video.stream.average_rate:  # AVI: FFmpeg shortens the length to that of the file
        claimed_s = max(claimed_s, float(video.stream.frames / video.stream.average_rate))
    least_s = claimed_s - max(1.0, _MAX_MISSING_SHARE * claimed_s)
    if end_s >= least_s or (end_s := max(end_s, _end_of_all_streams_s(media.path))) >= least_s:
        return None
    share = 1 - end_s / claimed_s
    return f"the file ends after {end_s:.1f} s of the {claimed_s:.1f} s that its header claims: {share:.0%} is missing"


def _end_of_all_streams_s(path: Location) -> float:
    """When the last packet ends, since the start of the container."""
    end_s = 0.0
    with open_container(path, keyframes_alone=True) as container, suppress(FFmpegError):
        start_s = (container.start_time or 0) / av.time_base
        for packet in container.demux():
            if packet.size and packet.pts is not None and packet.time_base:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_s)
    return end_s


def _are_trustworthy(stamps: Sequence[Stamp], *, reorders: bool) -> bool:
    times = [stamp.pts for stamp in stamps if stamp.pts is not None]
    if len(times) < len(stamps) or len(set(times)) < len(times):
        return False
    # A codec that reorders and times that do not: the container has none (AVI) and FFmpeg made them up by counting.
    return not (reorders and len(times) > 2 and times == sorted(times))


def decode_alone(stream: VideoStream, keyframe: Packet[VideoStream]) -> VideoFrame | None:
    """The picture of a packet that needs no other, None if it gives none."""
    context = stream.codec_context
    try:
        frames = [*context.decode(keyframe), *context.decode(None)]
    except FFmpegError:
        frames = []
    context.flush_buffers()
    return frames[0] if frames else None


def is_interlaced(picture: VideoFrame) -> bool:
    """Whether a picture is woven of two fields: it says so, or, in planes of 8 bits, looks so."""
    luma = picture.format.components[0]
    is_plain = luma.is_luma and luma.bits == 8 and picture.format.is_planar
    return picture.interlaced_frame or (is_plain and is_combed(plane_samples(picture.planes[0])))


def plane_samples(plane: VideoPlane) -> NDArray[np.uint8]:
    """The samples of a plane of 8 bits, uint8 ``(H, W)``; valid as long as its frame."""
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _sizes(picture: VideoFrame | None) -> set[tuple[int, int]]:
    return {(picture.width, picture.height)} if picture else set()
