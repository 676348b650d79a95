"""Presets of edit-score training: every number of a recipe in one strict, frozen, typed value."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config import explain
from engine.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EditScoreOptimization(_Strict):
    """AdamW; the rate rises over ``warmup`` of all steps, then falls linearly to zero. ``videos_per_rank`` a step."""

    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = 0.1
    epochs: Annotated[int, Field(gt=0)]
    videos_per_rank: Annotated[int, Field(gt=0)]


class EditScorePreset(_Strict):
    """How the edit-score model of an engine preset is trained.

    ``engine_preset``: name or TOML file of the preset whose gate says which features and which model these are.
    ``min_frames_share``: in training a video shows a random part of its frames, at least this share of them.
    ``validation_share``: of the training videos, held out where no validation videos are given.
    """

    name: str
    engine_preset: str
    seed: int
    min_frames_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    optimization: EditScoreOptimization


def edit_score_preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("training") / "presets" / "edit_score"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_edit_score_preset(name_or_path: str) -> EditScorePreset:
    """Read a preset by name or from a TOML file. Raises ``ConfigError`` for an unknown name, key or value."""
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"preset file {path} does not exist")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in edit_score_preset_names():
        file = resources.files("training") / "presets" / "edit_score" / f"{name_or_path}.toml"
        text = file.read_text(encoding="utf-8")
    else:
        names = edit_score_preset_names()
        raise ConfigError(f"unknown preset {name_or_path!r}; expected one of {names} or a .toml file")
    try:
        return EditScorePreset.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name_or_path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{name_or_path}: {explain(error, EditScorePreset)}") from error
