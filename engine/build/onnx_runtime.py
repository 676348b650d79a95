"""Runs ONNX graphs on the CPU node by node, exactly as they are written. Slow; for checks while engines are built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import BackendUnavailable, ConfigError
from engine.runtime.runner import Tensors

try:
    import onnxruntime
except ImportError as _error:
    raise BackendUnavailable(
        "building TensorRT engines needs onnxruntime: pip install 'vsc-engine[tensorrt-rtx]'"
    ) from _error


def run_graph(path: Path, inputs: Iterable[Tensors]) -> list[dict[str, NDArray[Any]]]:
    """What the graph gives for each of ``inputs``: ``{output name: array}``.

    Nothing is fused and no cast is left out, so that each rounding that stands in the graph takes place. Raises
    ``ConfigError`` if the graph cannot be read.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of its own that share no base
        raise ConfigError(f"ONNX Runtime cannot read the graph {path}: {error}") from error
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(tensors)), strict=True)) for tensors in inputs]
