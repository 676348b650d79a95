"""Videos with corners to hold on to: a camera that pans over a world of rectangles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tests.videos import write_video

FPS = 10
Picture = NDArray[np.uint8]


def pan(seed: int, *, num_seconds: int = 8, height: int = 144, width: int = 192) -> list[Picture]:
    generator = np.random.default_rng(seed)
    world = np.full((2 * height, 3 * width, 3), 128, np.uint8)
    for _ in range(1500):
        y, x = generator.integers(0, (2 * height, 3 * width))
        size_y, size_x = generator.integers(4, 24, 2)
        world[y : y + size_y, x : x + size_x] = generator.integers(0, 256, 3)
    world = np.asarray(Image.fromarray(world).filter(ImageFilter.GaussianBlur(1)))
    steps = np.linspace(0, 1, num_seconds * FPS)
    corners = [(int(step * height), int(step * 2 * width)) for step in steps]
    return [world[y : y + height, x : x + width].copy() for y, x in corners]


def mirrored(frames: list[Picture]) -> list[Picture]:
    return [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]


def write(path: Path, frames: list[Picture]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, fps=FPS)
    return path
