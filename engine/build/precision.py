"""Chooses float16 or float32 for each model of a preset, by what float16 does to its results on pictures.

What is measured: every weight, input and output of a float16 operation is rounded to float16, sums inside an operation
are in float32 (`engine.build.float16.emulate_float16`), against what PyTorch computed in float32. TensorRT joins
operations and so rounds less often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.build.comparison import (
    Comparisons,
    Outputs,
    Sample,
    accepted_models,
    compare_descriptors,
    compare_scores,
    graph_models,
)
from engine.build.float16 import emulate_float16
from engine.build.onnx_runtime import run_graph
from engine.config import EnsembleGate, NoGate, Preset


def compare_precisions(samples: Mapping[str, Sample], preset: Preset, *, folder: Path) -> Comparisons:
    """What float16 does to each model of each graph, and the precision that this allows.

    ``samples``: of every graph of the preset. Descriptors are compared by their cosine, features of the gate by the
    edit score that comes of them; the score model, on features of the precision chosen before, by all that float16 did
    to the score. ``folder`` takes graphs that are removed again.
    """
    models = graph_models(preset)
    ensemble = samples["ensemble"]
    outputs = _run_emulated(ensemble, models["ensemble"], folder=folder)
    found: Comparisons = {"ensemble": compare_descriptors(ensemble, outputs, models["ensemble"], precision="fp16")}
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
    by_features = compare_scores(model, run_graph(score.path, float16), wanted, precision="fp16")
    found[source] = (*found.get(source, ()), by_features)
    videos = float16 if model in accepted_models(found[source]) else float32
    inputs = [*videos, *(case.inputs for case in score.cases)]
    with _emulated(score, models["edit_score"], folder=folder) as path:
        results = run_graph(path, inputs)
    wanted = [*wanted, *(dict(case.outputs) for case in score.cases)]
    return found | {"edit_score": (compare_scores("edit_score", results, wanted, precision="fp16"),)}


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
