"""Loads TensorRT engines on a GPU and computes with them: ``tensorrt`` and ``tensorrt_rtx``, one code. Builds nothing."""

from __future__ import annotations

import importlib
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import BackendUnavailable, EngineError
from engine.runtime import TensorSpec
from engine.runtime.cuda import MIB, DeviceMemory, Gpu, Stream, devices
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.fit import check_tensorrt_engine
from engine.runtime.manifest import Flavour, Manifest

logger = logging.getLogger(__name__)

_PACKAGES = {"tensorrt": "gpu", "tensorrt_rtx": "tensorrt-rtx"}


def load_flavour(flavour: Flavour) -> ModuleType:
    """The Python module of a flavour. Raises ``BackendUnavailable`` if it is not installed."""
    try:
        return importlib.import_module(flavour)
    except ImportError as error:
        raise BackendUnavailable(
            f"these engines need {flavour} ({error}): pip install 'vsc-engine[{_PACKAGES[flavour]}]'"
        ) from error


def open_tensorrt_runner(manifest: Manifest, directory: Path, name: str, *, batch_size: int | None = None) -> DeviceRunner:
    """A runner of engine ``name`` on the first GPU that this process sees; ``CUDA_VISIBLE_DEVICES`` chooses it.

    ``batch_size``: rows of one computation, None for what the engine is tuned for. Raises ``BackendUnavailable``
    without a GPU, driver or library, ``ConfigError`` if the engine does not fit the GPU, the library or the manifest.
    """
    device = devices()[0]
    engine = manifest.engines[name]
    flavour = engine.tensorrt.flavour if engine.tensorrt is not None else "tensorrt"
    version: str = load_flavour(flavour).__version__
    facts = check_tensorrt_engine(
        manifest, name, directory, flavour=flavour, version=version, compute_capability=device.capability
    )
    logger.info("%s: %s %s on GPU %d, %s", name, flavour, version, device.index, device)
    gpu, path = Gpu(device), engine.main_path(directory)
    return DeviceRunner(
        lambda: TensorRtExecution(path, flavour=flavour, inputs=engine.inputs, gpu=gpu),
        gpu=gpu,
        name=name,
        inputs=engine.inputs,
        outputs=engine.outputs,
        profile=facts.profile,
        batch_size=batch_size,
    )


class TensorRtExecution:
    """A `engine.runtime.device_runner.Execution` by TensorRT. Made in a current context.

    Raises ``EngineError`` if TensorRT cannot load the file.
    """

    def __init__(self, path: Path, *, flavour: Flavour, inputs: tuple[TensorSpec, ...], gpu: Gpu) -> None:
        trt = load_flavour(flavour)
        self._log = _make_log(trt)
        self._inputs = inputs
        # TensorRT-RTX compiles kernels while it runs, which cannot be recorded from outside; it records by itself.
        self._records_itself = flavour == "tensorrt_rtx"
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            free, total = gpu.memory()
            raise EngineError(
                f"{flavour} {trt.__version__} cannot load {path} ({path.stat().st_size / MIB:.0f} MiB, {free / MIB:.0f} "
                f"of {total / MIB:.0f} MiB of {gpu.device.name} are free): {self._log.text()}"
            )
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if self._records_itself:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._context = self._checked(self._engine.create_execution_context(runtime_config=config), "prepare")

    @property
    def is_recordable(self) -> bool:
        """Whether `enqueue` may be recorded from outside."""
        return not self._records_itself

    def scratch_bytes(self, num_rows: int) -> int:
        """Device memory for ``num_rows`` rows besides inputs and outputs."""
        self._set_shapes(num_rows)
        return int(self._context.update_device_memory_size_for_shapes())

    def use_scratch(self, memory: DeviceMemory) -> None:
        """Compute in ``memory``."""
        self._context.set_device_memory(memory.address, memory.num_bytes)

    def enqueue(self, addresses: Mapping[str, int], *, num_rows: int, stream: Stream) -> None:
        """Submit one computation."""
        self._set_shapes(num_rows)
        for name, address in addresses.items():
            self._checked(self._context.set_tensor_address(name, address), f"take the address of {name}")
        self._checked(self._context.execute_async_v3(stream.handle), f"compute {num_rows} rows")

    def _set_shapes(self, num_rows: int) -> None:
        for spec in self._inputs:
            shape = tuple(num_rows if size is None else size for size in spec.shape)
            self._checked(self._context.set_input_shape(spec.name, shape), f"take {spec.name} of shape {shape}")

    def _checked(self, answer: Any, action: str) -> Any:
        """``answer``, unless it is what TensorRT gives for a failure."""
        if answer is None or answer is False:
            raise EngineError(f"TensorRT cannot {action}: {self._log.text()}")
        return answer


def _make_log(trt: ModuleType) -> Any:
    """An ``ILogger`` that keeps the last errors: TensorRT's functions answer only whether they failed."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, text: str) -> None:
            if severity in {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR}:
                self._errors.append(text.strip())
            logger.debug("TensorRT: %s", text)

        def text(self) -> str:
            return "; ".join(self._errors) or "no reason given"

    return Log()
