"""Presets: every number of the method in one strict, frozen, typed value."""

from __future__ import annotations

import difflib
import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from engine.errors import ConfigError

DescriptorArchitecture = Literal[
    "swinv2_base_w16_256", "vit_base_patch32_384", "efficientnet_lite0_gem512", "resnet50_gem512"
]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NotNegative = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Cosine = Annotated[float, Field(strict=True, ge=-1)]
Speed = Annotated[float, Field(strict=True, ge=0.1, le=10)] | Annotated[float, Field(strict=True, ge=-10, le=-0.1)]
Count = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
Rgb = tuple[Number, Number, Number]
RgbStd = tuple[Positive, Positive, Positive]


DEFAULT_WORKING_PIXELS = 2560 * 1440
DEFAULT_MAX_PIXELS = 8192 * 8192
"""The largest picture that NVDEC takes, and larger than 8K."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DescriptorModel(_Strict):
    """One member of the ensemble: its architecture, where its weights are, and how its input is prepared."""

    name: str
    architecture: DescriptorArchitecture
    checkpoint: str
    input_px: Count
    mean: Rgb
    std: RgbStd
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class NoGate(_Strict):
    """No edit gate, and no models for one: every query video is described."""

    mode: Literal["off"] = "off"


class _EditGate(_Strict):
    """The edit gate: with ``mode = "vsc"`` a query whose edit score is below the threshold counts as unedited.

    Its models are built whatever the mode is, so that it can be turned on or off without building again.
    """

    mode: Literal["off", "vsc"]
    score_checkpoint: str
    score_threshold: Share
    max_frames: Count


class ClipGate(_EditGate):
    """The gate of the reference solution: features of a CLIP model of its own."""

    architecture: Literal["clip_vit_l14"]
    checkpoint: str
    input_px: Count
    mean: Rgb
    std: RgbStd
    score_architecture: Literal["edit_score_bert"]


class EnsembleGate(_EditGate):
    """A gate that costs next to nothing: features of the ensemble member named ``model``, computed on the way.

    Exact copies pass any edit gate unseen. So a query that this one stopped still counts if it is nearly identical to
    a reference: a cosine above ``near_identical_cosine``, see `engine.search.exact_copies`. Without that figure it
    does not.
    """

    architecture: Literal["efficientnet_lite0_statistics"]
    model: str
    score_architecture: Literal["edit_score_pooled"]
    near_identical_cosine: Annotated[Positive, Field(le=1)] | None = None


def _gate_architecture(values: Any) -> Any:
    known = values if isinstance(values, dict) else vars(values)
    return known.get("architecture", "no_architecture")


Gate = Annotated[
    Annotated[NoGate, Tag("no_architecture")]
    | Annotated[ClipGate, Tag("clip_vit_l14")]
    | Annotated[EnsembleGate, Tag("efficientnet_lite0_statistics")],
    Discriminator(_gate_architecture),
]


SampledFrames = Literal["all", "keyframes"]


class Sampling(_Strict):
    """Which frames of a video are described; see `engine.video.sampling`.

    ``fps``: slots in a second. ``frames``: ``all`` fills each of them; ``keyframes`` takes key frames alone, which
    decode many times faster, at most one for a slot, and the same as ``all`` from videos that are longer than
    ``max_gap_s`` without one. Its default takes groups of pictures of 2 s, which cost 0.016 of uAP; those of 5 s cost
    0.105 (`benchmarks.keyframes`).
    """

    fps: Positive = 1.0
    frames: SampledFrames = "all"
    max_gap_s: Positive = 2.1


class Decoding(_Strict):
    """Which pictures are taken, and how those of HDR videos are read.

    ``max_pixels``: of a picture; videos with larger ones fail, because decoders hold several at once.
    ``working_pixels``: PyAV reduces larger pictures to this size or less, by a whole factor, before anything is made of
    them.
    ``hdr``: ``tone_map`` shows PQ and HLG as a standard display would (`engine.video.tone_map`); ``as_is`` takes their
    values for standard ones, as the reference does.
    ``resize``: what becomes the input of a model, ``rgb`` as in the reference, or ``planes`` of luma and chroma, which
    is half the work and differs by half a grey level at most in the mean; DALI and frames of a caller are RGB.
    ``blank``: ``replace`` takes for a picture that says nothing (`engine.video.blank`) one that does of the half slot
    before, if there is one; ``keep`` takes what the sampling rule says, as the reference does, DALI and key frames too.
    """

    max_pixels: Count = DEFAULT_MAX_PIXELS
    working_pixels: Count = DEFAULT_WORKING_PIXELS
    hdr: Literal["as_is", "tone_map"] = "as_is"
    resize: Literal["rgb", "planes"] = "rgb"
    blank: Literal["keep", "replace"] = "keep"


class Scenes(_Strict):
    """Whether queries are split into frame scenes, and the thresholds of `engine.describe.scenes`.

    ``scope``: ``video`` describes the scenes of the whole video in place of its frames, as the winner does; ``shots``
    describes the whole frames, the scenes of the video and those of its shots (`engine.describe.shots`), which end
    where the cosine of neighbouring frames is below ``max_cut_cosine`` and have at least ``min_shot_frames`` frames.

    ``max_insets``: rectangles with a lasting border that are described in each shot, too (`engine.describe.insets`),
    with ``shots`` alone. ``min_side_contrasts``: of the weakest side of one, with 1 to 4 sides inside the frame.

    ``view_interval_s``: with ``shots``, seconds from one picture of a scene or an inset that is described to the next;
    by default every sampled one is.

    All other numbers are the VSC2022 winner's (``image_preprocess.py`` of FeipengMa6/VSC22-Submission).
    Fewer than ``min_frames`` frames are never cut, nothing is trimmed to less than ``min_trimmed_px``.

    An edge is lasting where the mean of edges is above ``min(max(quantile, floor), mean + margin)``, of
    ``lasting_quantile``, ``lasting_floor``, and ``trim_margin`` or ``split_margin``.

    Trimming: a line has ``trim_line_excess`` more lasting edges than the average one. A border is at least
    ``min_border_px`` wide; the ``border_inner_share`` of it next to the line is left out. It has less than a share of
    ``max_border_edges`` edges and, in squared grey levels, an activity (median + mean of the variance) below
    ``max_border_activity``, beside an ``unbroken_line`` below ``max_activity_at_unbroken_line``.

    Splitting: bands of ``gap_px`` with a variance below ``still_variance``; after ``max_still_px`` without movement a
    piece may end, too. Pieces are wider than ``min_piece_px``. Lines have ``split_line_excess`` more lasting edges.
    """

    enabled: bool = True
    scope: Literal["video", "shots"] = "video"
    max_cut_cosine: Share = 0.35
    min_shot_frames: Count = 3
    max_insets: Annotated[int, Field(strict=True, ge=0)] = 0
    min_side_contrasts: tuple[Share, Share, Share, Share] = (0.85, 0.6, 0.5, 0.3)
    view_interval_s: NotNegative = 0
    min_frames: Count = 5
    min_trimmed_px: Count = 20
    lasting_quantile: Share = 0.95
    lasting_floor: Share = 0.2
    trim_margin: Share = 0.35
    split_margin: Share = 0.3
    trim_line_excess: Share = 0.125
    min_border_px: Count = 5
    border_inner_share: Share = 0.3
    max_border_edges: Share = 0.0225
    max_border_activity: Positive = 75
    unbroken_line: Share = 0.65
    max_activity_at_unbroken_line: Positive = 250
    gap_px: Count = 5
    still_variance: Positive = 0.1
    max_still_px: Count = 50
    min_piece_px: Count = 80
    split_line_excess: Share = 0.45


class NearDuplicates(_Strict):
    """Frames of one query closer than this cosine similarity are dropped; 1 or more keeps all.

    ``scope``: ``video`` compares all frames of the video, as the reference does; ``still`` only drops frames while the
    picture stands still, so that an excerpt that is shown twice has rows twice.
    """

    max_cosine: Cosine = 0.975
    scope: Literal["video", "still"] = "video"


class PcaConfig(_Strict):
    """Dimensions kept of the concatenated embedding, and the reference's fitted PCA where a user holds it."""

    num_components: Count = 512
    checkpoint: str | None = None


