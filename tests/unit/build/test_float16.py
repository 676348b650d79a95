"""Graphs in float16: what is float16 and what stays float32, and that a comparison through them is honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.build.float16 import emulate_float16, member_columns, to_float16
from engine.build.onnx_graph import store_float16
from engine.build.onnx_runtime import run_graph
from engine.errors import EngineError
from tests import graphs

FLOAT16, FLOAT32 = TensorProto.FLOAT16, TensorProto.FLOAT
RNG = np.random.default_rng(0)


def write(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, Any], *, outputs: tuple[str, ...]) -> Path:
    """A graph over ``x`` ``(rows, 4)``; weights are float32 unless they are integers."""
    arrays = {name: np.asarray(values) for name, values in weights.items()}
    initializers = [
        numpy_helper.from_array(array.astype(np.int64 if array.dtype.kind == "i" else np.float32), name)
        for name, array in arrays.items()
    ]
    given = [helper.make_tensor_value_info("x", FLOAT32, ["rows", 4])]
    made = [helper.make_tensor_value_info(name, FLOAT32, ["rows", f"{name}_columns"]) for name in outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "g", given, made, initializers),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


def rewritten(path: Path, *, names: tuple[str, ...] = ("m",), only: tuple[str, ...] | None = None) -> onnx.ModelProto:
    written = path.with_name("float16.onnx")
    to_float16(path, written, names=names, chosen=names if only is None else only)
    model = onnx.load(written)
    onnx.checker.check_model(model, full_check=True)  # the types of all operands fit: what strong typing asks for
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = [*model.graph.value_info, *model.graph.output, *model.graph.input]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {weight.name: weight.data_type for weight in model.graph.initializer}


def computed_in(model: onnx.ModelProto) -> list[tuple[str, int]]:
    """Operator and type of operands of each node that is not a cast."""
    known = types(model)
    found = []
    for each in model.graph.node:
        operands = {known[name] for name in each.input if known[name] in (FLOAT16, FLOAT32)}
        if each.op_type != "Cast":
            assert len(operands) == 1, each
            found.append((each.op_type, operands.pop()))
    return found


def test_layers_and_activations_are_float16_and_the_last_layer_is_float32(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("Gemm", "b w c", "d"), node("Gemm", "d w c", "y")]
    path = write(tmp_path / "g.onnx", nodes, {"w": RNG.standard_normal((4, 4)), "c": [1, 2, 3, 4.5]}, outputs=("y",))
    model = rewritten(path)
    assert computed_in(model) == [("MatMul", FLOAT16), ("Relu", FLOAT16), ("Gemm", FLOAT16), ("Gemm", FLOAT32)]
    assert types(model)["y"] == FLOAT32
    assert types(model)["d"] == FLOAT16


def test_each_result_has_its_last_layer(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("MatMul", "a w", "y"),
        node("Relu", "a", "b"),
        node("MatMul", "b w", "c"),
        node("Sigmoid", "c", "z"),
    ]
    model = rewritten(write(tmp_path / "g.onnx", nodes, {"w": np.eye(4)}, outputs=("y", "z")))
    assert [kind for _, kind in computed_in(model)] == [FLOAT16, FLOAT32, FLOAT16, FLOAT32, FLOAT32]


def test_a_float16_value_that_is_a_result_is_given_in_float32(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y"), node("Relu", "y", "b"), node("MatMul", "b w", "z")]
    model = rewritten(write(tmp_path / "g.onnx", nodes, {"w": np.eye(4)}, outputs=("y", "z")))
    assert [kind for _, kind in computed_in(model)] == [FLOAT16, FLOAT32, FLOAT32]
    assert (types(model)["y"], types(model)["z"]) == (FLOAT32, FLOAT32)


def test_a_result_that_feeds_a_float16_layer_is_rounded_once(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y"), node("MatMul", "y w", "c"), node("MatMul", "c w", "z")]
    model = rewritten(write(tmp_path / "g.onnx", nodes, {"w": np.eye(4)}, outputs=("y", "z")))
    assert [kind for _, kind in computed_in(model)] == [FLOAT16, FLOAT16, FLOAT32]


def test_layer_norm_and_softmax_are_islands(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("LayerNormalization", "a s s", "b"),
        node("Add", "b a", "c"),
        node("Softmax", "c", "d"),
        node("MatMul", "d w", "y"),
    ]
    model = rewritten(write(tmp_path / "g.onnx", nodes, {"w": np.eye(4), "s": np.ones(4)}, outputs=("y",)))
    assert computed_in(model) == [
        ("MatMul", FLOAT16),
        ("LayerNormalization", FLOAT32),
        ("Add", FLOAT16),
        ("Softmax", FLOAT32),
        ("MatMul", FLOAT32),
    ]


def test_cosine_attention_is_float32_from_the_lengths_to_the_softmax(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "q"),
        node("ReduceL2", "q axis", "length", keepdims=1),
        node("Clip", "length floor", "safe"),
        node("Div", "q safe", "unit"),
        node("Mul", "unit scale", "scaled"),
        node("Transpose", "unit", "turned", perm=[1, 0]),
        node("MatMul", "scaled turned", "scores"),
        node("Softmax", "scores", "weights"),
        node("MatMul", "weights q", "mixed"),
        node("MatMul", "mixed w", "projected"),
        node("MatMul", "projected w", "y"),
    ]
    weights = {"w": np.eye(4), "axis": [1], "floor": 1e-12, "scale": 100.0}
    model = rewritten(write(tmp_path / "g.onnx", nodes, weights, outputs=("y",)))
    kinds = [kind for _, kind in computed_in(model)]
    assert kinds == [FLOAT16, FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT16, FLOAT16, FLOAT32]


def test_a_cast_keeps_the_type_that_it_names(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Cast", "a", "b", to=FLOAT32),
        node("Add", "b b", "c"),
        node("MatMul", "c w", "y"),
    ]
    assert computed_in(rewritten(write(tmp_path / "g.onnx", nodes, {"w": np.eye(4)}, outputs=("y",)))) == [
        ("MatMul", FLOAT16),
        ("Add", FLOAT32),
        ("MatMul", FLOAT32),
    ]


@pytest.mark.parametrize("constant", [-1e30, -np.inf, 1e-12, 70000.0])
def test_constants_that_float16_cannot_hold_stay_float32(tmp_path: Path, constant: float) -> None:
    nodes = [node("MatMul", "x w", "a"), node("Add", "a c", "b"), node("MatMul", "b w", "y")]
    model = rewritten(write(tmp_path / "g.onnx", nodes, {"w": np.eye(4), "c": constant}, outputs=("y",)))
    assert computed_in(model) == [("MatMul", FLOAT16), ("Add", FLOAT32), ("MatMul", FLOAT32)]
    assert np.float32(constant) in [numpy_helper.to_array(each) for each in model.graph.initializer if not each.dims]


def test_a_large_weight_keeps_its_layer_float32(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x large", "a"), node("MatMul", "a w", "b"), node("MatMul", "b w", "y")]
    path = write(tmp_path / "g.onnx", nodes, {"large": np.eye(4) * 1e5, "w": np.eye(4)}, outputs=("y",))
    assert [kind for _, kind in computed_in(rewritten(path))] == [FLOAT32, FLOAT16, FLOAT32]


def two_models(path: Path) -> Path:
    """Two models of 3 and 5 columns that share a node; the second gives features too."""
    nodes = [
        node("Mul", "x two", "shared"),
        node("MatMul", "shared w4", "p"),
        node("MatMul", "p w3", "a"),
        node("MatMul", "shared w4", "q"),
        node("MatMul", "q w5", "b"),
        node("Relu", "b", "edit_features"),
        node("Concat", "a b", "embedding", axis=1),
    ]
    weights = {"two": 2.0, "w4": np.eye(4), "w3": RNG.standard_normal((4, 3)), "w5": RNG.standard_normal((4, 5))}
    return write(path, nodes, weights, outputs=("embedding", "edit_features"))


@pytest.mark.parametrize(
    ("only", "kinds"),
    [
        ((), [FLOAT32] * 7),
        (("one",), [FLOAT32, FLOAT16, FLOAT32, FLOAT32, FLOAT32, FLOAT32, FLOAT32]),
        (("two",), [FLOAT32, FLOAT32, FLOAT32, FLOAT16, FLOAT32, FLOAT32, FLOAT32]),
    ],
)
def test_only_the_chosen_models_are_float16_and_what_they_share_is_float32(
    tmp_path: Path, only: tuple[str, ...], kinds: list[int]
) -> None:
    path = two_models(tmp_path / "g.onnx")
    assert [kind for _, kind in computed_in(rewritten(path, names=("one", "two"), only=only))] == kinds
    assert member_columns(path, ("one", "two")) == {"one": slice(0, 3), "two": slice(3, 8)}


def test_a_graph_of_other_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not concatenate the embeddings of \['a', 'b', 'c'\]"):
        member_columns(two_models(tmp_path / "g.onnx"), ("a", "b", "c"))


def test_without_chosen_models_the_graph_computes_the_same(tmp_path: Path) -> None:
    graphs.write_ensemble(tmp_path / "g.onnx")
    to_float16(tmp_path / "g.onnx", tmp_path / "float32.onnx", names=("tiny_4", "tiny_8"), chosen=())
    before, after = (run_graph(tmp_path / name, [graphs.frames(3)])[0] for name in ("g.onnx", "float32.onnx"))
    np.testing.assert_array_equal(before["embedding"], after["embedding"])


@pytest.mark.parametrize("name", ["w.float16", "w.half"])  # the graphs of lite were written with the second one
def test_weights_that_were_stored_as_float16_are_used_as_they_are(tmp_path: Path, name: str) -> None:
    weights = RNG.integers(-9, 10, (4, 64))
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a last", "y")]
    path = write(tmp_path / "g.onnx", nodes, {"w": weights * 0.25, "last": np.ones((64, 1))}, outputs=("y",))
    store_float16(path, tmp_path / "stored.onnx")
    stored = onnx.load(tmp_path / "stored.onnx")
    stored.graph.initializer[0].name = stored.graph.node[0].input[0] = name
    onnx.save(stored, tmp_path / "stored.onnx")
    found = {each.name: numpy_helper.to_array(each) for each in rewritten(tmp_path / "stored.onnx").graph.initializer}
    np.testing.assert_array_equal(found["w.float16"], (weights * 0.25).astype(np.float16))
    assert found["last"].dtype == np.float32


def test_the_emulation_rounds_after_every_operation_in_the_executor(tmp_path: Path) -> None:
    # 2048 + 1 is 2048 in float16. An executor that leaves casts out, or computes in float32 between them, gives 2050.
    nodes = [
        node("MatMul", "x w", "a"),
        node("Add", "a one", "b"),
        node("Add", "b one", "c"),
        node("MatMul", "c w", "y"),
    ]
    path = write(tmp_path / "g.onnx", nodes, {"w": np.eye(4), "one": 1.0}, outputs=("y",))
    emulate_float16(path, tmp_path / "emulated.onnx", names=("m",), chosen=("m",))
    inputs = {"x": np.full((2, 4), 2048, np.float32)}
    [float32], [float16] = (run_graph(tmp_path / name, [inputs]) for name in ("g.onnx", "emulated.onnx"))
    assert (float32["y"] == 2050).all()
    assert (float16["y"] == 2048).all()


def test_the_emulation_rounds_where_the_rules_say(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Softmax", "a", "b"),
        node("Add", "b a", "c"),
        node("MatMul", "c w", "d"),
        node("ReduceL2", "d axis", "length", keepdims=1),
        node("Div", "d length", "e"),
        node("MatMul", "e w", "y"),
    ]
    weight = RNG.standard_normal((4, 4)).astype(np.float32)
    path = write(tmp_path / "g.onnx", nodes, {"w": weight, "axis": [1]}, outputs=("y",))
    emulate_float16(path, tmp_path / "emulated.onnx", names=("m",), chosen=("m",))
    x = RNG.standard_normal((200, 4)).astype(np.float32)
    [emulated], [float32] = (run_graph(tmp_path / name, [{"x": x}]) for name in ("emulated.onnx", "g.onnx"))

    def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
        return values.astype(np.float16).astype(np.float32)

    a = rounded(rounded(x) @ rounded(weight))
    exponentials = np.exp(a)
    c = rounded(rounded(exponentials / exponentials.sum(axis=1, keepdims=True)) + a)
    d = rounded(c @ rounded(weight))
    oracle = d / np.linalg.norm(d, axis=1, keepdims=True) @ weight
    # Sums in another order may round a value the other way now and then.
    assert np.abs(emulated["y"] - oracle).mean() < 0.02 * np.abs(emulated["y"] - float32["y"]).mean()
