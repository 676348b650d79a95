"""Edit: one drawn manipulation of a clip. It knows nothing of files; times reach it only as a constant speed."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_origin, get_type_hints

import numpy as np
from PIL import Image

from training.footage.resizing import Frame, Size, size_of

Clip = Iterator[Frame]
"""Frames of one size at a constant rate, in order."""

T = TypeVar("T")
Draw = Callable[[np.random.Generator], T]
"""Draws one value."""


@dataclass(frozen=True)
class Edit(ABC):
    """A manipulation of known strength: a frozen dataclass whose fields are annotated with how they are drawn.

    Edits are named after AugLy's video augmentations (github.com/facebookresearch/AugLy) where it has the same.
    Applied to the same frames, an edit gives the same frames.
    """

    name: ClassVar[str]
    num_distractors: ClassVar[int] = 0
    """How many unrelated clips `apply` mixes in."""

    @property
    def speed(self) -> float:
        """Seconds of the source that one second of the edited clip shows."""
        return 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator, strengths: Mapping[str, Draw[Any]] = MappingProxyType({})) -> Self:
        """Draw the strength, field by field; ``strengths`` says for some fields how, instead of their annotation."""
        return cls(**{name: strengths.get(name, draw)(rng) for name, draw in _draws_of(cls).items()})

    def apply(self, frames: Clip, *distractors: Clip) -> Clip:
        """Yield the edited clip, all frames of one size; it ends when ``frames`` or a distractor ends."""
        return self._apply(frames, distractors)

    @abstractmethod
    def _apply(self, frames: Clip, distractors: Sequence[Clip]) -> Clip: ...


@functools.cache
def _draws_of(kind: type[Edit]) -> dict[str, Draw[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}


class FrameEdit(Edit):
    """An edit that treats every frame alike and alone."""

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        return map(self._edit, frames)

    @abstractmethod
    def _edit(self, frame: Frame) -> Frame: ...


class MixEdit(Edit):
    """An edit that combines every frame with one frame, of any size, of each of the unrelated clips."""

    num_distractors = 1

    def _apply(self, frames: Clip, distractors: Sequence[Clip]) -> Clip:
        return map(self._mix, frames, *distractors)

    @abstractmethod
    def _mix(self, frame: Frame, *others: Frame) -> Frame: ...


class LayerEdit(Edit):
    """An edit that lays one still RGBA picture of the frames' size over all frames."""

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        layer: Image.Image | None = None
        for frame in frames:
            if layer is None:
                layer = self._layer(size_of(frame))
            picture = Image.fromarray(frame)
            picture.paste(layer, mask=layer)
            yield np.array(picture)

    @abstractmethod
    def _layer(self, size: Size) -> Image.Image: ...


def uniform(low: float, high: float) -> Draw[float]:
    """Any number of the interval, rounded to 4 digits so that provenance files restore it exactly."""
    return lambda rng: round(float(rng.uniform(low, high)), 4)


def factor_or_inverse(low: float, high: float) -> Draw[float]:
    """A factor of the interval or, as often, one divided by it."""
    return lambda rng: round(float(rng.uniform(low, high) ** rng.choice([-1, 1])), 4)


def either_sign(low: float, high: float) -> Draw[float]:
    """A number of the interval or, as often, its negative."""
    return lambda rng: round(float(rng.uniform(low, high) * rng.choice([-1, 1])), 4)


def integer(low: int, high: int) -> Draw[int]:
    """An integer, both ends included."""
    return lambda rng: int(rng.integers(low, high, endpoint=True))


def choice(options: Sequence[T]) -> Draw[T]:
    """One of the options."""
    return lambda rng: options[int(rng.integers(len(options)))]


def any_color(rng: np.random.Generator) -> tuple[int, int, int]:
    """Any RGB color."""
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    return red, green, blue
