"""Runs graphs on the CPU with OpenVINO, and compiles ONNX graphs to its format.

The bits of a row depend neither on the other rows of its batch, nor on their number, nor on the number of threads:
measured on x86-64 with AVX2 for the graphs of both presets. Another type of processor may give other bits.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, ConfigError
from engine.runtime.manifest import Precision
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


_MAX_REQUESTS = 2
_ROWS_PER_REQUEST = 2
"""Each row of `lite` takes 9 MB of intermediate results: fewer stay in the cache of a core, and memory is less."""

_PRECISION_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 (AVX512_BF16 or AMX); others could only imitate it."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_name() -> str:
    """What the CPU calls itself."""
    return str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"))


class OpenVinoRunner:
    """A `Runner` over a graph in OpenVINO's format (``.xml`` beside ``.bin``).

    ``num_threads``: threads of one call; None takes all cores. ``precision``: ``fp32`` or ``bf16``. ``unwanted``:
    outputs that are left out, with all that only they need. Raises ``ConfigError`` if the file cannot be read, and on a
    CPU without bfloat16 for ``bf16``. It runs on the CPU only: results of Swin transformers on an NPU are reported to
    be silently wrong.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_threads: int | None = None,
        precision: Precision = "fp32",
        unwanted: Collection[str] = (),
    ) -> None:
        self._core = openvino.Core()
        if precision == "bf16" and not has_bfloat16():
            raise ConfigError(
                f"{path} is to compute in bfloat16, and {cpu_name()} has neither AVX512_BF16 nor AMX; take a machine "
                "that has, or build engines with --precision fp32"
            )
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise ConfigError(f"OpenVINO cannot read {path}; build the engines again: {error}") from error
        for result, port in list(zip(self._model.get_results(), self._model.outputs, strict=True)):
            if port.get_any_name() in unwanted:
                self._model.remove_result(result)
        self._num_threads = num_threads
        self._precision = precision
        self._lock = threading.Lock()
        self._requests: list[Any] = []
        self.inputs = tuple(_spec(port) for port in self._model.inputs)
        self.outputs = tuple(_spec(port) for port in self._model.outputs)
        self.batch_size = HOST_BATCH_SIZE
        self._gives_rows = all(spec.shape[:1] == (None,) for spec in self.outputs)

    def __enter__(self) -> Self:
        num_threads = self._num_threads or os.cpu_count() or 1
        # Threads that share one request wait for each other at every operation.
        num_streams = min(num_threads, _MAX_REQUESTS) if self._gives_rows else 1
        # Without the hint processors with bfloat16 units would use them, and give other results than the rest.
        hint = _PRECISION_HINTS[self._precision]
        options: dict[str, Any] = {"NUM_STREAMS": num_streams, "INFERENCE_PRECISION_HINT": hint}
        if self._num_threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._num_threads
        # In a thread of its own: OpenVINO gives the thread that compiles another signal stack, and after several graphs
        # leaves it one that is freed. Ctrl-C in the main thread would then end in a segmentation fault.
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(self._core.compile_model, self._model, "CPU", options).result()
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if taken != hint:
            raise ConfigError(f"OpenVINO computes in {taken} on {cpu_name()}, where {hint} was asked for")
        self._requests = [compiled.create_infer_request() for _ in range(num_streams)]
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._requests = []

    def run(self, *parts: Tensors) -> dict[str, NDArray[Any]]:
        """Run n >= 1 rows; see `engine.runtime.Runner.run`."""
        tensors = join_host_rows(parts, self.inputs)
        num_rows = len(tensors[self.inputs[0].name])
        if not self._gives_rows:
            return self._run_requests([tensors])[0]
        if num_rows == 1:
            # A row alone takes other kernels than a row among others, which change the last bits of SwinV2.
            twice = {name: np.repeat(array, 2, axis=0) for name, array in tensors.items()}
            return {name: array[:1] for name, array in self._run_requests([twice])[0].items()}
        num_requests = max(1, num_rows // _ROWS_PER_REQUEST)  # of an odd number one has three rows, never one alone
        borders = [num_rows * place // num_requests for place in range(num_requests + 1)]
        pieces = [{name: array[start:stop] for name, array in tensors.items()} for start, stop in pairwise(borders)]
        results = self._run_requests(pieces)
        return {spec.name: np.concatenate([result[spec.name] for result in results]) for spec in self.outputs}

    def _run_requests(self, pieces: list[dict[str, NDArray[Any]]]) -> list[dict[str, NDArray[Any]]]:
        """The outputs of each piece; as many are computed side by side as there are requests."""
        results = []
        with self._lock:
            if not self._requests:
                raise RuntimeError("run() outside of the runner's context; use `with runner:`")
            for start in range(0, len(pieces), len(self._requests)):
                running = list(zip(self._requests, pieces[start : start + len(self._requests)], strict=False))
                try:
                    for request, piece in running:
                        request.start_async(piece, share_inputs=True)
                finally:  # none may go on with arrays that an interrupt or an error has freed
                    for request, _ in running:
                        request.wait()
                for request, _ in running:
                    results.append({spec.name: np.array(request.get_tensor(spec.name).data) for spec in self.outputs})
        return results


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
