"""Presets of edit-score training: every number of a recipe in one strict, frozen, typed value."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from training.descriptor.config import Fraction, Strict, load_recipe


class EditScoreOptimization(Strict):
    """AdamW; the rate rises over ``warmup`` of all steps, then falls linearly to zero. ``videos_per_rank`` a step."""

    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = 0.1
    epochs: Annotated[int, Field(gt=0)]
    videos_per_rank: Annotated[int, Field(gt=0)]


class EditScorePreset(Strict):
    """How the edit-score model of an engine preset is trained.

    ``engine_preset``: name or TOML file of the preset whose gate says which features and which model these are.
    ``min_frames_share``: in training a video shows a random part of its frames, at least this share of them.
    ``repeats``: how often an epoch shows each given query, where it shows each synthesized one once.
    ``validation_share``: of the training videos, held out where no validation videos are given.
    """

    name: str
    engine_preset: str
    seed: int
    min_frames_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    repeats: Annotated[int, Field(gt=0)] = 1
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    optimization: EditScoreOptimization


PRESETS_FOLDER = "presets/edit_score"


def load_edit_score_preset(name_or_path: str) -> EditScorePreset:
    """Read a preset by name or from a TOML file. Raises ``ConfigError`` for an unknown name, key or value."""
    return load_recipe(name_or_path, EditScorePreset, folder=PRESETS_FOLDER)
