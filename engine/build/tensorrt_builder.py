"""Builds TensorRT engines from ONNX graphs, with TensorRT for data centres or with TensorRT-RTX. Runs none of them.

Both take the same calls. TensorRT for data centres builds for the GPU of this machine. TensorRT-RTX needs no GPU and
builds for any of its compute capabilities, several in one engine (built and measured with 1.7.1); it must not be given
a timing cache, which asks for a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.build.onnx_graph import float64_values, foreign_operators
from engine.errors import ConfigError, EngineError
from engine.runtime.manifest import RowProfile
from engine.runtime.tensorrt_library import ErrorLog, TensorRt, one_line

_WAYS_OUT = "write the model in other operations, or convert it with --frontend torch-tensorrt"


def check_targets(tensorrt: TensorRt, compute_capabilities: Sequence[str]) -> None:
    """Raise ``ConfigError`` where engines for these GPUs, such as ``8.6``, cannot be built."""
    if tensorrt.flavour == "tensorrt" and compute_capabilities:
        raise ConfigError(
            "TensorRT for data centres builds for the GPU of this machine only; leave --compute-capability out, or "
            "build ahead of time with --flavour tensorrt_rtx"
        )
    unknown = [name for name in compute_capabilities if name not in tensorrt.compute_capabilities]
    if unknown:
        raise ConfigError(
            f"{tensorrt.flavour} {tensorrt.version} does not build for compute capability {', '.join(unknown)}; "
            f"expected {', '.join(tensorrt.compute_capabilities)}"
        )


def build_engine(
    tensorrt: TensorRt,
    onnx_path: Path,
    engine_path: Path,
    *,
    profile: RowProfile,
    compute_capabilities: Sequence[str],
) -> float:
    """Write the engine of a graph and return the seconds that TensorRT took.

    The network is strongly typed: precisions are those of the graph. The first dimension of every input takes the rows
    of ``profile``. ``compute_capabilities``: of TensorRT-RTX's targets; none for the GPU of this machine.
    Raises ``EngineError`` if TensorRT does not take the graph, and for what it would change without a word: float64,
    which it narrows, and operators of another domain than ONNX's, which it takes for the standard ones of their names
    (`findings/tensorrt_parser_ignores_domain.sh`).
    """
    if foreign := foreign_operators(onnx_path):
        name, domain = foreign[0]
        raise EngineError(f"{onnx_path.name}: operator {name} is of the domain {domain!r}, not ONNX's own; {_WAYS_OUT}")
    if doubles := float64_values(onnx_path):
        raise EngineError(f"{onnx_path.name}: {len(doubles)} values are float64, such as {min(doubles)!r}; {_WAYS_OUT}")
    trt = tensorrt.module
    log = ErrorLog(trt)
    start_s = time.perf_counter()
    builder = log.call(trt.Builder, doing="start")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(onnx_path)):
        found = _parser_errors(parser) or log.last
        raise EngineError(f"{tensorrt.flavour} {tensorrt.version} cannot parse {onnx_path.name}: {found}; {_WAYS_OUT}")
    config = builder.create_builder_config()
    # On by default: it would round the factors of float32 products to the 10 bits that float16 has.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(builder, network, profile))
    if compute_capabilities:
        config.num_compute_capabilities = len(compute_capabilities)
        for index, name in enumerate(compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}"), index)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{tensorrt.flavour} {tensorrt.version} cannot build {onnx_path.name}: {log.last}")
    engine_path.write_bytes(plan)
    return time.perf_counter() - start_s


def _parser_errors(parser: Any) -> str:
    found = []
    for error in map(parser.get_error, range(parser.num_errors)):
        node = " ".join(filter(None, (error.node_operator(), error.node_name())))
        found.append(f"operator {node}: {one_line(error.desc())}")
    return "; ".join(found)


def _profile(builder: Any, network: Any, rows: RowProfile) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((count, *shape) for count in (rows.min_rows, rows.opt_rows, rows.max_rows)))
    return profile
