"""Insets over moving footage: `python -m benchmarks.layouts DATA`.

Frames of each reference of an evaluation set are put, at a random place, over frames of a query without a copy, and
encoded again as JPEG; with ``--edited`` the sides are cropped and a caption is written over both before. For each width
of the inset: how often the true box is among those that `engine.describe.insets` finds (intersection over union of at
least 0.8), how often it is the first, and what finding them costs. And how many boxes a shot of plain footage gets,
which are all false.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import OutputOption, command_line, report
from engine.config import Scenes, load_preset
from engine.describe.insets import find_rectangles, overlap
from engine.records import Media, Region
from engine.store.tables import read_ground_truth
from engine.video.discovery import find_videos
from engine.video.pyav import PyAvFrameSource
from engine.video.statistics import thumbnail

WIDTHS = (0.25, 0.35, 0.5, 0.65)
NUM_FRAMES = 8
MIN_IOU = 0.8
MAX_CROP = 0.06
CAPTION = "nobody saw what came next"
SEED = 0

Pictures = Sequence[NDArray[np.uint8]]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Recall:
    """Insets of one width, as a share of the width of the frame."""

    width: float
    num_insets: int
    num_first: int
    num_found: int
    cpu_ms: float


def first_frames(media: Media) -> Pictures:
    """The first sampled frames of a video."""
    with closing(PyAvFrameSource(media)) as source:
        return list(islice(source.pictures(), NUM_FRAMES))


def put_inset(over: Pictures, inset: Pictures, *, width: float, rng: np.random.Generator) -> tuple[Pictures, Box]:
    """Frames with a smaller video over them, and its box ``(x0, y0, x1, y1)``."""
    height_px, width_px = over[0].shape[:2]
    scale = min(width * width_px / inset[0].shape[1], 0.95 * height_px / inset[0].shape[0])
    size_wh = round(inset[0].shape[1] * scale), round(inset[0].shape[0] * scale)
    x, y = int(rng.integers(width_px - size_wh[0] + 1)), int(rng.integers(height_px - size_wh[1] + 1))
    pictures = []
    for frame, small in zip(over, inset, strict=False):
        picture = frame.copy()
        picture[y : y + size_wh[1], x : x + size_wh[0]] = cv2.resize(small, size_wh, interpolation=cv2.INTER_AREA)
        pictures.append(picture)
    return pictures, (x, y, x + size_wh[0], y + size_wh[1])


def edited(pictures: Pictures, box: Box, *, rng: np.random.Generator) -> tuple[Pictures, Box]:
    """Up to `MAX_CROP` of each side cropped, and a caption over the lower part; with the box of what is left."""
    height, width = pictures[0].shape[:2]
    left, right = (int(share * width) for share in rng.uniform(0, MAX_CROP, 2))
    top, bottom = (int(share * height) for share in rng.uniform(0, MAX_CROP, 2))
    captioned = []
    for picture in pictures:
        cropped = np.ascontiguousarray(picture[top : height - bottom, left : width - right])
        size = cropped.shape[1] / 450
        place = int(0.06 * cropped.shape[1]), int(0.9 * cropped.shape[0])
        for color, thickness in ((0, 4), (255, 1)):
            cv2.putText(cropped, CAPTION, place, cv2.FONT_HERSHEY_SIMPLEX, size, (color,) * 3, thickness, cv2.LINE_AA)
        captioned.append(cropped)
    x0, x1 = (int(np.clip(x - left, 0, width - left - right)) for x in box[::2])
    y0, y1 = (int(np.clip(y - top, 0, height - top - bottom)) for y in box[1::2])
    return captioned, (x0, y0, x1, y1)


def recompressed(pictures: Pictures, *, quality: int) -> Pictures:
    """The pictures as JPEG, decoded."""
    encoded = [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for picture in pictures]
    return [np.asarray(cv2.imdecode(picture, cv2.IMREAD_COLOR), np.uint8) for picture in encoded]


def boxes_of(pictures: Pictures, config: Scenes) -> list[Region]:
    """The boxes that are found, in pixels of the thumbnails."""
    thumbnails = np.stack([thumbnail(picture) for picture in pictures])
    found = find_rectangles(thumbnails, min_scores=config.min_side_contrasts, max_count=config.max_insets)
    return [rectangle.region for rectangle in found]


def measure(
    references: Sequence[Pictures], plain: Sequence[Pictures], config: Scenes, *, quality: int, is_edited: bool
) -> list[Recall]:
    """Put every reference over plain footage in each of `WIDTHS`, and look for it."""
    rng = np.random.default_rng(SEED)
    found = []
    for width in WIDTHS:
        num_first = num_found = 0
        cpu_s = 0.0
        for inset in references:
            over = plain[int(rng.integers(len(plain)))]
            pictures, box = put_inset(over, inset, width=width, rng=rng)
            if is_edited:
                pictures, box = edited(pictures, box, rng=rng)
            pictures = recompressed(pictures, quality=quality)
            start_s = time.process_time()
            boxes = boxes_of(pictures, config)
            cpu_s += time.process_time() - start_s
            scale = thumbnail(pictures[0]).shape[1] / pictures[0].shape[1]
            x0, y0, x1, y1 = (round(side * scale) for side in box)
            true = Region(x0, y0, x1, y1)
            hits = [overlap(box, true) >= MIN_IOU for box in boxes]
            num_first += bool(hits and hits[0])
            num_found += any(hits)
        found.append(Recall(width, len(references), num_first, num_found, 1000 * cpu_s / len(references)))
    return found


def plain_queries(data: DataSet) -> Iterator[Media]:
    """The queries without a copy."""
    copies = {query_id for query_id, _ in read_ground_truth(data.ground_truth).pairs}
    return (item for item in find_videos([data.queries]) if item.video_id not in copies)


def main(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of an evaluation set.")],
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG that each frame becomes.")] = 60,
    is_edited: Annotated[bool, typer.Option("--edited", help="Crop the sides and write a caption over both.")] = False,
    output: OutputOption = None,
) -> None:
    """Measure how often insets over moving footage are found, and how often plain footage seems to have one.

    Example: python -m benchmarks.layouts vsc-mini/val
    """
    data_set, config = find_data_set(data), load_preset("lite").scenes
    references = [first_frames(item) for item in find_videos([data_set.references])]
    plain = [first_frames(item) for item in plain_queries(data_set)]
    recalls = measure(references, plain, config, quality=quality, is_edited=is_edited)
    num_false = sum(len(boxes_of(pictures, config)) for pictures in [*plain, *references])
    false_per_shot = num_false / (len(plain) + len(references))
    lines = [f"{'width of the inset':>19}{'first':>12}{'among ' + str(config.max_insets):>12}{'CPU ms':>9}"]
    for row in recalls:
        shares = (f"{count} of {row.num_insets}" for count in (row.num_first, row.num_found))
        lines.append(f"{row.width:>19.0%}" + "".join(f"{share:>12}" for share in shares) + f"{row.cpu_ms:>9.1f}")
    lines.append(f"false boxes in {NUM_FRAMES} frames of plain footage: {false_per_shot:.2f}")
    figures = {"recalls": [asdict(row) for row in recalls], "false_boxes": false_per_shot, "quality": quality}
    report(f"layouts_{data.name}{'_edited' if is_edited else ''}", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
