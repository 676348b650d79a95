"""Chooses float16 or float32 for each model of a preset, by what float16 does to its results on pictures.

What is measured: every weight, input and output of a float16 operation is rounded to float16, sums inside an operation
are in float32 (`engine.build.float16.emulate_float16`), against what PyTorch computed in float32. TensorRT joins
operations and so rounds less often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.build.float16 import emulate_float16, member_columns
from engine.build.onnx_runtime import run_graph
from engine.build.parity import Case
from engine.config import ClipGate, EnsembleGate, NoGate, Preset
from engine.runtime.manifest import Comparison, Measure, Precision

MIN_COSINE = 0.999
MAX_SCORE_DIFFERENCE = 1e-3
_MIN_SLOPE = 4e-3
"""Of the sigmoid, over its slope at 0.5; below it float32 itself runs out of digits."""

Comparisons = dict[str, tuple[Comparison, ...]]
"""Of each graph by its name."""

Picture = NDArray[np.uint8]
Outputs = Sequence[Mapping[str, NDArray[Any]]]


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


def float16_models(comparisons: Sequence[Comparison]) -> frozenset[str]:
    """The models for which every comparison allows float16."""
    refused = {comparison.model for comparison in comparisons if comparison.precision == "fp32"}
    return frozenset(comparison.model for comparison in comparisons) - refused


def with_edits(sample: Sample) -> Sample:
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
    cases = [Case(given, outputs) for given, outputs in zip(inputs, run_graph(sample.path, inputs), strict=True)]
    return Sample(sample.path, [*sample.cases, *cases])


def compare_precisions(samples: Mapping[str, Sample], preset: Preset, *, folder: Path) -> Comparisons:
    """What float16 does to each model of each graph, and the precision that this allows.

    ``samples``: of every graph of the preset. Descriptors are compared by their cosine, features of the gate by the
    edit score that comes of them; the score model, on features of the precision chosen before, by all that float16 did
    to the score. ``folder`` takes graphs that are removed again.
    """
    models = graph_models(preset)
    ensemble = samples["ensemble"]
    outputs = _run_emulated(ensemble, models["ensemble"], folder=folder)
    found: Comparisons = {"ensemble": _compare_descriptors(ensemble, outputs, models["ensemble"])}
    if isinstance(preset.gate, NoGate):
        return found
    if isinstance(preset.gate, EnsembleGate):
        source, output, model = "ensemble", "edit_features", preset.gate.model
    else:
        source, output, model = "edit_features", "features", "edit_features"
        outputs = _run_emulated(samples[source], models[source], folder=folder)
    score = samples["edit_score"]
    float32 = [{"features": case.outputs[output]} for case in samples[source].cases]
    float16 = [{"features": result[output]} for result in outputs]
    wanted = run_graph(score.path, float32)
    by_features = _compare_scores(model, run_graph(score.path, float16), wanted)
    found[source] = (*found.get(source, ()), by_features)
    videos = float16 if model in float16_models(found[source]) else float32
    inputs = [*videos, *(case.inputs for case in score.cases)]
    with _emulated(score, models["edit_score"], folder=folder) as path:
        results = run_graph(path, inputs)
    wanted = [*wanted, *(dict(case.outputs) for case in score.cases)]
    return found | {"edit_score": (_compare_scores("edit_score", results, wanted),)}


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


def _compare_descriptors(sample: Sample, outputs: Outputs, names: Sequence[str]) -> tuple[Comparison, ...]:
    wanted = np.concatenate([case.outputs["embedding"] for case in sample.cases]).astype(np.float64)
    got = np.concatenate([result["embedding"] for result in outputs]).astype(np.float64)
    comparisons = []
    for name, columns in member_columns(sample.path, names).items():
        one, other = got[:, columns], wanted[:, columns]
        cosines = np.vecdot(one, other) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
        worst = float(np.nan_to_num(cosines, nan=-1.0).min())
        comparisons.append(_comparison(name, "cosine", worst=worst, limit=MIN_COSINE, num_inputs=len(got)))
    return tuple(comparisons)


def _compare_scores(model: str, results: Outputs, wanted: Outputs) -> Comparison:
    differences = [_change(got["score"], want["score"]) for got, want in zip(results, wanted, strict=True)]
    worst = float(np.nan_to_num(np.max(differences), nan=1.0))
    return _comparison(model, "edit_score", worst=worst, limit=MAX_SCORE_DIFFERENCE, num_inputs=len(differences))


def _comparison(model: str, measure: Measure, *, worst: float, limit: float, num_inputs: int) -> Comparison:
    is_accepted = worst >= limit if measure == "cosine" else worst <= limit
    precision: Precision = "fp16" if is_accepted else "fp32"
    return Comparison(
        model=model, measure=measure, worst=worst, limit=limit, num_inputs=num_inputs, precision=precision
    )


def _change(score: NDArray[Any], wanted: NDArray[Any]) -> float:
    """How far a score moved, as if it had been 0.5: near 0 and 1 it cannot show what float16 did to the logit."""
    slope = max(4 * float(wanted[0]) * (1 - float(wanted[0])), _MIN_SLOPE)
    return abs(float(score[0]) - float(wanted[0])) / slope


def _run_emulated(sample: Sample, names: Sequence[str], *, folder: Path) -> Outputs:
    with _emulated(sample, names, folder=folder) as path:
        return run_graph(path, [case.inputs for case in sample.cases])


@contextmanager
def _emulated(sample: Sample, names: Sequence[str], *, folder: Path) -> Iterator[Path]:
    path = folder / f"{sample.path.stem}.emulated.onnx"
    try:
        emulate_float16(sample.path, path, names=names, chosen=names)
        yield path
    finally:
        for written in folder.glob(f"{path.name}*"):
            written.unlink()
