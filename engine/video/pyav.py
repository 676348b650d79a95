"""FrameSource in host memory: FFmpeg decodes on one CPU core, Pillow resizes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from engine.errors import MediaError
from engine.records import Frames, Media, Region, Span, View
from engine.video.color import rgb_from_planes
from engine.video.media import OpenVideo, Stamp, Timeline, index_timeline, open_video
from engine.video.resize import check_inside, fit_picture
from engine.video.sampling import sample_frames, slot_timestamps
from engine.video.source import FrameChunk, InputSpec
from engine.video.statistics import (
    SceneStatistics,
    SceneStatisticsAccumulator,
    SpanAccumulator,
    SpanStatistics,
)

CHUNK_FRAMES = 8
DEFAULT_CACHE_BYTES = 96 << 20
MAX_SLOTS = 1_000_000
"""Eleven days at 1 fps: no video is that long, but broken time stamps may say so."""

_SKIPPABLE_CODECS = frozenset({"h264"})
"""Codecs whose non-reference frames are never referred to. In HEVC those of a lower temporal layer may be."""

_PLANAR_FORMATS = {(2, 2): "yuv420p", (2, 1): "yuv422p"}
"""Pixels per chroma sample across and down -> the 8-bit format that keeps them; any other becomes 4:4:4."""


class _IndexMismatchError(Exception):
    """What decodes is not what the packets announced. Callers never see it."""


class PyAvFrameSource:
    """The frames that the sampling rule takes from one video at ``fps`` slots per second. For one thread at a time.

    Frames are chosen by the times of the packets, and frames that nothing needs are not decoded. Where decoding
    contradicts the packets (a damaged file) every frame is decoded, errors are passed over and what decodes counts;
    frames handed out before that stay valid. Pictures are kept if all of them fit into ``cache_bytes``; otherwise every
    pass decodes anew, and memory does not grow with the length of the video.

    ``timeline`` spares reading the packets again where it is known. ``has_one_size`` (all sampled pictures were coded
    in the size of the first) and ``warnings`` are final after the first full pass. Raises ``MediaError`` as
    `engine.video.media.open_video` does, and for a video that gives no frame.
    """

    def __init__(
        self,
        media: Media,
        *,
        fps: float = 1.0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        timeline: Timeline | None = None,
    ) -> None:
        self._media = media
        self._fps = fps
        self._cache_bytes = cache_bytes
        self._cache: list[Frames] | None = None
        self.warnings: tuple[str, ...] = ()
        self._reformatter = VideoReformatter()
        self._size_wh: tuple[int, int] | None = None
        self.has_one_size = True
        self._timeline = timeline or index_timeline(media)
        self._trusts_index = self._timeline.is_exact
        if self._trusts_index:
            self._runs = self._sample(self._timeline.times_s, end_s=self._timeline.end_s)
        else:
            self._runs = self._sample_what_decodes()

    @property
    def num_frames(self) -> int:
        """F, the number of sampled frames; final after the first full pass."""
        return sum(self._runs.values())

    @property
    def source_frames(self) -> NDArray[np.int64]:
        """The number of the frame that each slot shows, int64 ``(F,)``; final after the first full pass.

        Frames are counted in presentation order; those that do not decode count until the damage is found.
        """
        return np.repeat(list(self._runs.keys()), list(self._runs.values()))

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
        start, sums, square_sums = 0, np.zeros(0, np.uint32), np.zeros(0, np.uint64)
        for number, picture in enumerate(self.pictures()):
            if number in borders or number == 0:
                start, sums, square_sums = (
                    number,
                    np.zeros(picture.shape, np.uint32),
                    np.zeros(picture.shape, np.uint64),
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
        pictures = self.pictures() if end >= self.num_frames else islice(self.pictures(), end)
        waiting: list[list[list[Frames]]] = [[] for _ in views]
        fitted: list[tuple[Frames | None, list[Frames]]] = [(None, []) for _ in views]
        number = -1
        for number, picture in enumerate(pictures):
            for place, (view, (start, stop)) in enumerate(zip(views, spans, strict=True)):
                if number < start or (view.span.stop is not None and number >= stop):
                    continue
                if fitted[place][0] is not picture:
                    fitted[place] = picture, _fitted(picture, specs, region=view.region)
                waiting[place].append(fitted[place][1])
                is_last = view.span.stop is not None and number + 1 == stop
                if is_last or len(waiting[place]) == CHUNK_FRAMES:
                    yield self._chunk(waiting[place], specs, end=number + 1, view=place)
                    waiting[place] = []
        for place, rest in enumerate(waiting):
            if rest:
                yield self._chunk(rest, specs, end=number + 1, view=place)

    def _chunk(
        self, frames: Sequence[Sequence[Frames]], specs: Sequence[InputSpec], *, end: int, view: int
    ) -> FrameChunk:
        times = slot_timestamps(len(frames), fps=self._fps, first=end - len(frames))
        return FrameChunk(times, _stack(frames, specs), view)

    def pictures(self) -> Iterator[Frames]:
        """Yield every sampled frame at full size, in order: RGB uint8 ``(H, W, 3)``, H and W of the video.

        Consecutive slots that show one frame get one array.
        """
        if self._cache is not None:
            yield from self._cache
            return
        kept: list[Frames] | None = []
        for picture in self._decode():
            if kept is not None and picture.nbytes * len(self._runs) <= self._cache_bytes:
                kept.append(picture)
            else:
                kept = None
            yield picture
        self._cache = kept

    def close(self) -> None:
        """Drop the kept pictures; nothing else is held between passes."""
        self._cache = None

    def _decode(self) -> Iterator[Frames]:
        num_slots = 0
        if self._trusts_index:
            try:
                for picture in self._decode_by_index():
                    num_slots += 1
                    yield picture
            except (_IndexMismatchError, FFmpegError):
                self._trusts_index = False
                self._runs = self._sample_what_decodes()
            else:
                return
        yield from islice(self._decode_by_count(), num_slots, None)

    def _decode_by_index(self) -> Iterator[Frames]:
        pts = self._timeline.pts.tolist()
        num_slots = {pts[frame]: count for frame, count in self._runs.items()}
        # The first and the last frame prove that the video begins and ends where the index says.
        needed = sorted({pts[0], *num_slots, pts[-1]})
        with open_video(self._media) as video:
            awaited, pending = deque(needed), list[Frames]()
            for frame in _decode_needed(video, frozenset(needed), may_skip=self._timeline.codec in _SKIPPABLE_CODECS):
                if frame.pts is None or frame.is_corrupt or not awaited or frame.pts > awaited[0]:
                    raise _IndexMismatchError
                if frame.pts == awaited[0]:
                    awaited.popleft()
                    # How long a picture is shown is certain when the next one has come: the video may end before.
                    yield from pending
                    count = num_slots.get(frame.pts)
                    pending = [self._picture(frame)] * count if count else []
        if awaited:
            raise _IndexMismatchError
        yield from pending

    def _decode_by_count(self) -> Iterator[Frames]:
        with open_video(self._media) as video:
            for number, frame in enumerate(_decode_everything(video, [])):
                if number in self._runs:
                    yield from [self._picture(frame)] * self._runs[number]

    def _picture(self, frame: VideoFrame) -> Frames:
        """RGB of a frame, turned upright; all pictures get the size of the first."""
        self._size_wh = self._size_wh or (frame.width, frame.height)
        self.has_one_size = self.has_one_size and self._size_wh == (frame.width, frame.height)
        subsampling = 4 // frame.format.chroma_width(4), 4 // frame.format.chroma_height(4)
        full_range = self._reformatter.reformat(
            frame,
            width=self._size_wh[0],
            height=self._size_wh[1],
            format=_PLANAR_FORMATS.get(subsampling, "yuv444p"),
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        luma, blue, red = (_samples(plane) for plane in full_range.planes)
        return np.ascontiguousarray(np.rot90(rgb_from_planes(luma, blue, red), self._timeline.rotation_deg // 90))

    def _sample(self, times_s: NDArray[np.float64], *, end_s: float) -> dict[int, int]:
        """``{source frame: number of slots that show it}``, in order of the frames."""
        slots = sample_video(self._media, times_s, end_s=end_s, fps=self._fps)
        frames, counts = np.unique(slots, return_counts=True)
        return dict(zip(frames.tolist(), counts.tolist(), strict=True))

    def _sample_what_decodes(self) -> dict[int, int]:
        """Decode every frame to learn which there are and when they are shown, and note what is lost."""
        stamps: list[Stamp] = []
        errors: list[FFmpegError] = []
        num_damaged = 0
        with open_video(self._media) as video:
            for frame in _decode_everything(video, errors):
                stamps.append(Stamp.of(frame))
                num_damaged += frame.is_corrupt
            if not stamps:
                raise MediaError(f"{self._media.path}: none of its {len(self._timeline)} frames decodes")
            times = video.show_times(stamps)
        lines = []
        # An index that is not exact may count a packet without a picture, or a field, as a frame.
        if errors or (self._timeline.is_exact and len(stamps) < len(self._timeline)):
            lines.append(f"{len(stamps)} of {len(self._timeline)} frames decode")
        if num_damaged:
            lines.append(f"{num_damaged} of {len(stamps)} decoded frames have errors in the picture")
        if video.read_error is not None:
            lines.append(f"the file cannot be read to its end ({video.read_error})")
        self.warnings = tuple(lines)
        return self._sample(times.times_s, end_s=times.end_s)


def sample_video(media: Media, times_s: NDArray[np.float64], *, end_s: float, fps: float) -> NDArray[np.int64]:
    """`sample_frames` for a file. Raises ``MediaError`` for one too short, or with broken times."""
    if end_s * fps > MAX_SLOTS:
        raise MediaError(f"{media.path}: broken time stamps, the last frame is said to end at {end_s:.0f} s")
    frames = sample_frames(times_s, end_s=end_s, fps=fps)
    if len(frames) == 0:
        raise MediaError(f"{media.path}: too short to give a frame at {fps:g} fps: lasts {end_s - times_s[0]:.2f} s")
    return frames


def _decode_needed(video: OpenVideo, needed: frozenset[int], *, may_skip: bool) -> Iterator[VideoFrame]:
    """Frames in presentation order: those with a pts in ``needed``, and those that the decoder cannot leave out."""
    context = video.stream.codec_context
    for packet in chain(video.packets(), [None]):
        if packet is not None:
            context.skip_frame = "NONREF" if may_skip and packet.pts not in needed else "DEFAULT"
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


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _fitted(picture: Frames, specs: Sequence[InputSpec], *, region: Region | None) -> list[Frames]:
    part = picture if region is None else _cut(picture, region)
    return [fit_picture(part, spec) for spec in specs]


def _cut(picture: Frames, region: Region) -> Frames:
    height, width = picture.shape[:2]
    check_inside(region, size_wh=(width, height))
    return picture[region.y0 : region.y1, region.x0 : region.x1]


def _stack(chunk: Sequence[Sequence[Frames]], specs: Sequence[InputSpec]) -> dict[str, Frames]:
    return {spec.name: np.stack(inputs) for spec, inputs in zip(specs, zip(*chunk, strict=True), strict=True)}
