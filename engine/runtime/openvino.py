"""Runs graphs on the CPU with OpenVINO, and compiles ONNX graphs to its format.

The bits of a row depend neither on the other rows of its batch, nor on their number, nor on the number of threads:
measured on x86-64 with AVX2 for the graphs of both presets. Another type of processor may give other bits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, ConfigError
from engine.runtime.runner import HOST_BATCH_SIZE, Tensors, TensorSpec, join_host_rows


@contextmanager
def _no_telemetry() -> Iterator[None]:
    # Importing openvino reports to Google Analytics and writes to ~/intel, unless this package cannot be imported.
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


try:
    with _no_telemetry():
        import openvino
except ImportError as _error:
    raise BackendUnavailable("engines for the CPU need openvino: pip install 'vsc-engine[cpu]'") from _error


class OpenVinoRunner:
    """A `Runner` over a graph in OpenVINO's format (``.xml`` beside ``.bin``), computing in float32.

    ``num_threads``: threads of one call; None takes all cores. Raises ``ConfigError`` if the file cannot be read. It
    runs on the CPU only: results of Swin transformers on an NPU are reported to be silently wrong.
    """

    def __init__(self, path: Path, *, num_threads: int | None = None) -> None:
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise ConfigError(f"OpenVINO cannot read {path}; build the engines again: {error}") from error
        self._num_threads = num_threads
        self._lock = threading.Lock()
        self._request: Any = None
        self.inputs = tuple(_spec(port) for port in self._model.inputs)
        self.outputs = tuple(_spec(port) for port in self._model.outputs)
        self.batch_size = HOST_BATCH_SIZE
        self._gives_rows = all(spec.shape[:1] == (None,) for spec in self.outputs)

    def __enter__(self) -> Self:
        # f32: processors with bfloat16 units would use them, and give other results than the rest.
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self._num_threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._num_threads
        # In a thread of its own: OpenVINO gives the thread that compiles another signal stack, and after several graphs
        # leaves it one that is freed. Ctrl-C in the main thread would then end in a segmentation fault.
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(self._core.compile_model, self._model, "CPU", options).result()
        self._request = compiled.create_infer_request()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._request = None

    def run(self, *parts: Tensors) -> dict[str, NDArray[Any]]:
        """Run n >= 1 rows; see `engine.runtime.Runner.run`."""
        tensors = join_host_rows(parts, self.inputs)
        # A row alone takes other kernels than a row among others, which change the last bits of SwinV2.
        is_alone = self._gives_rows and len(tensors[self.inputs[0].name]) == 1
        arrays = {name: np.repeat(array, 2 if is_alone else 1, axis=0) for name, array in tensors.items()}
        with self._lock:
            if self._request is None:
                raise RuntimeError("run() outside of the runner's context; use `with runner:`")
            self._request.infer(arrays, share_inputs=True)
            results = {spec.name: self._request.get_tensor(spec.name).data for spec in self.outputs}
            return {name: np.array(array[:1] if is_alone else array) for name, array in results.items()}


def compile_to_ir(onnx_path: Path, xml_path: Path) -> None:
    """Write an ONNX graph in OpenVINO's format, weights in float32: ``xml_path`` and a ``.bin`` beside it.

    Raises ``ConfigError`` if OpenVINO cannot read the graph.
    """
    try:
        model = openvino.Core().read_model(onnx_path)
    except RuntimeError as error:
        raise ConfigError(f"OpenVINO cannot read the graph {onnx_path}: {error}") from error
    openvino.save_model(model, xml_path, compress_to_fp16=False)


def _spec(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, shape)
