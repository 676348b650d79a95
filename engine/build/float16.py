"""Rewrites float32 ONNX graphs so that chosen models of them compute in float16. Knows nothing of executors.

TensorRT takes the precision of every operation from the graph ("strong typing"), so it is put there, by casts:

- Linear layers and convolutions, operations with a weight, are half; the last before each result, which costs next to
  nothing, stays full.
- Islands stay full: LayerNorm and softmax, which hand back a half result; and sums, means, powers, divisions, whose
  results stay full up to the next island or linear layer. So cosine attention is full from the length of queries and
  keys to its softmax, where a logit of up to 100 would lose its digits, and so are GeM pooling and L2 normalization.
- All else (activations, sums of two branches, moves of data) has the precision of its operands, the full one if they
  differ. So has the product of two activations.
- Where float16 cannot hold a constant, such as the floor of a length or a mask of -1e30, the operation stays full.

Pixels are normalized in float32; inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from engine.errors import EngineError

_EMBEDDING = "embedding"
_LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
_ISLANDS = frozenset({"LayerNormalization", "Softmax"})
_FULL = frozenset(
    {"Cast", "Div", "Exp", "Log", "Pow", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Sqrt"}
)
_MAX_SCALAR_ERROR = 1e-3
"""Relative rounding error from which on a single number counts as one that float16 cannot hold."""


@dataclass(frozen=True)
class Member:
    """A model in a graph: its name, the columns of ``embedding`` that it gives, and the places of its nodes."""

    name: str
    columns: slice
    nodes: frozenset[int]


def halve(onnx_in: Path, onnx_out: Path, *, names: Sequence[str], halved: Collection[str]) -> None:
    """Write a graph in which the models ``halved`` compute in float16; ``names`` are all of it, see `members`.

    Weights go to ``<onnx_out>.data``.
    """
    _write(onnx_in, onnx_out, names=names, halved=halved, rounding=_Half())


def emulate_half(onnx_in: Path, onnx_out: Path, *, names: Sequence[str], halved: Collection[str]) -> None:
    """Write the graph of `halve` in float32, with every value that is a float16 one there rounded to float16.

    Executors for CPUs run float16 operations in float32 and leave the rounding between them out. Here it stands in the
    graph, as casts there and back. Sums inside a matrix product or convolution are in float32, as on tensor cores.
    """
    _write(onnx_in, onnx_out, names=names, halved=halved, rounding=_Emulated())


def member_columns(onnx_path: Path, names: Sequence[str]) -> dict[str, slice]:
    """The columns of ``embedding`` that each model gives, see `members`; weights are not read."""
    model = onnx.load(onnx_path, load_external_data=False)
    return {member.name: member.columns for member in members(model, names)}


def members(model: onnx.ModelProto, names: Sequence[str]) -> list[Member]:
    """The models of a graph: ``names`` in the order in which ``embedding`` concatenates them, or the only one.

    A node belongs to the model whose result alone depends on it. Raises ``EngineError`` where ``names`` do not fit.
    """
    graph = model.graph
    everything = frozenset(range(len(graph.node)))
    if len(names) == 1:
        return [Member(names[0], slice(None), everything)]
    producers = {output: index for index, node in enumerate(graph.node) for output in node.output}
    concat = graph.node[producers[_EMBEDDING]] if _EMBEDDING in producers else None
    if concat is None or concat.op_type != "Concat" or len(concat.input) != len(names):
        raise EngineError(f"the graph does not concatenate the embeddings of {list(names)}; export it again")
    dims = _last_dims(model)
    ends = np.cumsum([dims[name] for name in concat.input])
    reached = [_ancestors(graph, [name], producers) for name in concat.input]
    for output in graph.output:
        if output.name != _EMBEDDING:  # features that one of the models gives on the way
            more = _ancestors(graph, [output.name], producers)
            max(reached, key=lambda nodes: len(nodes & more)).update(more)
    counts = np.bincount([index for nodes in reached for index in nodes], minlength=len(graph.node))
    return [
        Member(name, slice(int(end - dims[part]), int(end)), frozenset(i for i in nodes if counts[i] == 1))
        for name, part, end, nodes in zip(names, concat.input, ends, reached, strict=True)
    ]


class _Half:
    """Values of half precision are float16."""

    def constant(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        return values.astype(np.float16)

    def round(self, source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT16)]

    def widen(self, source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)]

    def computed(self, node: NodeProto) -> list[NodeProto]:
        return [node]


class _Emulated:
    """Values of half precision are float32 ones that float16 holds exactly."""

    def constant(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        return values.astype(np.float16).astype(np.float32)

    def round(self, source: str, target: str) -> list[NodeProto]:
        half = f"{target}.rounded"
        return [*_Half().round(source, half), *_Half().widen(half, target)]

    def widen(self, source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Identity", [source], [target])]

    def computed(self, node: NodeProto) -> list[NodeProto]:
        outputs = [name for name in node.output if name]
        del node.output[:]
        node.output.extend(f"{name}.exact" for name in outputs)
        return [node, *(cast for name in outputs for cast in self.round(f"{name}.exact", name))]


def _write(
    onnx_in: Path, onnx_out: Path, *, names: Sequence[str], halved: Collection[str], rounding: _Half | _Emulated
) -> None:
    model = onnx.load(onnx_in)
    _fold_weight_casts(model.graph)
    chosen = [member.nodes for member in members(model, names) if member.name in halved]
    _Rewriter(model, frozenset().union(*chosen), rounding).rewrite()
    data = onnx_out.with_name(f"{onnx_out.name}.data")
    data.unlink(missing_ok=True)  # onnx appends to it
    onnx.save(model, onnx_out, save_as_external_data=True, location=data.name)


@dataclass
class _Rewriter:
    """Rewrites a graph in place; ``nodes`` are the places of those that may be half."""

    model: onnx.ModelProto
    nodes: frozenset[int]
    rounding: _Half | _Emulated
    half_values: set[str] = field(default_factory=set)
    written: list[NodeProto] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.graph = self.model.graph
        self.floats = _float_values(self.model)
        self.weights = {weight.name: weight for weight in self.graph.initializer}
        self.outputs = {output.name for output in self.graph.output}
        self.heads = self._heads()

    def _heads(self) -> frozenset[str]:
        """The outputs of linear layers on which no other depends."""
        heads, feeding = set(), set[str]()
        for node in reversed(self.graph.node):
            is_layer = node.op_type in _LINEAR and any(name in self.weights for name in node.input)
            feeds = bool(feeding & set(node.output))
            if is_layer and not feeds:
                heads.add(node.output[0])
            if is_layer or feeds:
                feeding.update(node.input)
        return frozenset(heads)

    def rewrite(self) -> None:
        for index, node in enumerate(self.graph.node):
            if index in self.nodes and any(name in self.floats for name in node.output):
                self._rewrite_node(node)
            else:
                self._read_full(node)
                self.written.append(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.written)
        used = {name for node in self.written for name in node.input}
        for weight in [weight for weight in self.graph.initializer if weight.name not in used]:
            self.graph.initializer.remove(weight)

    def _rewrite_node(self, node: NodeProto) -> None:
        if node.op_type in _ISLANDS:
            self._read_full(node)
            self.written.append(node)
            self._hand_back_half(node)
        elif self._is_half(node):
            for place, name in enumerate(node.input):
                if name in self.floats:
                    node.input[place] = self._half(name)
            self.half_values.update(name for name in node.output if name in self.floats)
            results = [name for name in node.output if name in self.outputs]
            for name in results:
                self._rename_output(node, name, f"{name}.half")
            self.written += self.rounding.computed(node)
            for name in results:
                self.half_values.discard(name)
                self.written += self.rounding.widen(f"{name}.half", name)
        else:
            self._read_full(node)
            self.written.append(node)

    def _is_half(self, node: NodeProto) -> bool:
        floats = [name for name in node.input if name in self.floats]
        constants = [name for name in floats if name in self.weights]
        values = [name for name in floats if name not in self.weights]
        if (
            node.op_type in _FULL
            or node.output[0] in self.heads
            or not values
            or not all(self._fits(name) for name in constants)
        ):
            return False
        if node.op_type in _LINEAR and constants:
            return True
        # A product of two activations is half if one of them is: the other, a softmax or not, loses little.
        is_half = [name in self.half_values for name in values]
        return any(is_half) if node.op_type in _LINEAR else all(is_half)

    def _fits(self, name: str) -> bool:
        values = numpy_helper.to_array(self.weights[name])
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            return False
        return values.size > 1 or bool(np.all(np.abs(halved - values) <= _MAX_SCALAR_ERROR * np.abs(values)))

    def _half(self, name: str) -> str:
        if name in self.half_values:
            return name
        half = f"{name}.half"
        if half not in self.known:
            self.known.add(half)
            if name in self.weights:
                values = self.rounding.constant(numpy_helper.to_array(self.weights[name]))
                self.graph.initializer.append(numpy_helper.from_array(values, half))
            else:
                self.written += self.rounding.round(name, half)
        return half

    def _read_full(self, node: NodeProto) -> None:
        for place, name in enumerate(node.input):
            if name in self.half_values:
                full = f"{name}.full"
                if full not in self.known:
                    self.known.add(full)
                    self.written += self.rounding.widen(name, full)
                node.input[place] = full

    def _hand_back_half(self, node: NodeProto) -> None:
        [name] = [name for name in node.output if name]
        if name not in self.outputs:
            self._rename_output(node, name, f"{name}.island")
            self.written += self.rounding.round(f"{name}.island", name)
            self.half_values.add(name)

    def _rename_output(self, node: NodeProto, old: str, new: str) -> None:
        node.output[list(node.output).index(old)] = new


def _fold_weight_casts(graph: onnx.GraphProto) -> None:
    """Weights that `store_half` keeps as float16 become float32 ones again."""
    weights = {weight.name: weight for weight in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]:
        values = numpy_helper.to_array(weights[node.input[0]])
        dtype = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
        weights[node.input[0]].CopyFrom(numpy_helper.from_array(values.astype(dtype), node.output[0]))
        graph.node.remove(node)


def _float_values(model: onnx.ModelProto) -> set[str]:
    graph = _with_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}


def _last_dims(model: onnx.ModelProto) -> dict[str, int]:
    values = _with_shapes(model).graph.value_info
    return {value.name: value.type.tensor_type.shape.dim[-1].dim_value for value in values if _rank(value)}


def _rank(value: onnx.ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


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


def _ancestors(graph: onnx.GraphProto, values: Iterable[str], producers: dict[str, int]) -> set[int]:
    """The places of all nodes that ``values`` depend on."""
    found: set[int] = set()
    waiting = list(values)
    while waiting:
        index = producers.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting += graph.node[index].input
    return found
