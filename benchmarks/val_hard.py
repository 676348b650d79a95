"""Makes harder evaluation sets from one that exists: `python -m benchmarks.val_hard VAL --output DIR`.

All take the references of VAL, and as unrelated footage its plain queries, those without a copy. Everything follows
from the seed, so that the recipe is kept here and the videos nowhere.

- ``val-hard``: three or four strong edits on every copy, of all kinds, also those that the first two stages of `lite`
  never drew (`training.descriptor.views.NEVER_TRAINED`).
- ``vsc-shape``: 77% of the queries are plain, as in VSC2022, and copies have one to four edits.
- ``exact-copies``: VAL with whole, unedited references among the queries, which an edit gate takes for plain.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import command_line
from engine.console import progress, say
from engine.errors import ConfigError
from engine.records import Media
from engine.store.tables import read_ground_truth
from engine.video.discovery import find_videos
from engine.video.media import index_timeline
from training.footage.edits import Strengths
from training.footage.edits.base import either_sign, factor_or_inverse, integer, uniform
from training.footage.query_plans import Difficulty
from training.footage.synthesizer import GROUND_TRUTH, QUERIES, synthesize

REFERENCES = "references"
NUM_EXACT_COPIES = 20
_COPY_PREFIX = "X"


class SetName(StrEnum):
    """The sets that can be made."""

    VAL_HARD = "val-hard"
    VSC_SHAPE = "vsc-shape"
    EXACT_COPIES = "exact-copies"


@dataclass(frozen=True)
class Recipe:
    """How many queries of which difficulty to synthesize."""

    num_copies: int
    num_plain: int
    difficulty: Difficulty
    seed: int


def _dark_or_bright(rng: np.random.Generator) -> float:
    return uniform(*((0.45, 0.65), (1.35, 1.6))[rng.integers(2)])(rng)


STRONG: Strengths = {
    "change_video_speed": {"factor": factor_or_inverse(1.5, 2.0)},
    "fps": {"step": integer(3, 6)},
    "color_jitter": {
        "brightness": _dark_or_bright,
        "contrast": uniform(1.2, 1.7),
        "saturation": uniform(0.0, 0.5),
    },
    "blur": {"sigma": uniform(0.012, 0.025)},
    "add_noise": {"std": uniform(25, 45)},
    "pixelization": {"ratio": uniform(0.12, 0.25)},
    "crop": {"width": uniform(0.45, 0.7), "height": uniform(0.45, 0.7)},
    "pad": {"amount": uniform(0.15, 0.3)},
    "pad_blurred": {"factor": uniform(1.5, 2.1)},
    "rotate": {"degrees": either_sign(10, 30)},
    "change_aspect_ratio": {"factor": factor_or_inverse(1.5, 2.0)},
    "perspective_transform": {"insets": lambda rng: tuple(rng.uniform(0.06, 0.24, size=8).round(4).tolist())},
    "overlay_text": {"height": uniform(0.12, 0.2)},
    "overlay_emoji": {"scale": uniform(0.35, 0.55)},
    "overlay": {"scale": uniform(0.35, 0.5)},
    "overlay_onto_background_video": {"scale": uniform(0.38, 0.6)},
    "blend_videos": {"opacity": uniform(0.35, 0.5)},
    "jpeg_compression": {"quality": integer(4, 14)},
    "encoding_quality": {"crf": integer(38, 46)},
}
"""The strong end of each edit and somewhat beyond; edits that are not here have no strength, or no strong end."""

RECIPES = {
    SetName.VAL_HARD: Recipe(80, 40, Difficulty(num_edits=(3, 4), strengths=STRONG), seed=2022),
    SetName.VSC_SHAPE: Recipe(46, 154, Difficulty(num_edits=(1, 4)), seed=2023),
}


def make_synthetic(source: DataSet, output: Path, recipe: Recipe) -> None:
    """Synthesize the queries of a recipe into ``output``; its references are a link to those of ``source``.

    Raises ``ConfigError`` where ``source`` has no plain query.
    """
    references, distractors = find_videos([source.references]), plain_queries(source)
    with progress(output.name, recipe.num_copies + recipe.num_plain) as advance:
        synthesize(
            references,
            output,
            distractors=distractors,
            num_copies=recipe.num_copies,
            num_plain=recipe.num_plain,
            seed=recipe.seed,
            difficulty=recipe.difficulty,
            num_workers=len(os.sched_getaffinity(0)),
            advance=advance,
        )
    (output / REFERENCES).symlink_to(source.references.resolve(), target_is_directory=True)


def plain_queries(source: DataSet) -> list[Media]:
    """The queries without a copy. Raises ``ConfigError`` if there are none."""
    copies = {query_id for query_id, _ in read_ground_truth(source.ground_truth).pairs}
    plain = [media for media in find_videos([source.queries]) if media.video_id not in copies]
    if not plain:
        raise ConfigError(f"every query of {source.queries} is a copy; unrelated footage is needed")
    return plain


def make_exact_copies(source: DataSet, output: Path) -> None:
    """``source`` with every few of its references among the queries, byte for byte, under names of their own."""
    queries = output / QUERIES
    queries.mkdir(parents=True)
    for media in find_videos([source.queries]):
        (queries / media.path.name).symlink_to(media.local_path.resolve())
    references = find_videos([source.references])
    shutil.copyfile(source.ground_truth, output / GROUND_TRUTH)
    with (output / GROUND_TRUTH).open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for media in references[:: -(-len(references) // NUM_EXACT_COPIES)]:
            query_id = f"{_COPY_PREFIX}{media.video_id}"
            (queries / f"{query_id}{media.path.suffix}").symlink_to(media.local_path.resolve())
            end_s = f"{index_timeline(media).end_s:.3f}"
            writer.writerow([query_id, media.video_id, "0.000", end_s, "0.000", end_s])
    (output / REFERENCES).symlink_to(source.references.resolve(), target_is_directory=True)


def make_set(folder: Path, make: Callable[[Path], None]) -> None:
    """Call ``make`` with a folder aside that becomes ``folder`` when it is whole; one that exists is left alone."""
    if folder.exists():
        say(f"{folder} is there already")
        return
    aside = folder.with_name(f".{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    make(aside)
    aside.rename(folder)


def main(
    val: Annotated[Path, typer.Argument(help="Folder of the set that they are made from.")],
    output: Annotated[Path, typer.Option(help="Folder that gets a folder for each set.")],
    sets: Annotated[list[SetName] | None, typer.Option(help="Which ones; may be repeated; default: all.")] = None,
) -> None:
    """Make harder evaluation sets from one that exists, those that are asked for.

    Example: python -m benchmarks.val_hard val/ --output sets/ --sets val-hard --sets vsc-shape
    """
    source = find_data_set(val)
    for name in sets or SetName:
        if name == SetName.EXACT_COPIES:
            make_set(output / name, partial(make_exact_copies, source))
        else:
            make_set(output / name, partial(make_synthetic, source, recipe=RECIPES[name]))
        print(output / name)


app = command_line(main)

if __name__ == "__main__":
    app()
