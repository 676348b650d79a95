"""Surgery on ONNX graphs without a framework: folds a PCA in, stores weights as float16. Knows nothing of executors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ConfigError
from engine.projection import Pca
from engine.runtime.runner import TensorSpec

EMBEDDING, DESCRIPTOR = "embedding", "descriptor"
PCA_WEIGHTS = _WEIGHT, _BIAS = "pca.weight", "pca.bias"
_MIN_HALVED_VALUES = 64


def fold_pca(onnx_in: Path, pca: Pca, onnx_out: Path) -> None:
    """Add the output ``descriptor`` ``(n, K)`` to a graph with an output ``embedding`` ``(n, E)``: a single GEMM.

    A PCA folded before is replaced. Weights in external files are neither read nor copied: ``onnx_out`` must lie in
    the folder of ``onnx_in``, and may be the same file. Raises ``ConfigError`` if the PCA does not fit the embedding,
    ``ValueError`` for another folder.
    """
    if onnx_out.parent.resolve() != onnx_in.parent.resolve():
        raise ValueError(f"{onnx_out} must lie beside {onnx_in}, whose external weights it refers to")
    model = onnx.load(onnx_in, load_external_data=False)
    num_dims, num_components = pca.weight.shape
    rows, embedding_dims = _embedding_shape(model.graph, onnx_in)
    if embedding_dims != num_dims:
        raise ConfigError(
            f"the PCA takes {num_dims} dimensions, the embedding of {onnx_in} has {embedding_dims}; "
            "fit it on embeddings of the same models"
        )
    _remove_fold(model.graph)
    model.graph.node.append(helper.make_node("Gemm", [EMBEDDING, _WEIGHT, _BIAS], [DESCRIPTOR], name="pca"))
    model.graph.initializer.append(numpy_helper.from_array(pca.weight, _WEIGHT))
    model.graph.initializer.append(numpy_helper.from_array(pca.bias, _BIAS))
    output = helper.make_tensor_value_info(DESCRIPTOR, TensorProto.FLOAT, [rows, num_components])
    model.graph.output.append(output)
    onnx.save(model, onnx_out)


def io_specs(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and the outputs of a graph; weights are not read."""
    graph = onnx.load(path, load_external_data=False).graph
    return tuple(map(_spec, graph.input)), tuple(map(_spec, graph.output))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(None if dim.dim_param else dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


def store_half(onnx_in: Path, onnx_out: Path) -> None:
    """Write a graph as one file, with those float32 weights as float16 that lose nothing by it, each cast back.

    The graph computes the same to the last bit. Small weights stay as they are.
    """
    model = onnx.load(onnx_in)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if values.size >= _MIN_HALVED_VALUES and np.array_equal(halved.astype(np.float32), values):
            weight.CopyFrom(numpy_helper.from_array(halved, f"{name}.half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx_out.write_bytes(model.SerializeToString(deterministic=True))


def _embedding_shape(graph: onnx.GraphProto, path: Path) -> tuple[str, int]:
    """Name of the dynamic dimension, and E."""
    for output in graph.output:
        if output.name == EMBEDDING:
            rows, dims = output.type.tensor_type.shape.dim
            return rows.dim_param, dims.dim_value
    raise ConfigError(f"{path} has no output {EMBEDDING!r} to project, only {[output.name for output in graph.output]}")


def _remove_fold(graph: onnx.GraphProto) -> None:
    for entries, names in (
        (graph.node, {"pca"}),
        (graph.initializer, {_WEIGHT, _BIAS}),
        (graph.output, {DESCRIPTOR}),
    ):
        for entry in [entry for entry in entries if entry.name in names]:
            entries.remove(entry)
