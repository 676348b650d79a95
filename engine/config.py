"""Presets: every number of the method in one strict, frozen, typed value. Knows nothing of files other than presets."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from engine.errors import ConfigError

DescriptorArchitecture = Literal["swinv2_base_w16_256", "vit_base_patch32_384", "efficientnet_lite0_gem512"]
Rgb = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class DescriptorModel(_Strict):
    """One member of the ensemble: its architecture, where its weights are, and how its input is prepared."""

    name: str
    architecture: DescriptorArchitecture
    checkpoint: str
    input_px: Annotated[int, Field(gt=0)]
    mean: Rgb
    std: Rgb


class NoGate(_Strict):
    """No edit gate, and no models for one: every query video is described."""

    mode: Literal["off"] = "off"


class _EditGate(_Strict):
    """The edit gate: with ``mode = "vsc"`` a query whose edit score is below the threshold counts as unedited.

    Its models are built whatever the mode is, so that it can be turned on or off without building again.
    """

    mode: Literal["off", "vsc"]
    score_checkpoint: str
    score_threshold: Annotated[float, Field(ge=0, le=1)]
    max_frames: Annotated[int, Field(gt=0)]


class ClipGate(_EditGate):
    """The gate of the reference solution: features of a CLIP model of its own."""

    architecture: Literal["clip_vit_l14"]
    checkpoint: str
    input_px: Annotated[int, Field(gt=0)]
    mean: Rgb
    std: Rgb
    score_architecture: Literal["edit_score_bert"]


class EnsembleGate(_EditGate):
    """A gate that costs next to nothing: features of the ensemble member named ``model``, computed on the way.

    Exact copies pass any edit gate unseen. So a query that this one stopped still counts if it is nearly identical to
    a reference: a cosine above ``near_identical_cosine``, see `engine.readmit`. Without that figure it does not.
    """

    architecture: Literal["efficientnet_lite0_statistics"]
    model: str
    score_architecture: Literal["edit_score_pooled"]
    near_identical_cosine: Annotated[float, Field(gt=0, le=1)] | None = None


def _gate_architecture(values: Any) -> Any:
    known = values if isinstance(values, dict) else vars(values)
    return known.get("architecture", "no_architecture")


Gate = Annotated[
    Annotated[NoGate, Tag("no_architecture")]
    | Annotated[ClipGate, Tag("clip_vit_l14")]
    | Annotated[EnsembleGate, Tag("efficientnet_lite0_statistics")],
    Discriminator(_gate_architecture),
]


class Scenes(_Strict):
    """Whether queries are split into frame scenes."""

    enabled: bool = True


class NearDuplicates(_Strict):
    """Frames of one query closer than this cosine similarity are dropped; 1 or more keeps all."""

    max_cosine: float = 0.975


class PcaConfig(_Strict):
    """Dimensions kept of the concatenated embedding, and the reference's fitted PCA where a user holds it."""

    num_components: Annotated[int, Field(gt=0)] = 512
    checkpoint: str | None = None


class ScoreNorm(_Strict):
    """``bias = -beta * mean(nk largest similarities to the norm set)``."""

    beta: float = 1.2
    nk: Annotated[int, Field(gt=0)] = 1


class Preset(_Strict):
    """A full configuration of the method.

    ``weights`` names a folder of ``engine/weights`` with the graphs of these models, which need no checkpoints then.
    """

    name: str
    weights: str | None = None
    models: Annotated[tuple[DescriptorModel, ...], Field(min_length=1)]
    gate: Gate
    scenes: Scenes
    near_duplicates: NearDuplicates
    pca: PcaConfig
    score_norm: ScoreNorm

    @model_validator(mode="after")
    def _unique_names(self) -> Preset:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"model names must differ, got {names}")
        return self

    @model_validator(mode="after")
    def _gate_fits(self) -> Preset:
        if isinstance(self.gate, EnsembleGate):
            fitting = [model.name for model in self.models if model.architecture == "efficientnet_lite0_gem512"]
            if self.gate.model not in fitting:
                raise ValueError(
                    "gate.model must name a model of architecture efficientnet_lite0_gem512, which are here "
                    f"{fitting}, got {self.gate.model!r}"
                )
        return self

    def with_gate(self, *, enabled: bool) -> Preset:
        """This preset with its edit gate turned on or off. Raises ``ConfigError`` to turn on where there is none."""
        if isinstance(self.gate, NoGate):
            if enabled:
                raise ConfigError(f"preset {self.name!r} has no edit gate to turn on; its [gate] names no models")
            return self
        return self.model_copy(update={"gate": self.gate.model_copy(update={"mode": "vsc" if enabled else "off"})})


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("engine") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name_or_path: str | Path) -> Preset:
    """Read a preset by name (``lite``, ``vsc22``) or from a TOML file.

    Raises ``ConfigError`` for an unknown name, a file that is not TOML, an unknown key (with the nearest known one) or
    a value out of range.
    """
    text_path = Path(name_or_path)
    if text_path.suffix == ".toml":
        if not text_path.is_file():
            raise ConfigError(f"preset file {text_path} does not exist")
        text, source = text_path.read_text(encoding="utf-8"), str(text_path)
    elif str(name_or_path) in preset_names():
        source = f"preset {name_or_path}"
        text = (resources.files("engine") / "presets" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"unknown preset {str(name_or_path)!r}; expected one of {preset_names()} or a .toml file")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    return parse_preset(values, source=source)


def parse_preset(values: dict[str, Any], *, source: str) -> Preset:
    """Check a nested dict against `Preset`; ``source`` names it in errors. Raises ``ConfigError``."""
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, Preset)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the values of a ``model``, in one line; for an unknown key, with the nearest known one."""
    known = sorted(_keys(model))
    return "; ".join(_explain(detail, known) for detail in error.errors())


def _explain(detail: Any, known: list[str]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        return f"unknown key {where}" + (f", did you mean {near[0]!r}?" if near else "")
    return f"{where}: {detail['msg']}, got {detail.get('input')!r}"


def _keys(model: type[BaseModel]) -> set[str]:
    """The keys of a model and of all models in it."""
    keys: set[str] = set()
    waiting: list[Any] = [model]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= set(kind.model_fields)
            waiting += [field.annotation for field in kind.model_fields.values()]
        else:
            waiting += get_args(kind)
    return keys