class ScoreNorm(_Strict):
    """``bias = -beta * mean(nk largest similarities to the norm set)``."""

    beta: NotNegative = 1.2
    nk: Count = 1


class Search(_Strict):
    """How many pairs of rows, and then pairs of videos, a search keeps for each query on average.

    ``segment_weight``: the score of a pair whose videos were compared in time rises by this share of the evidence of
    its best segment (`engine.search.localization.rescore`); 0 leaves it the best similarity of two rows, as the
    descriptor track does. ``inlier_weight``: by this for each local feature that agrees, where pictures were looked at
    (`engine.search.localization.rescore_seen`).
    """

    retrieve_per_query: Count = 1200
    candidates_per_query: Count = 25
    segment_weight: NotNegative = 0.0
    inlier_weight: NotNegative = 0.0


class TemporalNetwork(_Strict):
    """How segments are found and scored, see `engine.search.temporal_network`. The defaults are for normalized scores.

    ``similarity``: ``inner_product`` takes descriptors as they are; ``cosine`` L2-normalizes them first, including the
    dimension that score normalization appended.
    ``similarity_bias``: added to all similarities, because negative ones are never aligned and most score-normalized
    ones are negative.
    ``score``: of a match. ``segment`` is the largest similarity (without the bias) in the segment, whose last query row
    and last reference row are not looked at. ``candidate`` is the score of the pair, equal for all its segments.
    ``scenes``: ``apart`` aligns every frame scene of a query by itself. ``together``, as in the baseline, takes all
    rows for one video, so that a path can run from one scene into the next and a segment end before it starts.
    ``top_k``: reference rows joined with each query row.
    ``max_step``: an edge advances by fewer rows than this in either video.
    ``min_similarity``: of the end of an edge, and (summed over the path, per row of the mean side) of a segment.
    ``min_length``: rows from the first to the last of a segment must be more than this in both videos.
    ``max_paths``: paths looked at in a pair of videos.
    ``max_iou``: intersection over union with an earlier segment must be less than this.
    """

    similarity: Literal["inner_product", "cosine"] = "inner_product"
    similarity_bias: Number = 0.5
    score: Literal["segment", "candidate"] = "segment"
    scenes: Literal["apart", "together"] = "apart"
    top_k: Count = 5
    max_step: Count = 5
    min_similarity: NotNegative = 0.2
    min_length: Count = 4
    max_paths: Count = 11
    max_iou: NotNegative = 0.3


