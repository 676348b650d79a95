#!/usr/bin/env bash
# The ONNX parser of TensorRT-RTX 1.7.1.116 does not look at the domain of an operator: a node of any made-up domain with
# the name of a standard operator is built as that operator, without a warning. onnxruntime refuses the same file.
#
# Seen: "Relu" of the domain "example.invalid" parses without an error, as a layer of TensorRT; onnxruntime 1.32.0: "is
# not a registered function/op".
# Who hits it: whoever has custom operators whose names are also standard ones, and expects to be told that the
# operator is unknown; the engine then computes something else.
# Way round: check the domains of a graph before it is given to the parser.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0
cat > "$folder/show.py" <<'PYTHON'
import onnxruntime
import tensorrt_rtx as trt
from onnx import TensorProto, helper

DOMAIN = "example.invalid"
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (4,)) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], domain=DOMAIN)], "g", values[:1], values[1:])
opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()

logger = trt.Logger(trt.Logger.ERROR)
network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
parsed = parser.parse(content)
layers = [network.get_layer(index).type.name for index in range(network.num_layers)]
print("tensorrt_rtx", trt.__version__, "parsed:", parsed, "errors:", parser.num_errors, "layers:", layers)
try:
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    refused = ""
except Exception as error:
    refused = str(error)
print("onnxruntime", onnxruntime.__version__, "refused:", refused[:160])
assert parsed and parser.num_errors == 0 and layers == ["ACTIVATION"], (parsed, layers)
assert "not a registered function/op" in refused
print("as found")
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
