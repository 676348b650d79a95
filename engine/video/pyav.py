"""FrameSource in host memory: FFmpeg decodes on one CPU core, Pillow resizes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from math import ceil, sqrt
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from engine.config import DEFAULT_MAX_PIXELS, DEFAULT_WORKING_PIXELS
from engine.errors import MediaError
from engine.records import FloatArray, Frames, Media, Region, Span, View
from engine.video.blank import find_blank
from engine.video.clock import Stamp
from engine.video.color import rgb_from_planes
from engine.video.cuts import CutFinder
from engine.video.interlacing import is_combed, show_field
from engine.video.media import (
    OpenVideo,
    Timeline,
    decode_alone,
    index_timeline,
    is_interlaced,
    open_video,
    plane_samples,
)
from engine.video.picture import Picture
from engine.video.resize import check_inside, fit_picture, reduced
from engine.video.sampling import MAX_HOLD_S, Samples, sample_frames, sample_keyframes, widest_gap_s
from engine.video.source import FrameChunk, InputSpec
from engine.video.statistics import (
    SceneStatistics,
    SceneStatisticsAccumulator,
    SpanAccumulator,
    SpanStatistics,
    square_sum_dtype,
)

CHUNK_FRAMES = 8
DEFAULT_CACHE_BYTES = 144 << 20
"""Describing ten seconds takes 280 MB, and a query of any length of 288 px shall take 500 at most (`bench_memory`)."""
_SKIPPABLE_CODECS = frozenset({"h264"})
"""Codecs whose non-reference frames are never referred to. In HEVC those of a lower temporal layer may be."""

_PLANAR_FORMATS = {(2, 2): "yuv420p", (2, 1): "yuv422p"}
"""Pixels per chroma sample across and down -> the 8-bit format that keeps them; any other becomes 4:4:4."""


NUM_SPARES = 3
"""Frames that are kept to replace a blank one."""

_TIME_DECIMALS = 3

ALL_FRAMES = "all frames are sampled"


class _IndexMismatchError(Exception):
    """What decodes is not what the packets announced. Callers never see it."""


class _Spares:
    """The latest frames that the sampling rule did not take, some time apart, so that a few span half a slot."""

    def __init__(self, max_frames: int, *, slot_s: float) -> None:
        self._frames = deque[VideoFrame](maxlen=max_frames)
        self._slot_s = slot_s

    def add(self, frame: VideoFrame) -> None:
        if not self._frames or not 0 <= _seconds_between(self._frames[-1], frame) < self._slot_s / 8:
            self._frames.append(frame)

    def before(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Those of the half slot before ``frame``, the latest first."""
        return (it for it in reversed(self._frames) if 0 < _seconds_between(it, frame) <= self._slot_s / 2)


def _seconds_between(one: VideoFrame, other: VideoFrame) -> float:
    return other.time - one.time if one.time is not None and other.time is not None else np.nan


