"""FrameSource: the sampled frames of one video, wherever they live.

A source is asked for what a stage needs, never for raw frames of the whole video, so that a source on a device can
keep its pixels there and memory does not grow with a video's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import FloatArray, Frames, Span, View
from engine.video.statistics import SceneStatistics, SpanStatistics


@dataclass(frozen=True)
class InputSpec:
    """One image input of a model: uint8 ``(B, size_px, size_px, 3)`` RGB.

    ``fit``: ``stretch`` resizes to the square and ignores the aspect ratio; ``center_crop`` resizes the short side to
    ``size_px`` and cuts the middle square (torchvision's Resize and CenterCrop). Both interpolate with antialiasing as
    Pillow does, rounded to uint8.
    """

    name: str
    size_px: int
    fit: Literal["stretch", "center_crop"] = "stretch"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


@dataclass(frozen=True, eq=False)
class FrameChunk:
    """B >= 1 consecutive sampled frames as models take them.

    ``timestamps``: float32 ``(B, 2)``, start and end in seconds of the time that each frame stands for.
    ``inputs``: ``{spec.name: uint8 (B, size_px, size_px, 3)}``; of a source on a GPU finished, C-contiguous objects
    with ``__cuda_array_interface__`` in place of NumPy arrays.
    ``is_blank``: bool ``(B,)``, see `engine.video.blank`, of the first input.
    ``view``: the number of the view that they belong to.
    """

    timestamps: FloatArray
    inputs: dict[str, Frames]
    is_blank: NDArray[np.bool_]
    view: int = 0


class FrameSource(Protocol):
    """The frames that the sampling rule takes from one video.

    Raises ``MediaError`` where the file gives no frame. Frames that decode before an error in a damaged file count;
    ``warnings`` then says what was lost. ``num_frames``, ``warnings`` and ``shot_ends_s`` are final after the first
    full pass.
    """

    @property
    def num_frames(self) -> int:
        """F, the number of sampled frames."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that was lost or assumed while reading."""

    @property
    def shot_ends_s(self) -> tuple[float, ...] | None:
        """When each shot ends, in rising seconds: at a cut, the last with the video; None where nobody looked."""

    def scene_statistics(self) -> SceneStatistics:
        """What scene detection needs, as small host arrays (see `engine.video.statistics`)."""

    def span_statistics(self, spans: Sequence[Span]) -> Iterator[tuple[int, SpanStatistics]]:
        """What is needed of each span, with its number, as soon as its last frame has passed; one pass for all.

        Ask after a full pass: before, the number of frames may be wrong.
        """

    def model_inputs(self, specs: Sequence[InputSpec], *, views: Sequence[View] = (View(),)) -> Iterator[FrameChunk]:
        """Yield the frames of each view in order, in chunks of one view; one pass for all views.

        Regions are cut out before resizing. Decoding stops where the last view ends.
        """

    def close(self) -> None:
        """Free what the source holds; it cannot be used afterwards."""
