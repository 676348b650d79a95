#!/usr/bin/env bash
# TensorRT-RTX 1.7.1.116 builds no float32 MatMul for compute capability 7.5 (Turing), but the same numbers as a 1x1
# convolution. No GPU is needed to see it: engines are built ahead of time.
#
# Seen: for 8.6 both graphs build; for 7.5 the product is refused ("FP32 GEMM is not supported"), the convolution builds.
# Who hits it: whoever builds a network with a linear layer, in float32, for every GPU that TensorRT-RTX names.
# Way round: Reshape to one pixel, Conv with a 1x1 kernel, Reshape back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper


class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.errors = []

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def model(nodes, weight, in_shape, out_shape):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in (("x", in_shape), ("y", out_shape))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


weight = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
GRAPHS = {
    "MatMul": model([helper.make_node("MatMul", ["x", "w"], ["y"])], weight, (4, 32), (4, 16)),
    "Conv 1x1": model([helper.make_node("Conv", ["x", "w"], ["y"])], weight.T.copy()[..., None, None],
                      (4, 32, 1, 1), (4, 16, 1, 1)),
}


def build(graph, capability):
    onnx.checker.check_model(graph)
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(graph.SerializeToString())
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    return builder.build_serialized_network(network, config) is not None, log.errors


print("tensorrt_rtx", trt.__version__)
found = {}
for name, graph in GRAPHS.items():
    for capability in ("SM86", "SM75"):
        found[name, capability], errors = build(graph, capability)
        print(f"{name:<9} {capability}: {'builds' if found[name, capability] else 'refused: ' + errors[0][:110]}")
        if (name, capability) == ("MatMul", "SM75"):
            assert any("FP32 GEMM is not supported" in error for error in errors), errors
assert found == {("MatMul", "SM86"): True, ("MatMul", "SM75"): False,
                 ("Conv 1x1", "SM86"): True, ("Conv 1x1", "SM75"): True}, found
print("as found")
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
