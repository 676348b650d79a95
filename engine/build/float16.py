"""Rewrites float32 ONNX graphs so that chosen models of them compute in float16.

TensorRT takes the precision of every operation from the graph ("strong typing"), so it is put there, by casts:

- Linear layers and convolutions, operations with a weight, are float16; the last before each result, which costs next
  to nothing, stays float32.
- Islands stay float32: LayerNorm and softmax, which give a float16 result; and sums, means, powers, divisions, whose
  results stay float32 up to the next island or linear layer. So cosine attention is float32 from the length of
  queries and keys to its softmax, where a logit of up to 100 would lose its digits; so are GeM and L2 normalization.
- All else (activations, sums of two branches, moves of data) has the precision of its operands, float32 if they
  differ. So has the product of two activations.
- Where float16 cannot hold a constant, such as the floor of a length or a mask of -1e30, the operation stays float32.

Pixels are normalized in float32; inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from engine.build.onnx_graph import float_values, replace_nodes, save_external, value_shapes
from engine.errors import EngineError

_EMBEDDING = "embedding"
_LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
_ISLANDS = frozenset({"LayerNormalization", "Softmax"})
_FLOAT32 = frozenset(
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


def to_float16(onnx_in: Path, onnx_out: Path, *, names: Sequence[str], chosen: Collection[str]) -> None:
    """Write a graph in which the models ``chosen`` compute in float16; ``names`` are all of it, see `members`.

    Weights go to ``<onnx_out>.data``.
    """
    _write(onnx_in, onnx_out, names=names, chosen=chosen, rounding=_Float16())


def emulate_float16(onnx_in: Path, onnx_out: Path, *, names: Sequence[str], chosen: Collection[str]) -> None:
    """Write the graph of `to_float16` in float32, with every value that is a float16 one there rounded to float16.

    Executors for CPUs run float16 operations in float32 and leave the rounding between them out. Here it stands in the
    graph, as casts there and back. Sums inside a matrix product or convolution are in float32, as on tensor cores.
    """
    _write(onnx_in, onnx_out, names=names, chosen=chosen, rounding=_Emulated())


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
    dims = {name: shape[-1] for name, shape in value_shapes(model).items() if shape}
    widths = [int(dims[name] or 0) for name in concat.input]
    ends = np.cumsum(widths)
    reached = [_ancestors(graph, [name], producers) for name in concat.input]
    for output in graph.output:
        if output.name != _EMBEDDING:  # features that one of the models gives on the way
            more = _ancestors(graph, [output.name], producers)
            max(reached, key=lambda nodes: len(nodes & more)).update(more)
    counts = np.bincount([index for nodes in reached for index in nodes], minlength=len(graph.node))
    return [
        Member(name, slice(int(end) - width, int(end)), frozenset(i for i in nodes if counts[i] == 1))
        for name, width, end, nodes in zip(names, widths, ends, reached, strict=True)
    ]


class _Float16:
    """Values rounded to float16 are float16."""

    def constant(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        return values.astype(np.float16)

    def round(self, source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT16)]

    def widen(self, source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)]

    def computed(self, node: NodeProto) -> list[NodeProto]:
        return [node]


class _Emulated:
    """Values rounded to float16 are float32 ones that float16 holds exactly."""

    def constant(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        return values.astype(np.float16).astype(np.float32)

    def round(self, source: str, target: str) -> list[NodeProto]:
        rounded = f"{target}.rounded"
        return [*_Float16().round(source, rounded), *_Float16().widen(rounded, target)]

    def widen(self, source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Identity", [source], [target])]

    def computed(self, node: NodeProto) -> list[NodeProto]:
        outputs = [name for name in node.output if name]
        del node.output[:]
        node.output.extend(f"{name}.exact" for name in outputs)
        return [node, *(cast for name in outputs for cast in self.round(f"{name}.exact", name))]


def _write(
    onnx_in: Path, onnx_out: Path, *, names: Sequence[str], chosen: Collection[str], rounding: _Float16 | _Emulated
) -> None:
    model = onnx.load(onnx_in)
    _fold_weight_casts(model.graph)
    nodes = [member.nodes for member in members(model, names) if member.name in chosen]
    _Rewriter(model, frozenset().union(*nodes), rounding).rewrite()
    save_external(model, onnx_out)


@dataclass
class _Rewriter:
    """Rewrites a graph in place; ``nodes`` are the places of those that may be float16."""

    model: onnx.ModelProto
    nodes: frozenset[int]
    rounding: _Float16 | _Emulated
    float16_values: set[str] = field(default_factory=set)
    written: list[NodeProto] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.graph = self.model.graph
        self.floats = float_values(self.model)
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
            is_chosen = index in self.nodes and any(name in self.floats for name in node.output)
            is_island = node.op_type in _ISLANDS
            if is_chosen and not is_island and self._is_float16(node):
                self._write_float16(node)
            else:
                self._read_float32(node)
                self.written.append(node)
                if is_chosen and is_island:
                    self._give_float16(node)
        del self.graph.value_info[:]
        replace_nodes(self.graph, self.written)

    def _write_float16(self, node: NodeProto) -> None:
        for place, name in enumerate(node.input):
            if name in self.floats:
                node.input[place] = self._in_float16(name)
        self.float16_values.update(name for name in node.output if name in self.floats)
        results = [name for name in node.output if name in self.outputs]
        for name in results:
            self._rename_output(node, name, f"{name}.float16")
        self.written += self.rounding.computed(node)
        for name in results:
            self.float16_values.discard(name)
            self.known.add(f"{name}.float16")
            self.written += self.rounding.widen(f"{name}.float16", name)

    def _is_float16(self, node: NodeProto) -> bool:
        floats = [name for name in node.input if name in self.floats]
        constants = [name for name in floats if name in self.weights]
        values = [name for name in floats if name not in self.weights]
        if (
            node.op_type in _FLOAT32
            or node.output[0] in self.heads
            or not values
            or not all(self._fits(name) for name in constants)
        ):
            return False
        if node.op_type in _LINEAR and constants:
            return True
        # A product of two activations is float16 if one of them is: the other, a softmax or not, loses little.
        known = [name in self.float16_values for name in values]
        return any(known) if node.op_type in _LINEAR else all(known)

    def _fits(self, name: str) -> bool:
        values = numpy_helper.to_array(self.weights[name])
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if not np.isfinite(rounded).all():
            return False
        return values.size > 1 or bool(np.all(np.abs(rounded - values) <= _MAX_SCALAR_ERROR * np.abs(values)))

    def _in_float16(self, name: str) -> str:
        if name in self.float16_values:
            return name
        rounded = f"{name}.float16"
        if rounded not in self.known:
            self.known.add(rounded)
            if name in self.weights:
                values = self.rounding.constant(numpy_helper.to_array(self.weights[name]))
                self.graph.initializer.append(numpy_helper.from_array(values, rounded))
            else:
                self.written += self.rounding.round(name, rounded)
        return rounded

    def _read_float32(self, node: NodeProto) -> None:
        for place, name in enumerate(node.input):
            if name in self.float16_values:
                wide = f"{name}.float32"
                if wide not in self.known:
                    self.known.add(wide)
                    self.written += self.rounding.widen(name, wide)
                node.input[place] = wide

    def _give_float16(self, node: NodeProto) -> None:
        [name] = [name for name in node.output if name]
        if name not in self.outputs:
            self._rename_output(node, name, f"{name}.island")
            self.written += self.rounding.round(f"{name}.island", name)
            self.float16_values.add(name)

    def _rename_output(self, node: NodeProto, old: str, new: str) -> None:
        node.output[list(node.output).index(old)] = new


def _fold_weight_casts(graph: onnx.GraphProto) -> None:
    """Weights that `store_float16` keeps as float16 become float32 ones again."""
    weights = {weight.name: weight for weight in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]:
        values = numpy_helper.to_array(weights[node.input[0]])
        dtype = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
        weights[node.input[0]].CopyFrom(numpy_helper.from_array(values.astype(dtype), node.output[0]))
        graph.node.remove(node)


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
