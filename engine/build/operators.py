"""Which ONNX operators TensorRT takes, and whether a graph keeps to them. Knows nothing of how graphs are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from engine.errors import EngineError

SOURCE = "docs/operators.md of onnx-tensorrt for TensorRT 10.15, and the parser of TensorRT-RTX 1.7.1"
OPSETS = range(9, 25)
_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow
    Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization
    HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear
    RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scan Scatter ScatterElements ScatterND Selu Shape
    Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
"""Operators of ONNX that both parts of `SOURCE` name as supported, for some types and attributes at least."""


def check_operators(path: Path) -> None:
    """Raise ``EngineError`` that names all that TensorRT does not take in a graph; weights are not read.

    Beside unknown operators this is uint8 in any operation but a cast, which its inputs must go through first, and
    float64, which it would narrow without a word.
    """
    model = onnx.load(path, load_external_data=False)
    problems = list(_problems(model))
    if problems:
        raise EngineError(
            f"TensorRT does not take the graph {path.name}: {'; '.join(problems)}. Write the model in other "
            f"operations, or convert it with --frontend torch-tensorrt (supported: {SOURCE})"
        )


def _problems(model: onnx.ModelProto) -> Iterator[str]:
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version not in OPSETS:
            yield f"opset {opset.version}, expected {OPSETS.start} to {OPSETS.stop - 1}"
    unknown: dict[str, str] = {}
    for node in model.graph.node:
        name = node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"
        if name not in OPERATORS:
            unknown.setdefault(name, node.output[0])
    yield from (f"operator {name} (gives {output!r})" for name, output in sorted(unknown.items()))
    graph = model.graph
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for node in graph.node:
        if node.op_type != "Cast" and pixels & set(node.input):
            yield f"{node.op_type} reads uint8 (gives {node.output[0]!r}), cast it first"
    values = [*graph.input, *graph.output, *graph.value_info]
    doubles = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.DOUBLE}
    doubles |= {weight.name for weight in graph.initializer if weight.data_type == TensorProto.DOUBLE}
    if doubles:
        yield f"{len(doubles)} values are float64, such as {min(doubles)!r}"
