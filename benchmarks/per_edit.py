"""Which kinds of edit are missed: `python -m benchmarks.per_edit STORE --weights NAME=PATH`.

Every kind alone, at three strengths (`benchmarks.edit_strengths`), on pictures of a store (`training.store.build`)
that no training has seen. A part of the pictures are originals that get edited, a part is only mixed in by edits; the
originals and all others are the references. A PATH is an engines directory or a checkpoint (``.safetensors``) of
``--preset``. For each, one threshold is taken, which ``--false-positive-rate`` of all pairs of an edited picture and a
wrong reference exceed, over all kinds together: recall is the share of true pairs above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.edit_strengths import LEVELS, STRENGTHS, edit_of, levels_of
from benchmarks.harness import OutputOption, command_line, report
from engine.config import load_preset
from engine.console import progress
from engine.errors import ConfigError
from engine.projection import l2_normalize
from engine.records import FloatArray
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.resize import fit_picture
from engine.video.source import InputSpec
from training.descriptor.data import group_names, video_of
from training.descriptor.views import edit_picture
from training.footage.resizing import Frame, limit_short_side, resize, scaled, size_of
from training.picture_hashes import near_pairs, picture_hash
from training.store.frame_store import FrameStore

SHORT_SIDE_PX = 288
"""Pictures are brought to this size before they are edited, as the videos of the sets are: noise is of pixels."""

BATCH_SIZE = 16
_SAME_BITS = 16
_MAX_ENLARGED = 2.0

Embed = Callable[[Sequence[Frame]], FloatArray]
"""Pictures of any size to descriptors, float32 ``(N, D)`` with rows of length 1."""


@dataclass(frozen=True)
class Pictures:
    """RGB uint8 pictures: ``references``, of which the first ``num_originals`` get edited; ``others`` are mixed in."""

    references: list[Frame]
    num_originals: int
    others: list[Frame]


@dataclass(frozen=True)
class Cell:
    """One kind at one strength. ``recall`` at the common threshold; ``rank_1``: the true reference is the best."""

    weights: str
    kind: str
    level: str
    recall: float
    rank_1: float


def read_pictures(store: FrameStore, *, num_originals: int, num_others: int, seed: int) -> Pictures:
    """Draw pictures of which no two show nearly the same; all that is left over is a reference.

    Raises ``ConfigError`` for a store of fewer pictures than asked for.
    """
    keys = [video_of(name) or name for name in store.names()]
    hashes = [picture_hash(store.picture(index)) for index in range(len(store))]
    alike = [(keys[i], keys[j]) for i, j in near_pairs(hashes, max_bits=_SAME_BITS)]
    _, firsts = np.unique(group_names(store.names(), same=alike), return_index=True)
    if len(firsts) <= num_originals + num_others:
        raise ConfigError(
            f"{store.folder} has {len(firsts)} different pictures; more than {num_originals + num_others} are needed"
        )
    order = np.random.default_rng(seed).permutation(firsts)
    drawn = [_sized(store.picture(int(index))) for index in order]
    return Pictures(drawn[num_others:], num_originals, drawn[:num_others])


def _sized(picture: Frame) -> Frame:
    factor = min(_MAX_ENLARGED, SHORT_SIDE_PX / min(size_of(picture)))
    size = scaled(size_of(picture), factor, factor) if factor > 1 else limit_short_side(size_of(picture), SHORT_SIDE_PX)
    return resize(picture, size)


def edited_pictures(pictures: Pictures, kind: str, level: str, *, seed: int) -> list[Frame]:
    """Every original with an edit of its own; the same seed gives the same ones."""
    edited = []
    for number in range(pictures.num_originals):
        rng = np.random.default_rng([seed, sorted(STRENGTHS).index(kind), LEVELS.index(level), number])
        edit = edit_of(kind, level, rng)

        def other(rng: np.random.Generator = rng) -> Frame:
            return pictures.others[int(rng.integers(len(pictures.others)))]

        edited.append(edit_picture(edit, pictures.references[number], other))
    return edited


def measure(
    embeds: dict[str, Embed],
    pictures: Pictures,
    *,
    kinds: Sequence[str],
    false_positive_rate: float,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Cell], dict[str, float]]:
    """The cells of all weights, kinds and strengths, and the threshold of each weights."""
    planned = [(kind, level) for kind in kinds for level in levels_of(kind)]
    references = {name: embed(pictures.references) for name, embed in embeds.items()}
    scores: dict[str, list[FloatArray]] = {name: [] for name in embeds}
    for kind, level in planned:
        edited = edited_pictures(pictures, kind, level, seed=seed)
        for name, embed in embeds.items():
            scores[name].append(embed(edited) @ references[name].T)
        advance()
    cells, thresholds = [], {}
    for name, found in scores.items():
        thresholds[name] = threshold_of(found, false_positive_rate=false_positive_rate)
        for (kind, level), rows in zip(planned, found, strict=True):
            true = np.diagonal(rows)
            recall = float((true > thresholds[name]).mean())
            cells.append(Cell(name, kind, level, recall, float((true >= rows.max(axis=1)).mean())))
    return cells, thresholds


def threshold_of(scores: Sequence[FloatArray], *, false_positive_rate: float) -> float:
    """The score that this share of the wrong pairs exceeds. ``scores``: ``(Q, R)``, of which pair (i, i) is true."""
    wrong = np.concatenate([rows[np.eye(*rows.shape) == 0] for rows in scores])
    return float(np.quantile(wrong, 1 - false_positive_rate))


def open_embed(path: Path, *, preset: str, resources: ExitStack) -> Embed:
    """The descriptors of an engines directory (after its PCA, if it has one) or of a checkpoint.

    ``resources`` keep its runner open.
    """
    if path.suffix == ".safetensors":
        return _open_checkpoint(path, preset=preset)
    engines = EnginesDirectory.open(path)
    runner = resources.enter_context(engines.open_runner("ensemble"))
    output = "descriptor" if engines.manifest.pca is not None else "embedding"
    specs = [InputSpec(spec.name, int(spec.shape[1] or 0)) for spec in runner.inputs]

    def run(part: Sequence[Frame]) -> FloatArray:
        inputs = {spec.name: np.stack([fit_picture(picture, spec) for picture in part]) for spec in specs}
        return np.asarray(runner.run(inputs)[output], np.float32)

    return _in_batches(run)


def _open_checkpoint(path: Path, *, preset: str) -> Embed:
    import torch

    from engine.build.export import Normalize
    from engine.models.checkpoints import load_weights
    from engine.models.descriptor import build_descriptor_model

    settings = load_preset(preset).models[0]
    model = build_descriptor_model(settings.architecture)
    load_weights(model, checkpoint=path.name, folder=path.parent)
    model.to(memory_format=torch.channels_last).eval()
    normalize, spec = Normalize(settings.mean, settings.std), InputSpec("frames", settings.input_px)

    def run(part: Sequence[Frame]) -> FloatArray:
        fitted = np.stack([fit_picture(picture, spec) for picture in part])
        with torch.inference_mode():
            return np.asarray(model(normalize(torch.from_numpy(fitted))).numpy(), np.float32)

    return _in_batches(run)


def _in_batches(run: Embed) -> Embed:
    return lambda pictures: l2_normalize(
        np.concatenate([run(pictures[start : start + BATCH_SIZE]) for start in range(0, len(pictures), BATCH_SIZE)])
    )


def table(cells: Sequence[Cell]) -> list[str]:
    """A line for each kind: recall at each strength, weights side by side; the mean of all cells last."""
    names = list(dict.fromkeys(cell.weights for cell in cells))
    recalls = {(cell.kind, cell.level, cell.weights): cell.recall for cell in cells}
    width = 2 + max(7, *map(len, names))
    lines = [f"{'recall':<32}" + "".join(f"{level:<{width * len(names)}}" for level in LEVELS).rstrip()]
    lines.append(" " * 30 + "".join(f"{name:>{width}}" for _ in LEVELS for name in names))
    for kind in dict.fromkeys(cell.kind for cell in cells):
        found = [recalls.get((kind, level, name)) for level in LEVELS for name in names]
        columns = "".join(" " * width if recall is None else f"{recall:>{width}.2f}" for recall in found)
        lines.append(f"{kind:<30}{columns}".rstrip())
    for title, field in (("mean recall", "recall"), ("mean rank 1", "rank_1")):
        means = (np.mean([getattr(cell, field) for cell in cells if cell.weights == name]) for name in names)
        lines.append(f"{title:<30}" + "".join(f"{mean:>{width}.3f}" for mean in means))
    return lines


def _named(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    return (name, Path(path)) if found else (Path(text).name, Path(text))


def main(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Frame store of pictures that were not trained on.")],
    weights: Annotated[list[str], typer.Option(metavar="[NAME=]PATH", help="Engines directory, or a checkpoint.")],
    preset: Annotated[str, typer.Option(help="Of the checkpoints among the weights.")] = "lite",
    num_pictures: Annotated[int, typer.Option(min=1, help="Pictures that are edited.")] = 64,
    num_others: Annotated[int, typer.Option(min=1, help="Pictures that are only mixed in.")] = 60,
    false_positive_rate: Annotated[float, typer.Option(help="Share of wrong pairs above the threshold.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Draws pictures and edits.")] = 1,
    output: OutputOption = None,
) -> None:
    """Measure all kinds of edit with all weights and report one table.

    Example: python -m benchmarks.per_edit held_store/ --weights old=engines-old/ --weights new=engines/
    """
    kinds = sorted(STRENGTHS)
    with FrameStore.open(store) as opened:
        pictures = read_pictures(opened, num_originals=num_pictures, num_others=num_others, seed=seed)
    with ExitStack() as resources, progress("cells", sum(len(levels_of(kind)) for kind in kinds)) as advance:
        cells, thresholds = measure(
            {name: open_embed(path, preset=preset, resources=resources) for name, path in map(_named, weights)},
            pictures,
            kinds=kinds,
            false_positive_rate=false_positive_rate,
            seed=seed,
            advance=advance,
        )
    figures = {
        "num_pictures": num_pictures,
        "num_references": len(pictures.references),
        "false_positive_rate": false_positive_rate,
        "thresholds": thresholds,
        "cells": [asdict(cell) for cell in cells],
    }
    report("per_edit", lines=table(cells), figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