class PyAvFrameSource:
    """The frames that the sampling rule takes from one video at ``fps`` slots per second. For one thread at a time.

    Frames are chosen by the times of the packets, and frames that nothing needs are not decoded. Where decoding
    contradicts the packets (a damaged file) every frame is decoded, errors are passed over and what decodes counts;
    frames handed out before that stay valid. Pictures are kept if all of them fit into ``cache_bytes``; otherwise every
    pass decodes anew, and memory does not grow with the length of the video.

    Pictures are turned and mirrored as they are shown, those of two fields (flagged, or found) show their first field,
    those of more than ``working_pixels`` are reduced, and all have the size of the first. ``maps_hdr``: PQ and HLG
    become standard colors (`engine.video.tone_map`); else their values are taken as they are. ``resizes_planes``: whole
    pictures become model inputs plane by plane where that can be (`engine.video.picture`). ``replaces_blank``: a
    picture that says nothing gives its place to one that does of the half slot before, so that who blackens the frames
    that the sampling rule takes hides nothing; not among key frames.

    With ``max_keyframe_gap_s`` only key frames are taken and decoded, at most one for each slot. All frames are where
    that is a longer time without a key frame, the packets cannot be trusted, or the first key frame does not decode.

    ``timeline`` spares reading the packets again where it is known. ``has_one_size`` (all sampled pictures were coded
    in the size of the first), ``is_damaged`` (frames or parts of them are lost) and ``warnings`` are final after the
    first full pass. Raises ``MediaError`` as `engine.video.media.open_video` does, and for a video that gives no frame.
    """

    def __init__(
        self,
        media: Media,
        *,
        fps: float = 1.0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        working_pixels: int = DEFAULT_WORKING_PIXELS,
        maps_hdr: bool = False,
        max_keyframe_gap_s: float | None = None,
        resizes_planes: bool = False,
        replaces_blank: bool = False,
        timeline: Timeline | None = None,
    ) -> None:
        self._media = media
        self._fps = fps
        self._cache_bytes = cache_bytes
        self._max_pixels = max_pixels
        self._working_pixels = working_pixels
        self._maps_hdr = maps_hdr
        self._resizes_planes = resizes_planes
        self._replaces_blank = replaces_blank
        self._cache: list[Picture] | None = None
        self._losses: tuple[str, ...] = ()
        self._shot_ends_s: tuple[float, ...] | None = None
        self._reformatter = VideoReformatter()
        self._coded_wh: tuple[int, int] | None = None
        self.has_one_size = True
        self._timeline = timeline or index_timeline(
            media,
            max_pixels=max_pixels,
            compares_keyframes=False,
            keyframes_alone=max_keyframe_gap_s is not None,
        )
        self._trusts_index = self._timeline.is_exact
        self._keyframes_line = keyframes_line(self._timeline, max_gap_s=max_keyframe_gap_s)
        self._takes_keyframes = max_keyframe_gap_s is not None and self._keyframes_line is None
        if self._trusts_index:
            self._samples = sample_timeline(self._timeline, fps=fps, takes_keyframes=self._takes_keyframes)
        else:
            self._samples = self._sample_what_decodes()

    @property
    def num_frames(self) -> int:
        """F, the number of sampled frames; final after the first full pass."""
        return len(self._samples.slots)

    @property
    def is_damaged(self) -> bool:
        """Whether frames do not decode, or only with errors."""
        return bool(self._losses)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that was lost or assumed."""
        lines = [*self._timeline.warnings, *holes_lines(self._samples), *self._losses]
        lines += [self._keyframes_line] if self._keyframes_line else []
        if not self.has_one_size:
            lines.append("pictures of several sizes; all are scaled to the first")
        return tuple(lines)

    @property
    def shot_ends_s(self) -> tuple[float, ...] | None:
        """See `engine.video.source.FrameSource`. None among key frames, and where the packets cannot be trusted."""
        return self._shot_ends_s if self._trusts_index else None

    @property
    def source_frames(self) -> NDArray[np.int64]:
        """The number of the frame that each slot shows, int64 ``(F,)``; final after the first full pass.

        Frames are counted in presentation order; those that do not decode count until the damage is found.
        """
        return self._samples.frames

    @property
    def timestamps(self) -> FloatArray:
        """Start and end of each frame in seconds, float32 ``(F, 2)``; final after the first full pass."""
        return self._samples.timestamps

    def scene_statistics(self) -> SceneStatistics:
        """Statistics over all frames at full size, in one pass (in two where the index turns out to be wrong)."""
        num_frames = self.num_frames
        accumulator = SceneStatisticsAccumulator(num_frames=num_frames)
        for picture in self.pictures():
            accumulator.add(picture)
        if self.num_frames != num_frames:
            return self.scene_statistics()
        return accumulator.finish()

    def span_statistics(self, spans: Sequence[Span]) -> Iterator[tuple[int, SpanStatistics]]:
        """See `engine.video.source.FrameSource`."""
        accumulator = SpanAccumulator([span.limited(self.num_frames) for span in spans])
        borders = frozenset(accumulator.borders)
        dtype = square_sum_dtype(self.num_frames)
        start, sums, square_sums = 0, np.zeros(0, np.uint32), np.zeros(0, dtype)
        for number, picture in enumerate(self.pictures()):
            if number in borders or number == 0:
                start, sums, square_sums = (
                    number,
                    np.zeros(picture.shape, np.uint32),
                    np.zeros(picture.shape, dtype),
                )
            sums += picture
            square_sums += np.square(picture, dtype=np.uint16)
            if number in accumulator.edge_frames:
                accumulator.add_picture(number, picture)
            if number + 1 in borders:
                yield from accumulator.add_sums(start, number + 1, sums, square_sums)

    def model_inputs(self, specs: Sequence[InputSpec], *, views: Sequence[View] = (View(),)) -> Iterator[FrameChunk]:
        """See `engine.video.source.FrameSource`; B is `CHUNK_FRAMES` except in the last chunk of a view.

        Raises ``ValueError`` for a region that does not lie inside the frame.
        """
        spans = [view.span.limited(self.num_frames) for view in views]
        end = max(stop for _, stop in spans)
        # A pass that comes to the end ends by itself: that checks the end of the file and fills the cache.
        pictures = self._pictures() if end >= self.num_frames else islice(self._pictures(), end)
        waiting: list[list[tuple[int, list[Frames]]]] = [[] for _ in views]
        fitted: list[tuple[Picture | None, list[Frames]]] = [(None, []) for _ in views]
        for number, picture in enumerate(pictures):
            for place, (view, (start, stop)) in enumerate(zip(views, spans, strict=True)):
                if number < start or (view.span.stop is not None and number >= stop):
                    continue
                if (number - start) % view.step == 0:
                    if fitted[place][0] is not picture:
                        fitted[place] = picture, _fitted(picture, specs, region=view.region)
                    waiting[place].append((number, fitted[place][1]))
                is_last = view.span.stop is not None and number + 1 == stop
                if waiting[place] and (is_last or len(waiting[place]) == CHUNK_FRAMES):
                    yield self._chunk(waiting[place], specs, view=place)
                    waiting[place] = []
                if is_last:
                    fitted[place] = None, []  # a picture for each shot of a long film would fill the memory
        for place, rest in enumerate(waiting):
            if rest:
                yield self._chunk(rest, specs, view=place)

    def _chunk(
        self, frames: Sequence[tuple[int, Sequence[Frames]]], specs: Sequence[InputSpec], *, view: int
    ) -> FrameChunk:
        numbers = [number for number, _ in frames]
        inputs = _stack([fitted for _, fitted in frames], specs)
        is_blank = find_blank(inputs[specs[0].name])
        return FrameChunk(self._samples.timestamps[numbers], inputs, is_blank, view)

    def pictures(self) -> Iterator[Frames]:
        """Yield every sampled frame at full size, in order: RGB uint8 ``(H, W, 3)``, H and W of the video.

        Consecutive slots that show one frame get one array.
        """
        for picture in self._pictures():
            yield picture.rgb

    def _pictures(self) -> Iterator[Picture]:
        if self._cache is not None:
            for picture in self._cache:
                yield picture
                self._limit(picture)
            return
        kept: list[Picture] | None = []
        for picture in self._decode():
            if kept is not None and picture.num_bytes * self._num_different <= self._cache_bytes:
                kept.append(picture)
            else:
                kept = None
            yield picture
            self._limit(picture)
        self._cache = kept

    def _limit(self, picture: Picture) -> None:
        """Keep RGB beside planes only where there is room for both."""
        if picture.num_bytes_with_rgb * self._num_different > self._cache_bytes:
            picture.drop_rgb()

    def close(self) -> None:
        """Drop the kept pictures; nothing else is held between passes."""
        self._cache = None

    @property
    def _num_different(self) -> int:
        return 1 + int(np.count_nonzero(np.diff(self._samples.frames)))

    def _runs(self) -> dict[int, int]:
        """``{source frame: number of slots that show it}``, in order of the frames."""
        frames, counts = np.unique(self._samples.frames, return_counts=True)
        return dict(zip(frames.tolist(), counts.tolist(), strict=True))

    def _open(self) -> AbstractContextManager[OpenVideo]:
        timeline = self._timeline
        return open_video(
            self._media,
            stream=timeline.stream,
            max_pixels=self._max_pixels,
            has_one_clock=timeline.has_one_clock,
            keyframes_alone=self._takes_keyframes,
        )

    def _decode(self) -> Iterator[Picture]:
        num_slots = 0
        if self._takes_keyframes:
            try:
                yield from self._decode_keyframes()
            except _IndexMismatchError:
                self._takes_keyframes = False
                self._keyframes_line = f"its first key frame does not decode; {ALL_FRAMES}"
                self._samples = sample_timeline(self._timeline, fps=self._fps)
            else:
                return
        if self._trusts_index:
            try:
                for picture in self._decode_by_index():
                    num_slots += 1
                    yield picture
            except (_IndexMismatchError, FFmpegError):
                self._trusts_index = False
                self._samples = self._sample_what_decodes()
            else:
                return
        yield from islice(self._decode_by_count(), num_slots, None)

    def _decode_keyframes(self) -> Iterator[Picture]:
        """The key frames, one by one; those that do not decode are taken out of the samples."""
        awaited, number = deque(self._timeline.pts[self._samples.frames].tolist()), 0
        num_awaited = len(awaited)
        with self._open() as video:
            for packet in video.packets():
                if not awaited or packet.pts != awaited[0]:
                    continue
                awaited.popleft()
                frame = decode_alone(video.stream, packet)
                if frame is not None and not frame.is_corrupt:
                    yield self._picture(frame)
                    number += 1
                elif number == 0:
                    break
                else:
                    self._samples = self._samples.without(number)
        if number == 0:
            raise _IndexMismatchError
        for _ in awaited:
            self._samples = self._samples.without(number)
        if number < num_awaited:
            self._losses = (f"{number} of {num_awaited} key frames decode",)

    def _decode_by_index(self) -> Iterator[Picture]:
        pts = self._timeline.pts.tolist()
        num_slots = {pts[frame]: count for frame, count in self._runs().items()}
        # The first and the last frame prove that the video begins and ends where the index says.
        needed = sorted({pts[0], *num_slots, pts[-1]})
        with self._open() as video:
            awaited, pending, spares = deque(needed), list[Picture](), self._new_spares()
            cuts, shown_pts = CutFinder() if self._shot_ends_s is None else None, list[int]()
            for frame in _decode_needed(video, frozenset(needed), may_skip=self._timeline.codec in _SKIPPABLE_CODECS):
                if frame.pts is None or frame.is_corrupt or not awaited or frame.pts > awaited[0]:
                    raise _IndexMismatchError
                if cuts is not None:
                    cuts.add(_first_plane(frame), num_bits=frame.format.components[0].bits)
                    shown_pts.append(frame.pts)
                if frame.pts == awaited[0]:
                    awaited.popleft()
                    # How long a picture is shown is certain when the next one has come: the video may end before.
                    yield from pending
                    count = num_slots.get(frame.pts)
                    pending = [self._sampled(frame, spares)] * count if count else []
                else:
                    spares.add(frame)
        if awaited:
            raise _IndexMismatchError
        if cuts is not None:
            self._shot_ends_s = self._ends_of_shots(np.array(shown_pts)[cuts.cuts()])
        yield from pending

    def _ends_of_shots(self, cut_pts: NDArray[np.int64]) -> tuple[float, ...]:
        times_s = self._timeline.times_s[np.searchsorted(self._timeline.pts, cut_pts)]
        ends_s = np.unique(np.round([*times_s, self._timeline.end_s], _TIME_DECIMALS))
        return tuple(ends_s[ends_s > 0].tolist())

    def _decode_by_count(self) -> Iterator[Picture]:
        runs, spares = self._runs(), self._new_spares()
        with self._open() as video:
            for number, frame in enumerate(_decode_everything(video, [])):
                if number in runs:
                    yield from [self._sampled(frame, spares)] * runs[number]
                else:
                    spares.add(frame)

    def _new_spares(self) -> _Spares:
        return _Spares(NUM_SPARES if self._replaces_blank else 0, slot_s=1 / self._fps)

    def _sampled(self, frame: VideoFrame, spares: _Spares) -> Picture:
        """A frame that the sampling rule takes, or the spare one that replaces it."""
        picture = self._picture(frame)
        if self._replaces_blank and picture.is_blank:
            return next((other for other in map(self._picture, spares.before(frame)) if not other.is_blank), picture)
        return picture

    def _picture(self, frame: VideoFrame) -> Picture:
        """A frame as it is shown; all pictures get the size of the first."""
        coded_wh = frame.width, frame.height
        self._coded_wh = self._coded_wh or coded_wh
        self.has_one_size = self.has_one_size and self._coded_wh == coded_wh
        size_wh = working_size(self._coded_wh, max_pixels=self._working_pixels)
        is_reduced = coded_wh == self._coded_wh != size_wh
        # The mean of neighbouring lines would be that of two moments: such a picture is reduced when it is one field.
        is_woven = is_reduced and frame.width * frame.height <= DEFAULT_WORKING_PIXELS and is_interlaced(frame)
        width, height = coded_wh if is_woven else size_wh
        subsampling = 4 // frame.format.chroma_width(4), 4 // frame.format.chroma_height(4)
        full_range = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            # Chroma that is reduced with luma has enough samples for each pixel.
            format="yuv444p" if is_reduced and not is_woven else _PLANAR_FORMATS.get(subsampling, "yuv444p"),
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation="AREA" if is_reduced else None,
            threads=1,
        )
        luma, blue, red = (plane_samples(plane) for plane in full_range.planes)
        orientation, hdr = self._timeline.orientation, self._timeline.hdr if self._maps_hdr else None
        is_field = is_woven or ((width, height) == coded_wh and (frame.interlaced_frame or is_combed(luma)))
        # In a picture of odd size samples of chroma reach over an edge, which may be another one when it is turned.
        is_even = width % blue.shape[1] == 0 == height % blue.shape[0]
        if self._resizes_planes and is_even and not (is_field or hdr):
            return Picture((orientation.apply(luma), orientation.apply(blue), orientation.apply(red)))
        picture = rgb_from_planes(luma, blue, red, hdr=hdr)
        if is_field:
            picture = show_field(picture, bottom=self._timeline.bottom_first)
        if is_woven:
            picture = reduced(picture, size_wh=size_wh)
        return Picture(orientation.apply(picture))

    def _sample_what_decodes(self) -> Samples:
        """Decode every frame to learn which there are and when they are shown, and note what is lost."""
        stamps: list[Stamp] = []
        errors: list[FFmpegError] = []
        num_damaged = 0
        with self._open() as video:
            for frame in _decode_everything(video, errors):
                stamps.append(video.stamp(frame))
                num_damaged += frame.is_corrupt
            if not stamps:
                raise MediaError(f"{self._media.path}: none of its {len(self._timeline)} frames decodes")
            times = video.frame_times(stamps)
        lines = []
        # An index that is not exact may count a packet without a picture, or a field, as a frame.
        if errors or (self._timeline.is_exact and len(stamps) < len(self._timeline)):
            lines.append(f"{len(stamps)} of {len(self._timeline)} frames decode")
        if num_damaged:
            lines.append(f"{num_damaged} of {len(stamps)} decoded frames have errors in the picture")
        if video.read_error is not None:
            lines.append(f"the file cannot be read to its end ({video.read_error})")
        self._losses = tuple(lines)
        return sample_frames(times.times_s, end_s=times.end_s, fps=self._fps)


def working_size(size_wh: tuple[int, int], *, max_pixels: int = DEFAULT_WORKING_PIXELS) -> tuple[int, int]:
    """In which size pictures of ``size_wh`` pixels are worked with: at most ``max_pixels``, by a whole factor."""
    factor = ceil(sqrt(size_wh[0] * size_wh[1] / max_pixels))
    return max(1, size_wh[0] // factor), max(1, size_wh[1] // factor)


def sample_timeline(timeline: Timeline, *, fps: float, takes_keyframes: bool = False) -> Samples:
    """Which frames to take of a video whose packets can be trusted."""
    if takes_keyframes:
        return sample_keyframes(timeline.times_s, timeline.keyframes, end_s=timeline.end_s, fps=fps)
    return sample_frames(timeline.times_s, end_s=timeline.end_s, fps=fps)


def keyframes_line(timeline: Timeline, *, max_gap_s: float | None) -> str | None:
    """Why the key frames of a video do not do for ``max_gap_s``; None where they do, and where nothing asks for it."""
    if max_gap_s is None:
        return None
    if not timeline.is_exact:
        return f"the packets do not tell which frames are key frames; {ALL_FRAMES}"
    gap_s = widest_gap_s(timeline.times_s, timeline.keyframes, end_s=timeline.end_s)
    return f"{gap_s:.1f} s without a key frame, more than {max_gap_s:g} s; {ALL_FRAMES}" if gap_s > max_gap_s else None


def holes_lines(samples: Samples) -> Iterator[str]:
    """What is to be said of pictures that the time stamps hold for very long."""
    if samples.holes_s:
        start_s, end_s = samples.holes_s[0]
        yield (
            f"the time stamps hold {len(samples.holes_s)} pictures for more than {MAX_HOLD_S:.0f} s, the first from "
            f"{start_s:.0f} s to {end_s:.0f} s; each has one row"
        )


def _decode_needed(video: OpenVideo, needed: frozenset[int], *, may_skip: bool) -> Iterator[VideoFrame]:
    """Frames in presentation order: those with a pts in ``needed``, and those that the decoder cannot leave out."""
    context = video.stream.codec_context
    skips = False
    for packet in chain(video.packets(), [None]):
        if packet is not None and skips != (may_skip and packet.pts not in needed):
            skips = not skips
            context.skip_frame = "NONREF" if skips else "DEFAULT"
        for frame in context.decode(packet):
            # The two fields of a frame may come in packets of their own, with one pts between them.
            may_skip = may_skip and not frame.interlaced_frame
            yield frame


def _decode_everything(video: OpenVideo, errors: list[FFmpegError]) -> Iterator[VideoFrame]:
    """All frames that decode, in presentation order; errors are put into ``errors`` and passed over."""
    for packet in chain(video.packets(), [None]):
        try:
            frames = video.stream.codec_context.decode(packet)
        except FFmpegError as error:
            errors.append(error)
            continue
        yield from frames


def _first_plane(frame: VideoFrame) -> NDArray[np.unsignedinteger[Any]]:
    """The samples of luma, as a rule, ``(H, W)``; valid as long as the frame."""
    plane = frame.planes[0]
    if frame.format.components[0].bits <= 8:
        return plane_samples(plane)
    dtype = ">u2" if frame.format.is_big_endian else "<u2"
    return np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, : plane.width]


def _fitted(picture: Picture, specs: Sequence[InputSpec], *, region: Region | None) -> list[Frames]:
    if region is None:
        return [picture.fit(spec) for spec in specs]
    part = _cut(picture.rgb, region)
    return [fit_picture(part, spec) for spec in specs]


def _cut(picture: Frames, region: Region) -> Frames:
    height, width = picture.shape[:2]
    check_inside(region, size_wh=(width, height))
    return picture[region.y0 : region.y1, region.x0 : region.x1]


def _stack(chunk: Sequence[Sequence[Frames]], specs: Sequence[InputSpec]) -> dict[str, Frames]:
    return {spec.name: np.stack(inputs) for spec, inputs in zip(specs, zip(*chunk, strict=True), strict=True)}