class HoughVoting(_Strict):
    """How segments are found and scored, see `engine.search.hough_voting`. The defaults are for normalized scores.

    ``similarity``: ``inner_product`` takes descriptors as they are; ``cosine`` L2-normalizes them first.
    ``unrelated_similarity``: what a similarity must exceed to be evidence of a copy, and what it loses below it.
    ``max_loss``: a time that does not fit takes at most this from the sum, so that single ones do not end a segment.
    ``max_gap_s``: more seconds without any evidence end it, however strong it is on both sides.
    ``beside_loss``: taken from the evidence of a reference row beside the line.
    ``off_peak_loss``: where another row of the reference has more evidence, this share of the difference is taken from
    the sum by which lines are chosen.
    ``votes_per_row``: reference rows that each time of the query votes for.
    ``other_speeds``: reference seconds in a query second beside 1, 0.1 to 10; below zero the copy runs backwards.
    ``other_speed_weight``: a sum at these counts so much, since more lines find more by chance.
    ``min_evidence`` and ``min_rows``: a segment has this sum, and so many times with evidence, or all of a video that
    has fewer.
    ``min_score_ratio``: where segments show the same seconds of one video, the weaker has this share of the stronger
    one's score, as in a video that repeats itself.
    ``score_rows``: the score of a segment is the sum of this many of its largest evidences, so that a weak
    resemblance that lasts does not outweigh a copy.
    ``max_lines``: lines looked at in a pair of videos.
    """

    similarity: Literal["inner_product", "cosine"] = "inner_product"
    unrelated_similarity: Number = -0.25
    max_loss: NotNegative = 0.25
    max_gap_s: Positive = 5.0
    beside_loss: NotNegative = 0.1
    off_peak_loss: NotNegative = 1.0
    votes_per_row: Count = 10
    other_speeds: tuple[Speed, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.11, 1.25, 1.43, 1.67, 2.0, -1.0)
    other_speed_weight: Share = 0.9
    min_evidence: NotNegative = 0.4
    min_rows: Count = 1
    min_score_ratio: Share = 0.5
    score_rows: Count = 12
    max_lines: Count = 5


