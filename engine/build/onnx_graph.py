"""Surgery on ONNX graphs without a framework: folds a PCA in, stores weights as float16, infers shapes and types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from engine.errors import ConfigError
from engine.projection import Pca
from engine.runtime.runner import TensorSpec

EMBEDDING, DESCRIPTOR = "embedding", "descriptor"
_MIN_STORED_VALUES = 64
_OWN_DOMAINS = ("", "ai.onnx")


def fold_pca(onnx_in: Path, pca: Pca, onnx_out: Path) -> None:
    """Add the output ``descriptor`` ``(n, K)`` to a graph with an output ``embedding`` ``(n, E)``: a single GEMM.

    Weights in external files are neither read nor copied: ``onnx_out`` must lie in the folder of ``onnx_in``, and may
    be the same file. Raises ``ConfigError`` if the PCA does not fit the embedding, ``ValueError`` for another folder.
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
    weights = numpy_helper.from_array(pca.weight, "pca.weight"), numpy_helper.from_array(pca.bias, "pca.bias")
    names = [EMBEDDING, *(weight.name for weight in weights)]
    model.graph.node.append(helper.make_node("Gemm", names, [DESCRIPTOR], name="pca"))
    model.graph.initializer.extend(weights)
    output = helper.make_tensor_value_info(DESCRIPTOR, TensorProto.FLOAT, [rows, num_components])
    model.graph.output.append(output)
    onnx.save(model, onnx_out)


def io_specs(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and the outputs of a graph; weights are not read."""
    graph = onnx.load(path, load_external_data=False).graph
    return tuple(map(_spec, graph.input)), tuple(map(_spec, graph.output))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    return TensorSpec(value.name, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name, _shape(value))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)


def store_float16(onnx_in: Path, onnx_out: Path) -> None:
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
            rounded = values.astype(np.float16)
        if values.size >= _MIN_STORED_VALUES and np.array_equal(rounded.astype(np.float32), values):
            weight.CopyFrom(numpy_helper.from_array(rounded, f"{name}.float16"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    replace_nodes(model.graph, [*casts, *model.graph.node])
    onnx_out.write_bytes(model.SerializeToString(deterministic=True))


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Make ``nodes`` those of a graph, and drop the weights that none of them takes."""
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)


def save_external(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph whose weights, all loaded, go to ``<path>.data``."""
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # onnx appends to it
    onnx.save(model, path, save_as_external_data=True, location=data.name)


def float_values(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 values, weights among them."""
    return _values_of(model, TensorProto.FLOAT)


def float64_values(path: Path) -> set[str]:
    """The names of all float64 values of a graph; weights are not read."""
    return _values_of(onnx.load(path, load_external_data=False), TensorProto.DOUBLE)


def foreign_operators(path: Path) -> list[tuple[str, str]]:
    """Names and domains of the operators that neither ONNX nor the graph's file defines; weights are not read."""
    model = onnx.load(path, load_external_data=False)
    defined = {(function.name, function.domain) for function in model.functions}
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    used = dict.fromkeys((node.op_type, node.domain) for node in nodes if node.domain not in _OWN_DOMAINS)
    return [operator for operator in used if operator not in defined]


def value_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shape of every value that has a known one, None for a dimension that the caller chooses."""
    graph = _with_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")}


def _values_of(model: onnx.ModelProto, kind: int) -> set[str]:
    graph = _with_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return found | {weight.name for weight in graph.initializer if weight.data_type == kind}


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the type of every value, without the bytes of its large weights."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    for field_name in ("node", "input", "output", "value_info"):
        getattr(light.graph, field_name).extend(getattr(model.graph, field_name))
    for weight in model.graph.initializer:
        kept = light.graph.initializer.add()
        if weight.data_type == TensorProto.INT64:  # shapes
            kept.CopyFrom(weight)
        else:
            kept.name, kept.data_type = weight.name, weight.data_type
            kept.dims.extend(weight.dims)
    return shape_inference.infer_shapes(light)


def _embedding_shape(graph: onnx.GraphProto, path: Path) -> tuple[str, int]:
    """Name of the dynamic dimension, and E."""
    for output in graph.output:
        if output.name == EMBEDDING:
            rows, dims = output.type.tensor_type.shape.dim
            return rows.dim_param, dims.dim_value
    raise ConfigError(f"{path} has no output {EMBEDDING!r} to project, only {[output.name for output in graph.output]}")
