"""Loads TensorRT engines on a GPU and computes with them: ``tensorrt`` and ``tensorrt_rtx``, one code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.runtime.cuda import MIB, DeviceMemory, Gpu, Stream, devices
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.fit import check_tensorrt_engine
from engine.runtime.runner import TensorSpec
from engine.runtime.tensorrt_library import ErrorLog, TensorRt, import_tensorrt

logger = logging.getLogger(__name__)


def open_tensorrt_runner(directory: EnginesDirectory, name: str, *, batch_size: int | None = None) -> DeviceRunner:
    """A runner of engine ``name`` on the first GPU that this process sees; ``CUDA_VISIBLE_DEVICES`` chooses it.

    ``batch_size``: rows of one computation, None for what the engine is tuned for. Raises ``BackendUnavailable``
    without a GPU, driver or library, ``ConfigError`` if the engine does not fit the GPU, the library or the manifest.
    """
    device = devices()[0]
    engine = directory.manifest.engines[name]
    flavour = engine.tensorrt.flavour if engine.tensorrt is not None else "tensorrt"
    tensorrt = import_tensorrt(flavour)
    facts = check_tensorrt_engine(
        directory, name, flavour=flavour, version=tensorrt.version, compute_capability=device.capability
    )
    logger.info("%s: %s %s on GPU %d, %s", name, flavour, tensorrt.version, device.index, device)
    gpu, path = Gpu(device), directory.path(engine.main)
    return DeviceRunner(
        lambda: TensorRtExecution(path, tensorrt=tensorrt, inputs=engine.inputs, gpu=gpu),
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

    def __init__(self, path: Path, *, tensorrt: TensorRt, inputs: tuple[TensorSpec, ...], gpu: Gpu) -> None:
        trt = tensorrt.module
        self._log = ErrorLog(trt)
        self._inputs = inputs
        self._num_rows = 0
        self._workspace: DeviceMemory | None = None
        # TensorRT-RTX compiles kernels while it runs, which cannot be captured from outside; it captures by itself.
        self.is_capturable = tensorrt.flavour == "tensorrt"
        self._runtime = self._log.call(trt.Runtime, doing="start")
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            free, total = gpu.memory()
            raise EngineError(
                f"{tensorrt.flavour} {tensorrt.version} cannot load {path} ({path.stat().st_size / MIB:.0f} MiB; "
                f"{free / MIB:.0f} of {total / MIB:.0f} MiB of {gpu.device.name} are free): {self._log.last}"
            )
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if not self.is_capturable:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._context = self._checked(self._engine.create_execution_context(runtime_config=config), "prepare")

    def workspace_bytes(self, num_rows: int) -> int:
        """Device memory for ``num_rows`` rows besides inputs and outputs."""
        for spec in self._inputs:
            shape = spec.full_shape(num_rows)
            self._checked(self._context.set_input_shape(spec.name, shape), f"take {spec.name} of shape {shape}")
        self._num_rows = num_rows
        return int(self._context.update_device_memory_size_for_shapes())

    def use_workspace(self, memory: DeviceMemory) -> None:
        """Compute in ``memory``."""
        self._workspace = memory
        self._context.set_device_memory(memory.address, memory.num_bytes)

    def enqueue(self, addresses: Mapping[str, int], *, num_rows: int, stream: Stream) -> None:
        """Submit one computation."""
        if num_rows != self._num_rows:
            self._resize(num_rows)
        for name, address in addresses.items():
            self._checked(self._context.set_tensor_address(name, address), f"take the address of {name}")
        self._checked(self._context.execute_async_v3(stream.handle), f"compute {num_rows} rows")

    def _resize(self, num_rows: int) -> None:
        # TensorRT divides the workspace up anew for other shapes.
        needed = self.workspace_bytes(num_rows)
        there = 0 if self._workspace is None else self._workspace.num_bytes
        if needed > there:
            raise EngineError(f"TensorRT asks for {needed} bytes to compute {num_rows} rows, {there} were allocated")
        if self._workspace is not None:
            self.use_workspace(self._workspace)

    def _checked(self, answer: Any, action: str) -> Any:
        """``answer``, unless it is what TensorRT gives for a failure."""
        if answer is None or answer is False:
            raise EngineError(f"TensorRT cannot {action}: {self._log.last}")
        return answer
