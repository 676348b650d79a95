"""What bfloat16 does to the results of a preset's models on this CPU, against float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.build.comparison import Sample, compare_descriptors, compare_scores, graph_models, with_edits
from engine.config import ClipGate, EnsembleGate, Preset
from engine.runtime.manifest import Comparison, Precision
from engine.runtime.openvino import OpenVinoRunner
from engine.runtime.runner import Tensors

_FEATURES = "edit_features"


def compare_bfloat16(samples: Mapping[str, Sample], preset: Preset, *, name: str) -> tuple[Comparison, ...]:
    """What bfloat16 does to each model of graph ``name``, ``ensemble`` or ``edit_features``.

    ``samples``: of every graph of the preset. Descriptors are compared by their cosine, features of the gate by the
    edit score that comes of them in float32.
    """
    path = samples[name].path
    sample = with_edits(samples[name], partial(_run, path, precision="fp32"))
    inputs = [case.inputs for case in sample.cases]
    results = _run(path, inputs, precision="bf16")
    found: tuple[Comparison, ...] = ()
    if name == "ensemble":
        # With a gate that is off its features are left out, operations are joined otherwise and round elsewhere.
        without = _run(path, inputs, precision="bf16", unwanted=[_FEATURES])
        both = Sample(path, [*sample.cases, *sample.cases])
        found = compare_descriptors(both, [*results, *without], graph_models(preset)[name], precision="bf16")
    if name == "ensemble" and isinstance(preset.gate, EnsembleGate):
        model, output = preset.gate.model, _FEATURES
    elif name == _FEATURES and isinstance(preset.gate, ClipGate):
        model, output = _FEATURES, "features"
    else:
        return found
    score, rows = partial(_run, samples["edit_score"].path, precision="fp32"), [case.outputs for case in sample.cases]
    got, wanted = ([{"features": row[output]} for row in outputs] for outputs in (results, rows))
    return (*found, compare_scores(model, score(got), score(wanted), precision="bf16"))


def _run(
    path: Path, inputs: Sequence[Tensors], *, precision: Precision, unwanted: Collection[str] = ()
) -> list[dict[str, NDArray[Any]]]:
    with OpenVinoRunner(path, precision=precision, unwanted=unwanted) as runner:
        return [runner.run(tensors) for tensors in inputs]
