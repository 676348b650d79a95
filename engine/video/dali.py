"""FrameSource on a DALI device, CPU or GPU, one code: the pixels stay where they are decoded.

PyAV reads the times from the packets, the sampling rule makes frame numbers of them, and DALI decodes exactly these.
No call of DALI takes two videos, so that a bad file fails alone. What DALI cannot decode
(`engine.video.dali_codecs`) PyAV decodes on the CPU, and its pictures are uploaded; that is decided before the first
frame is decoded.

How pixels differ from those of `PyAvFrameSource`, measured with DALI 2.4 on its CPU device, in grey levels: colors by
0.7-0.9 on average and 11 at most on camera footage in VP9, for two reasons. FFmpeg rounds chroma down where it widens
the range for the JPEGs that the reference reads (half a level on average, so 0.7 in red and 0.9 in blue), DALI does
not; and its scaler places chroma samples at the left pixel of a pair, not between the two (on a GPU its own kernel
places them between). Matrix (BT.601) and range are those of the reference. Resizing adds 0.02 on average and 3 at most:
DALI repeats the pixels at the border where Pillow cuts its kernel off. Descriptors of preset ``lite`` keep a cosine of
0.994-0.998 on average and 0.986 at least; a JPEG of quality 96 between decoder and model leaves 0.997-0.998 and 0.995.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.config import DEFAULT_MAX_PIXELS, DEFAULT_WORKING_PIXELS
from engine.errors import BackendUnavailable, MediaError, RemoteError
from engine.records import FloatArray, Frames, Media, Region, Span, View
from engine.storage.location import RemotePath
from engine.video.blank import find_blank
from engine.video.dali_codecs import ComputeCapability, Device, refusal
from engine.video.media import index_timeline
from engine.video.orientation import Orientation
from engine.video.pyav import DEFAULT_CACHE_BYTES, PyAvFrameSource, holes_lines, keyframes_line, sample_timeline
from engine.video.resize import Fit, check_inside
from engine.video.sampling import Samples
from engine.video.source import FrameChunk, InputSpec
from engine.video.statistics import (
    SceneStatistics,
    SpanAccumulator,
    SpanStatistics,
    edge_frame_indices,
    edge_map,
    statistics_from_sums,
)

CHUNK_FRAMES = 16
STACK_BYTES = 128 << 20
"""Pixels that one call of DALI decodes: each call reads the packets of the whole file again."""

_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR

Stack = Any
"""A DALI tensor, uint8 ``(F, H, W, 3)``, on the device of its operators."""

_local = threading.local()


@dataclass(frozen=True, eq=False)
class DaliOperators:
    """What DALI does with stacks of pictures on one device. Thread-safe; every call returns finished results.

    ``dali`` is the module `nvidia.dali.experimental.dynamic`; ``compute_capability`` is that of the GPU.
    """

    dali: Any
    device: Device
    compute_capability: ComputeCapability | None = None

    def decode(self, content: NDArray[np.uint8], frames: NDArray[np.int64]) -> Stack:
        """The frames of these numbers of a video file with these bytes; ``RuntimeError`` where one does not decode."""
        with self._evaluation() as dali:
            # Without pad_mode="none", a frame that is not there would be black.
            return dali.decoders.video(content, frames=frames.tolist(), pad_mode="none", device=self.device)

    def upload(self, pictures: Sequence[Frames]) -> Stack:
        """Pictures of one size, each uint8 ``(H, W, 3)``, as a stack."""
        with self._evaluation() as dali:
            return dali.as_tensor(np.stack(pictures), layout="FHWC", device=self.device)

    def part(self, stack: Stack, start: int, stop: int, step: int = 1) -> Stack:
        """Every ``step``-th picture of ``start <= n < stop``."""
        with self._evaluation() as dali:
            if step > 1:  # a slice with a step gives neighbouring pictures (findings/dali_slices_ignore_their_step.sh)
                return dali.sequence_rearrange(stack, new_order=list(range(start, stop, step)))
            return stack if (start, stop) == (0, stack.shape[0]) else stack[start:stop]

    def download(self, stack: Stack) -> NDArray[Any]:
        """A tensor of the device as an array in host memory."""
        with self._evaluation():
            return np.asarray(stack.cpu())

    def show(self, stack: Stack, orientation: Orientation) -> Stack:
        """Turn and mirror the pictures."""
        with self._evaluation() as dali:
            if orientation.transpose:
                stack = dali.transpose(stack, perm=[0, 2, 1, 3], transpose_layout=False)
            if orientation.mirror_x or orientation.mirror_y:
                stack = dali.flip(stack, horizontal=int(orientation.mirror_x), vertical=int(orientation.mirror_y))
            return stack

    def fit(self, stack: Stack, spec: InputSpec, *, region: Region | None) -> Stack:
        """Cut ``region`` out and make the input of a model: uint8 ``(F, size_px, size_px, 3)``.

        Two passes, columns first and rounded to 0-255 after each, because Pillow does so.
        """
        with self._evaluation():
            if region is not None:
                stack = stack[:, region.y0 : region.y1, region.x0 : region.x1]
            height, width = stack.shape[1:3]
            fit = Fit.of((width, height), spec)
            columns = self._resize(stack, height=height, width=fit.size_wh[0], spec=spec)
            columns = columns[:, :, fit.left : fit.left + spec.size_px]
            rows = self._resize(columns, height=fit.size_wh[1], width=spec.size_px, spec=spec)
            return rows[:, fit.top : fit.top + spec.size_px]

    def sums(self, stack: Stack) -> tuple[Any, Any]:
        """Sums of the pixels and of their squares over the pictures, both exact, uint64 ``(H, W, 3)``."""
        with self._evaluation() as dali:
            wide = dali.cast(stack, dtype=dali.uint16)
            return tuple(dali.reductions.sum(part, axes=[0], dtype=dali.uint64) for part in (stack, wide * wide))

    def add(self, one: Any, other: Any) -> Any:
        """Add two tensors."""
        with self._evaluation():
            return one + other

    def as_input(self, stack: Stack) -> Frames:
        """What a runner takes: an array in host memory, or the tensor itself, with ``__cuda_array_interface__``."""
        return self.download(stack) if self.device == "cpu" else cast(Frames, stack)

    def _resize(self, stack: Stack, *, height: int, width: int, spec: InputSpec) -> Stack:
        from nvidia.dali.types import INTERP_CUBIC, INTERP_LINEAR

        if stack.shape[1:3] == (height, width):
            return stack
        interpolation = INTERP_CUBIC if spec.interpolation == "bicubic" else INTERP_LINEAR
        return self.dali.resize(stack, size=[height, width], interp_type=interpolation, antialias=True)

    @contextmanager
    def _evaluation(self) -> Iterator[Any]:
        # One context with one thread per worker: it keeps operators and their memory from video to video, and videos
        # are decoded side by side.
        context = getattr(_local, self.device, None)
        if context is None:
            context = self.dali.EvalContext(num_threads=1)
            setattr(_local, self.device, context)
        with context, self.dali.EvalMode.sync_full:
            yield self.dali


@cache
def open_dali(device: Device) -> DaliOperators:
    """DALI on a device. Raises ``BackendUnavailable`` where it is not installed or finds no GPU that it can use."""
    try:
        import nvidia.dali.experimental.dynamic as dali

        if device == "cpu":
            return DaliOperators(dali, device)
        ordinal = dali.Device("gpu").device_id
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"decoding with DALI needs a package that is not installed ({error.name}): "
            "pip install 'vsc-engine[dali]', or decode with PyAV (--decoder pyav)"
        ) from error
    except RuntimeError as error:
        raise BackendUnavailable(
            f"DALI cannot use a GPU on this machine: {_first_line(error)}. It needs an NVIDIA GPU of compute "
            "capability 7.5 or newer and a driver for CUDA 13; or decode with PyAV (--decoder pyav)"
        ) from error
    return DaliOperators(dali, device, _compute_capability(ordinal))


def _compute_capability(ordinal: int) -> ComputeCapability:
    """Asked from the driver itself, because DALI does not tell it and needs no other library of CUDA."""
    driver = ctypes.CDLL("libcuda.so.1")
    major, minor = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        status = status or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, ordinal)
    if status:
        raise BackendUnavailable(f"the NVIDIA driver answers with error {status} when asked for GPU {ordinal}")
    return major.value, minor.value


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


class DaliFrameSource:
    """The frames that the sampling rule takes from one video at ``fps`` slots per second. For one thread at a time.

    ``model_inputs`` gives NumPy arrays on the CPU device, and on a GPU DALI tensors that stay there. Copied from
    a GPU to the host are the frames that edges are looked for in, at most 20, and the first input, to see what is
    blank. ``refused`` says why PyAV decodes this video and not DALI, None if it does not; ``on_refusal`` is called with
    the same words.

    What cannot be known before decoding is damage, and pictures of several sizes in one video. Where DALI stops at them
    and FFmpeg finds them too, the frames before come from DALI, the others from PyAV, and ``warnings`` tells what is
    lost. If FFmpeg finds neither, DALI or the device has failed, and ``MediaError`` is raised, because a slow run must
    not look like a healthy one. What NVDEC conceals is not noticed.

    The bytes of the file are held in memory during a pass. Decoded frames are kept on the device if all of them fit
    into ``cache_bytes``. Raises ``MediaError`` as `PyAvFrameSource` does, ``BackendUnavailable`` as `open_dali`.
    """

    def __init__(
        self,
        media: Media,
        *,
        fps: float = 1.0,
        device: Device = "cpu",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        stack_bytes: int = STACK_BYTES,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        working_pixels: int = DEFAULT_WORKING_PIXELS,
        maps_hdr: bool = False,
        max_keyframe_gap_s: float | None = None,
        on_refusal: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._media = media
        self._fps = fps
        self._operators = open_dali(device)
        self._on_refusal = on_refusal
        self._max_pixels = max_pixels
        self._working_pixels = working_pixels
        self._maps_hdr = maps_hdr
        self._max_keyframe_gap_s = max_keyframe_gap_s
        self._timeline = index_timeline(media, max_pixels=max_pixels)
        width, height = self._timeline.size_wh
        self._frame_bytes = width * height * 3
        self._stack_frames = max(1, stack_bytes // max(1, self._frame_bytes))
        self._cache_bytes = cache_bytes
        self._kept: list[Stack] | None = None
        self._host: PyAvFrameSource | None = None
        self._samples = Samples(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2), np.float32), [])
        self._keyframes_line: str | None = None
        self.refused = refusal(self._timeline, device=device, compute_capability=self._operators.compute_capability)
        if self.refused is not None:
            on_refusal(self.refused)
            self._host = self._open_host()
        else:
            self._keyframes_line = keyframes_line(self._timeline, max_gap_s=max_keyframe_gap_s)
            takes_keyframes = max_keyframe_gap_s is not None and self._keyframes_line is None
            self._samples = sample_timeline(self._timeline, fps=fps, takes_keyframes=takes_keyframes)
        self._num_dali = len(self._samples.slots)

    @property
    def num_frames(self) -> int:
        """F, the number of sampled frames; final after the first full pass."""
        return self._num_dali if self._host is None else max(self._num_dali, self._host.num_frames)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that was lost or assumed; final after the first full pass."""
        if self._host is not None:
            return self._host.warnings
        of_keyframes = [self._keyframes_line] if self._keyframes_line else []
        return (*self._timeline.warnings, *holes_lines(self._samples), *of_keyframes)

    @property
    def shot_ends_s(self) -> tuple[float, ...] | None:
        """See `engine.video.source.FrameSource`; DALI hands out no frames between those that are sampled."""
        return None if self._host is None else self._host.shot_ends_s

    def scene_statistics(self) -> SceneStatistics:
        """Statistics over all frames at full size, summed up on the device without rounding."""
        num_frames = self.num_frames
        edge_slots = edge_frame_indices(num_frames)
        totals: tuple[Any, ...] | None = None
        edges: list[NDArray[np.bool_]] = []
        start = 0
        for piece in self._pieces(self._stacks()):
            sums = self._operators.sums(piece)
            totals = sums if totals is None else tuple(map(self._operators.add, totals, sums))
            for slot in edge_slots:
                if start <= slot < start + piece.shape[0]:
                    picture = self._operators.part(piece, slot - start, slot - start + 1)
                    edges.append(edge_map(self._operators.download(picture)[0]))
            start += piece.shape[0]
        if self.num_frames != num_frames:
            return self.scene_statistics()
        of_values, of_squares = (self._operators.download(total) for total in cast(tuple[Any, ...], totals))
        return statistics_from_sums(
            num_frames=num_frames, sums=of_values, square_sums=of_squares, edge_mean=np.mean(edges, axis=0)
        )

    def span_statistics(self, spans: Sequence[Span]) -> Iterator[tuple[int, SpanStatistics]]:
        """See `engine.video.source.FrameSource`; sums are made on the device, without rounding."""
        accumulator = SpanAccumulator([span.limited(self.num_frames) for span in spans])
        for start, part in self._parts(self._stacks(), borders=accumulator.borders):
            stop = start + part.shape[0]
            for number in range(start, stop):
                if number in accumulator.edge_frames:
                    picture = self._operators.part(part, number - start, number - start + 1)
                    accumulator.add_picture(number, self._operators.download(picture)[0])
            sums, square_sums = (self._operators.download(total) for total in self._operators.sums(part))
            yield from accumulator.add_sums(start, stop, sums, square_sums)

    def model_inputs(self, specs: Sequence[InputSpec], *, views: Sequence[View] = (View(),)) -> Iterator[FrameChunk]:
        """See `engine.video.source.FrameSource`; B <= `CHUNK_FRAMES`.

        Raises ``ValueError`` for a region that does not lie inside the frame.
        """
        spans = [view.span.limited(self.num_frames) for view in views]
        end = max(stop for _, stop in spans)
        stacks = self._stacks(max_frames=None if end >= self.num_frames else end)
        for start, part in self._parts(stacks, borders=sorted({border for span in spans for border in span})):
            stop = start + part.shape[0]
            for place, (view, (first, last)) in enumerate(zip(views, spans, strict=True)):
                skipped = (first - start) % view.step
                if first <= start and (view.span.stop is None or stop <= last) and start + skipped < stop:
                    if view.region is not None:
                        check_inside(view.region, size_wh=(part.shape[2], part.shape[1]))
                    taken = self._operators.part(part, skipped, stop - start, view.step)
                    fitted = {spec.name: self._operators.fit(taken, spec, region=view.region) for spec in specs}
                    inputs = {name: self._operators.as_input(stack) for name, stack in fitted.items()}
                    is_blank = find_blank(self._operators.download(fitted[specs[0].name]))
                    times = self._timestamps()[start + skipped : stop : view.step]
                    yield FrameChunk(times, inputs, is_blank, place)

    def _parts(self, stacks: Iterator[Stack], *, borders: Sequence[int]) -> Iterator[tuple[int, Stack]]:
        """Pieces that no border divides, with the number of the first frame of each."""
        start = 0
        for piece in self._pieces(stacks):
            end = start + piece.shape[0]
            cuts = [start, *(border for border in borders if start < border < end), end]
            for first, last in pairwise(cuts):
                yield first, self._operators.part(piece, first - start, last - start)
            start = end

    def close(self) -> None:
        """Drop the kept frames; nothing else is held between passes."""
        self._kept = None

    def _pieces(self, stacks: Iterator[Stack]) -> Iterator[Stack]:
        for stack in stacks:
            for start in range(0, stack.shape[0], CHUNK_FRAMES):
                yield self._operators.part(stack, start, min(start + CHUNK_FRAMES, stack.shape[0]))

    def _stacks(self, *, max_frames: int | None = None) -> Iterator[Stack]:
        """All sampled frames, upright, in order, or the first ``max_frames``."""
        num_frames = sys.maxsize if max_frames is None else max_frames
        if self._kept is None and num_frames >= self.num_frames:
            yield from self._keep(self._make_stacks(num_frames))
        elif self._kept is None:
            yield from self._make_stacks(num_frames)
        else:
            for stack in self._kept:
                if num_frames > 0:
                    yield self._operators.part(stack, 0, min(num_frames, stack.shape[0]))
                num_frames -= stack.shape[0]

    def _keep(self, stacks: Iterator[Stack]) -> Iterator[Stack]:
        kept: list[Stack] | None = []
        for stack in stacks:
            if kept is not None and self.num_frames * self._frame_bytes <= self._cache_bytes:
                kept.append(stack)
            else:
                kept = None
            yield stack
        self._kept = kept

    def _make_stacks(self, num_frames: int) -> Iterator[Stack]:
        start = 0
        content = self._read() if self._num_dali else np.empty(0, dtype=np.uint8)
        while start < (end := min(self._num_dali, num_frames)):
            stop = min(start + self._stack_frames, end)
            try:
                stack = self._operators.decode(content, self._samples.frames[start:stop])
            except RuntimeError as error:
                self._hand_over(error, start=start)
                continue
            yield self._operators.show(stack, self._timeline.orientation)
            start = stop
        if self._host is not None:
            pictures = islice(self._host.pictures(), start, num_frames)
            while batch := list(islice(pictures, self._stack_frames)):
                yield self._operators.upload(batch)

    def _read(self) -> NDArray[np.uint8]:
        try:
            path = self._media.path
            if isinstance(path, RemotePath):
                return np.frombuffer(path.read_bytes(), dtype=np.uint8)
            return np.fromfile(path, dtype=np.uint8)
        except RemoteError:
            raise
        except OSError as error:
            raise MediaError(f"{self._media.path}: {error.strerror}") from error

    def _timestamps(self) -> FloatArray:
        """The times of the frames: those of the host count behind those that DALI decoded."""
        if self._host is None:
            return self._samples.timestamps
        return np.concatenate([self._samples.timestamps[: self._num_dali], self._host.timestamps[self._num_dali :]])

    def _open_host(self) -> PyAvFrameSource:
        return PyAvFrameSource(
            self._media,
            fps=self._fps,
            cache_bytes=0,
            max_pixels=self._max_pixels,
            working_pixels=self._working_pixels,
            maps_hdr=self._maps_hdr,
            max_keyframe_gap_s=self._max_keyframe_gap_s,
            timeline=self._timeline,
        )

    def _hand_over(self, error: RuntimeError, *, start: int) -> None:
        """DALI cannot decode from slot ``start`` on: settle which slots are its, and which PyAV's."""
        if self._host is not None:
            self._num_dali = start
            return
        host = self._open_host()
        for _ in host.pictures():
            pass
        if not host.is_damaged and host.has_one_size:
            raise MediaError(
                f"{self._media.path}: DALI cannot decode it ({_first_line(error)}) and FFmpeg can: an error of DALI or "
                "of the device; --decoder pyav does without them"
            ) from error
        self._on_refusal("damaged" if host.is_damaged else "pictures of several sizes")
        self._host = host
        self._num_dali = start
        if host.is_damaged:
            self._num_dali = max(start, _num_equal(self._samples.frames, host.source_frames))


def _num_equal(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