class Localization(_Strict):
    """How many candidates a query on average are looked at for segments, and how.

    ``method``: ``temporal_network`` is that of the challenge's baseline, ``hough_voting`` the more exact one.
    ``score_normalized`` and ``cosine``: the settings of the challenge's baseline for descriptors with and without score
    normalization, but scenes apart.
    ``verified_per_query``: of the best pairs of each query so many have their pictures compared
    (`engine.evidence.geometry.verify`), if the score of the pair is ``min_verified_pair_score`` or more (None: any) and
    that of a match ``min_verified_score``; 0 compares none. ``inlier_weight``: the score of a match rises by this for
    each local feature that agrees (`engine.search.localization.rescore_seen`).
    """

    candidates_per_query: Count = 5
    verified_per_query: Annotated[int, Field(strict=True, ge=0)] = 0
    min_verified_score: NotNegative = 0.0
    min_verified_pair_score: Number | None = None
    inlier_weight: NotNegative = 0.0
    method: Literal["temporal_network", "hough_voting"] = "temporal_network"
    score_normalized: TemporalNetwork = TemporalNetwork()
    cosine: TemporalNetwork = TemporalNetwork(similarity="cosine", similarity_bias=0.0, score="candidate")
    hough_score_normalized: HoughVoting = HoughVoting()
    hough_cosine: HoughVoting = HoughVoting(similarity="cosine", unrelated_similarity=0.25)


class FalseMatches(_Strict):
    """How unrelated pairs of videos score with this preset, and how many false answers a verdict may give.

    ``tail_start``, ``tail_share`` and ``mean_excess``: `engine.evaluate.calibration.FalseMatchModel`, for normalized
    scores of pairs. ``act_rate`` and ``review_rate``: of uploads without a copy, the share that may be called a copy,
    and the share that a person may have to look at.
    """

    tail_start: Number
    tail_share: Annotated[float, Field(gt=0, le=1)]
    mean_excess: Positive
    act_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    review_rate: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _ordered(self) -> FalseMatches:
        if self.act_rate > self.review_rate:
            raise ValueError(f"act_rate {self.act_rate} must not be above review_rate {self.review_rate}")
        return self


