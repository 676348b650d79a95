"""``python -m training.footage.animations --output DIR``: computer animations, which photographs
and pans over them lack.

Flat backgrounds look like bars and paddings, hard outlines like stickers. An edit-score model that never saw plain
animations takes them for edited. Shapes with shading move, turn and grow before a background of one or two colors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from engine.console import progress, say
from training.footage.clips import write_clip
from training.footage.pans import FPS, NUM_FRAMES, SHORT_SIDE_PX
from training.footage.resizing import Frame, Size, even
from training.processes import in_processes

_ASPECTS = (1.0, 4 / 3, 1.37, 16 / 9)
_NUM_PARTS, _NUM_FIGURES, _NUM_SHADES = (1, 7), (1, 4), 8
_SUBPIXEL_BITS = 4

Points = NDArray[np.float64]
"""``(P, 2)``, x and y of a polygon's corners."""
Color = NDArray[np.float64]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Folder for the videos.")],
    num_videos: Annotated[int, typer.Option(min=1, help="How many to make.")] = 600,
    seed: Annotated[int, typer.Option(help="Another one draws other animations.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Make videos of computer animations."""
    with progress("animations", num_videos) as advance:
        make_animations(output, num_videos=num_videos, seed=seed, num_workers=workers, advance=advance)
    say(f"{num_videos} videos are in {output}")


def make_animations(
    output: Path, *, num_videos: int, seed: int, num_workers: int = 1, advance: Callable[[], None] = lambda: None
) -> None:
    """Write ``num_videos`` animations: ``A######.mp4``. The same seed gives the same files."""
    output.mkdir(parents=True, exist_ok=True)
    write = partial(_write_animation, output=output, seed=seed)
    for _ in in_processes(write, range(num_videos), num_workers=num_workers):
        advance()


def _write_animation(number: int, *, output: Path, seed: int) -> int:
    frames = animation(rng=np.random.default_rng([seed, number]))
    return write_clip(output / f"A{number:06d}.mp4", frames, fps=FPS)


def animation(*, rng: np.random.Generator) -> Iterator[Frame]:
    """Yield 14 frames, 288 px high: one to four figures that move before a still background."""
    size = even((round(SHORT_SIDE_PX * rng.choice(_ASPECTS)), SHORT_SIDE_PX))
    background = _background(rng, size)
    figures = [_draw_figure(rng, size) for _ in range(int(rng.integers(*_NUM_FIGURES, endpoint=True)))]
    for share in np.linspace(0, 1, NUM_FRAMES):
        frame = background.copy()
        for figure in figures:
            figure.paint(frame, share)
        yield frame


@dataclass(frozen=True, eq=False)
class Part:
    """A polygon around ``centre`` of its figure, and its color; ``shades`` of it grow lighter towards the light."""

    outline: Points
    centre: Points
    color: Color
    shades: int


@dataclass(frozen=True, eq=False)
class Figure:
    """Parts that move together: place, size (pixels) and angle at the start and at the end."""

    parts: tuple[Part, ...]
    places: Points
    sizes_px: NDArray[np.float64]
    angles: NDArray[np.float64]
    is_outlined: bool

    def paint(self, frame: Frame, share: float) -> None:
        """Draw the figure into ``frame`` as it is after ``share`` of the video."""
        ends = (self.places, self.sizes_px, self.angles)
        place, size_px, angle = (start + (end - start) * share for start, end in ends)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * size_px
        for part in self.parts:
            for shade in range(part.shades):
                inner = 1 - shade / part.shades
                # The light stands still while the figure turns.
                light = -0.35 * (1 - inner) * np.abs(part.outline).max() * size_px
                points = (part.outline * inner + part.centre) @ turn + place + light
                color = part.color + (255 - part.color) * 0.6 * (1 - inner) ** 2
                _fill(frame, points, color)
            if self.is_outlined:
                _stroke(frame, (part.outline + part.centre) @ turn + place)


def _background(rng: np.random.Generator, size: Size) -> Frame:
    """One color, or a gradient, over the whole frame; often with a ground below a horizon."""
    top = _color(rng)
    bottom = _color(rng) if rng.random() < 0.3 else top
    shares = np.linspace(0, 1, size[1])[:, None]
    rows = top + (bottom - top) * shares
    frame: Frame = np.repeat(rows[:, None], size[0], axis=1).astype(np.uint8)
    if rng.random() < 0.4:
        left, right = rng.uniform(0.45, 0.9) + rng.uniform(-0.08, 0.08, 2)
        corners = np.array([(0, left), (1, right), (1, 1), (0, 1)]) * size
        _fill(frame, corners, _color(rng))
    return frame


def _draw_figure(rng: np.random.Generator, size: Size) -> Figure:
    is_shaded = rng.random() < 0.6
    parts = tuple(_draw_part(rng, is_shaded=is_shaded) for _ in range(int(rng.integers(*_NUM_PARTS, endpoint=True))))
    return Figure(
        parts,
        places=rng.uniform(0.1, 0.9, (2, 2)) * size,
        sizes_px=rng.uniform(0.06, 0.4) * rng.uniform(0.7, 1.4, 2) * min(size),
        angles=rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.8, 2),
        is_outlined=bool(rng.random() < 0.4),
    )


def _draw_part(rng: np.random.Generator, *, is_shaded: bool) -> Part:
    """An ellipse, a box or a jagged shape, of about the figure's size."""
    radii = rng.uniform(0.2, 1.0, 2)
    num_corners = int(rng.choice([4, 4, 7, 40, 40, 40]))
    angles = np.arange(num_corners) * 2 * np.pi / num_corners + np.pi / 4
    lengths = rng.uniform(0.5, 1.2, num_corners) if num_corners == 7 else np.ones(num_corners)
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None] * radii
    shades = _NUM_SHADES if is_shaded and num_corners == 40 else 1
    return Part(outline, rng.uniform(-0.9, 0.9, 2), _color(rng), shades)


def _color(rng: np.random.Generator) -> Color:
    """Black, white, a grey or any color."""
    kind = rng.random()
    if kind < 0.2:
        return np.zeros(3)
    if kind < 0.3:
        return np.full(3, 255.0)
    return np.full(3, rng.uniform(0, 255)) if kind < 0.45 else rng.uniform(0, 255, 3)


def _fill(frame: Frame, corners: Points, color: Color) -> None:
    cv2.fillPoly(frame, [_fixed_point(corners)], color.tolist(), cv2.LINE_AA, _SUBPIXEL_BITS)


def _stroke(frame: Frame, corners: Points) -> None:
    cv2.polylines(frame, [_fixed_point(corners)], True, (0, 0, 0), 2, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed_point(points: Points) -> NDArray[np.int32]:
    corners: NDArray[np.int32] = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
    return corners


if __name__ == "__main__":
    app()
