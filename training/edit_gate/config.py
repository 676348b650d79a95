"""Recipes of edit-score training: every number, and the data, of a recipe in one strict, frozen, typed value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from training.recipes import Fraction, Strict, load_recipe


class EditScoreOptimization(Strict):
    """AdamW; the rate rises over ``warmup`` of all steps, then falls linearly to zero. ``videos_per_rank`` a step."""

    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = 0.1
    epochs: Annotated[int, Field(gt=0)]
    videos_per_rank: Annotated[int, Field(gt=0)]


class LabelledQueries(Strict):
    """A folder of query videos, and the ground-truth CSV that says which of them hold a copy, and where.

    ``repeats``: how often an epoch shows each of them.
    """

    videos: Path
    ground_truth: Path
    repeats: Annotated[int, Field(gt=0)] = 1


class SynthesizedQueries(Strict):
    """Queries made of the videos in ``source``, half of them with a copy; an epoch shows each of them once.

    Of a folder that is labelled, too, only the queries without a copy are used.
    """

    source: Path
    num_queries: Annotated[int, Field(ge=2)]


class Synthesis(Strict):
    """What synthesized queries look like, see `training.footage.synthesizer.synthesize`.

    ``num_edits``: the least and the most of a copy. ``letterboxed_share``: of plain queries; by default about every
    tenth has bars, as in the train split of vsc-mini. ``max_fps``: the gate samples a frame a second; more would be
    edited and encoded for nothing.
    """

    num_edits: tuple[int, int] = (1, 4)
    max_plain_pieces: Annotated[int, Field(gt=0)] = 3
    letterboxed_share: Fraction = 0.15
    max_fps: Annotated[int, Field(gt=0)] = 4


class EditScorePreset(Strict):
    """How the edit-score model of an engine preset is trained, and on what.

    ``engine_preset``: name or TOML file of the preset whose gate says which features and which model these are.
    ``min_frames_share``: in training a video shows a random part of its frames, at least this share of them.
    ``labelled``, ``synthesized``, ``validation``: queries, in folders below the one that the command names.
    ``validation_share``: of the training videos, the held-out ones where there is no ``validation``.
    """

    name: str
    engine_preset: str
    seed: int
    min_frames_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    optimization: EditScoreOptimization
    labelled: tuple[LabelledQueries, ...] = ()
    synthesized: tuple[SynthesizedQueries, ...] = ()
    synthesis: Synthesis = Synthesis()
    validation: LabelledQueries | None = None


PRESETS_FOLDER = "presets/edit_score"


def load_edit_score_preset(name_or_path: str) -> EditScorePreset:
    """Read a preset by name or from a TOML file. Raises ``ConfigError`` for an unknown name, key or value."""
    return load_recipe(name_or_path, EditScorePreset, folder=PRESETS_FOLDER)
