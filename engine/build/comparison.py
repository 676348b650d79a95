"""What a lower precision does to the results of models, measured on pictures, and whether that is accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.build.float16 import member_columns
from engine.build.parity import Case
from engine.config import ClipGate, NoGate, Preset
from engine.runtime.manifest import Comparison, Measure, Precision
from engine.runtime.runner import Tensors

_MIN_SLOPE = 4e-3
"""Of the sigmoid, over its slope at 0.5; below it float32 itself runs out of digits."""

Comparisons = dict[str, tuple[Comparison, ...]]
"""Of each graph by its name."""

Picture = NDArray[np.uint8]
Outputs = Sequence[Mapping[str, NDArray[Any]]]
Run = Callable[[Sequence[Tensors]], Sequence[dict[str, NDArray[Any]]]]
"""The outputs of a graph for each of several inputs."""


class Limits(NamedTuple):
    """What is accepted: cosines of descriptors from ``min_cosine`` up, changes of a score up to the other."""

    min_cosine: float
    max_score_difference: float


LIMITS: dict[Precision, Limits] = {"fp16": Limits(0.999, 1e-3), "bf16": Limits(0.99, 0.1)}
"""Float16 changes nothing that counts. Bfloat16 has three bits less: descriptors of both are not mixed, and the limits
are those within which the uAP of `lite` stays (docs/measured.md)."""


@dataclass(frozen=True)
class Sample:
    """A graph, and inputs with the outputs that it gives for them in float32. One case is one video."""

    path: Path
    cases: Sequence[Case]


def graph_models(preset: Preset) -> dict[str, tuple[str, ...]]:
    """The models in each graph of a preset, in the order in which the graph uses them."""
    models = {"ensemble": tuple(model.name for model in preset.models)}
    if isinstance(preset.gate, ClipGate):
        models["edit_features"] = ("edit_features",)
    if not isinstance(preset.gate, NoGate):
        models["edit_score"] = ("edit_score",)
    return models


def accepted_models(comparisons: Sequence[Comparison]) -> frozenset[str]:
    """The models for which every comparison allows the lower precision."""
    refused = {comparison.model for comparison in comparisons if comparison.precision == "fp32"}
    return frozenset(comparison.model for comparison in comparisons) - refused


def with_edits(sample: Sample, run: Run) -> Sample:
    """The sample with more videos, of one picture each: the pictures of its last case, edited in four ways.

    Photographs as they are leave the edit score near 0 or 1, where float16 does not move it.
    """
    pictures = sample.cases[-1].inputs
    count = len(next(iter(pictures.values())))
    inputs = [
        {name: np.ascontiguousarray(edit(frames[index])[None]) for name, frames in pictures.items()}
        for edit in (_gray, _dark, _blocks, _inset)
        for index in range(count)
    ]
    cases = [Case(given, outputs) for given, outputs in zip(inputs, run(inputs), strict=True)]
    return Sample(sample.path, [*sample.cases, *cases])


def table(comparisons: Comparisons) -> list[str]:
    """Lines for people: what was measured for each model, what is accepted, and what was chosen."""
    lines = [f"{'graph':<15}{'model':<15}{'measured':<50}{'accepted':<12}chosen"]
    for graph, rows in comparisons.items():
        for row in rows:
            kind, sign = ("smallest cosine", ">=") if row.measure == "cosine" else ("largest change of the score", "<=")
            unit = "pictures" if row.measure == "cosine" else "videos"
            value = f"{row.worst:.6f}" if row.measure == "cosine" else f"{row.worst:.1e}"
            measured = f"{kind} {value}, {row.num_inputs} {unit}"
            lines.append(f"{graph:<15}{row.model:<15}{measured:<50}{sign} {row.limit:<9}{row.precision}")
    return lines


def _gray(picture: Picture) -> Picture:
    gray: Picture = np.repeat(picture.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    return gray


def _dark(picture: Picture) -> Picture:
    return picture // 3


def _blocks(picture: Picture) -> Picture:
    return picture[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)


def _inset(picture: Picture) -> Picture:
    small = picture[::2, ::2]
    margin = (len(picture) - len(small)) // 2
    return np.pad(small, ((margin, len(picture) - len(small) - margin),) * 2 + ((0, 0),))


def compare_descriptors(
    sample: Sample, outputs: Outputs, names: Sequence[str], *, precision: Precision
) -> tuple[Comparison, ...]:
    """The descriptors of each model ``names``, as ``outputs`` have them, with those of the sample in float32."""
    wanted = np.concatenate([case.outputs["embedding"] for case in sample.cases]).astype(np.float64)
    got = np.concatenate([result["embedding"] for result in outputs]).astype(np.float64)
    comparisons = []
    for name, columns in member_columns(sample.path, names).items():
        one, other = got[:, columns], wanted[:, columns]
        cosines = np.vecdot(one, other) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
        worst = float(np.nan_to_num(cosines, nan=-1.0).min())
        comparisons.append(_comparison(name, "cosine", worst=worst, num_inputs=len(got), precision=precision))
    return tuple(comparisons)


def compare_scores(model: str, results: Outputs, wanted: Outputs, *, precision: Precision) -> Comparison:
    """The edit scores of videos with those in float32, for what precision did to ``model``."""
    differences = [_change(got["score"], want["score"]) for got, want in zip(results, wanted, strict=True)]
    worst = float(np.nan_to_num(np.max(differences), nan=1.0))
    return _comparison(model, "edit_score", worst=worst, num_inputs=len(differences), precision=precision)


def _comparison(model: str, measure: Measure, *, worst: float, num_inputs: int, precision: Precision) -> Comparison:
    limits = LIMITS[precision]
    limit = limits.min_cosine if measure == "cosine" else limits.max_score_difference
    is_accepted = worst >= limit if measure == "cosine" else worst <= limit
    return Comparison(
        model=model,
        measure=measure,
        worst=worst,
        limit=limit,
        num_inputs=num_inputs,
        precision=precision if is_accepted else "fp32",
    )


def _change(score: NDArray[Any], wanted: NDArray[Any]) -> float:
    """How far a score moved, as if it had been 0.5: near 0 and 1 it cannot show what float16 did to the logit."""
    slope = max(4 * float(wanted[0]) * (1 - float(wanted[0])), _MIN_SLOPE)
    return abs(float(score[0]) - float(wanted[0])) / slope