class Preset(_Strict):
    """A full configuration of the method.

    ``weights`` names a folder of ``engine/weights`` with the graphs of these models, which need no checkpoints then.
    """

    name: str
    weights: str | None = None
    models: Annotated[tuple[DescriptorModel, ...], Field(min_length=1)]
    sampling: Sampling = Sampling()
    decoding: Decoding = Decoding()
    gate: Gate
    scenes: Scenes
    near_duplicates: NearDuplicates
    pca: PcaConfig
    score_norm: ScoreNorm
    search: Search = Search()
    localization: Localization = Localization()
    false_matches: FalseMatches | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> Preset:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"model names must differ, got {names}")
        inputs = {(model.input_px, model.interpolation) for model in self.models}
        if len({input_px for input_px, _ in inputs}) < len(inputs):
            raise ValueError("models with inputs of one size must take them with one interpolation")
        if self.search.segment_weight and self.localization.method != "hough_voting":
            raise ValueError(
                "search.segment_weight weighs the evidence of localization.method = 'hough_voting', got "
                f"{self.localization.method!r}"
            )
        if isinstance(self.gate, EnsembleGate):
            fitting = [model.name for model in self.models if model.architecture == "efficientnet_lite0_gem512"]
            if self.gate.model not in fitting:
                raise ValueError(
                    "gate.model must name a model of architecture efficientnet_lite0_gem512, which are here "
                    f"{fitting}, got {self.gate.model!r}"
                )
        return self

    def with_fps(self, fps: float) -> Preset:
        """This preset with ``fps`` sampled frames per second. Raises ``ConfigError`` unless it is above 0."""
        if not 0 < fps < math.inf:
            raise ConfigError(f"expected fps > 0, got {fps}")
        return self.model_copy(update={"sampling": self.sampling.model_copy(update={"fps": fps})})

    def with_sampled_frames(self, frames: SampledFrames) -> Preset:
        """This preset with all frames sampled, or key frames alone."""
        return self.model_copy(update={"sampling": self.sampling.model_copy(update={"frames": frames})})

    def with_max_pixels(self, max_pixels: int) -> Preset:
        """This preset for pictures of up to ``max_pixels``, at least 1."""
        return self.model_copy(update={"decoding": self.decoding.model_copy(update={"max_pixels": max_pixels})})

    def with_gate(self, *, enabled: bool) -> Preset:
        """This preset with its edit gate turned on or off. Raises ``ConfigError`` to turn on where there is none."""
        if isinstance(self.gate, NoGate):
            if enabled:
                raise ConfigError(f"preset {self.name!r} has no edit gate to turn on; its [gate] names no models")
            return self
        return self.model_copy(update={"gate": self.gate.model_copy(update={"mode": "vsc" if enabled else "off"})})


def graph_parts(preset: Preset) -> dict[str, dict[str, Any]]:
    """The graphs that a preset needs, by name, and the part of the preset that each is made from.

    Those of a gate that is off are among them: it can be turned on without building again.
    """
    models = [model.model_dump(mode="json", exclude={"checkpoint"}) for model in preset.models]
    for model in models:
        if model["interpolation"] == "bicubic":  # engines from before it could be chosen stay what they are
            del model["interpolation"]
    parts: dict[str, dict[str, Any]] = {"ensemble": {"models": models}}
    gate = preset.gate.model_dump(mode="json")
    if isinstance(preset.gate, ClipGate):
        parts["edit_features"] = {key: gate[key] for key in ("architecture", "input_px", "mean", "std")}
    elif isinstance(preset.gate, EnsembleGate):
        parts["ensemble"]["edit_features"] = {key: gate[key] for key in ("architecture", "model")}
    if not isinstance(preset.gate, NoGate):
        parts["edit_score"] = {"architecture": gate["score_architecture"]}
    return parts


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
        content, source = text_path.read_bytes(), str(text_path)
    elif str(name_or_path) in preset_names():
        source = f"preset {name_or_path}"
        content = (resources.files("engine") / "presets" / f"{name_or_path}.toml").read_bytes()
    else:
        raise ConfigError(f"unknown preset {str(name_or_path)!r}; expected one of {preset_names()} or a .toml file")
    try:
        values = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
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
    if not where:  # about several keys, which the message names; the value is all of them
        return str(detail["msg"])
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
