"""An engine on a device whose memory is the host's: what takes TensorRT's place where the stub is the driver.

The graph is computed on the CPU, from and to the addresses that a runner gives, when its turn comes on the stream.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtime.cuda import DeviceMemory, Gpu, Stream, devices
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.manifest import RowProfile
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from engine.runtime.runner import TensorSpec

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
WORKSPACE_BYTES_PER_ROW = 1000


class HostExecution:
    """Computes an ONNX graph, or one that OpenVINO has compiled; spoils its workspace as an engine does.

    ``on_enqueue`` is called when work is submitted, ``on_compute`` when it is done. ``num_rows`` lists those of each
    submission.
    """

    def __init__(
        self,
        path: Path,
        *,
        is_capturable: bool = True,
        on_enqueue: Callable[[], object] = lambda: None,
        on_compute: Callable[[], object] = lambda: None,
    ) -> None:
        self.runner = _runner(path)
        self.is_capturable = is_capturable
        self.num_rows: list[int] = []
        self._on_enqueue, self._on_compute = on_enqueue, on_compute
        self._specs = {spec.name: spec for spec in (*self.runner.inputs, *self.runner.outputs)}
        self._workspace: DeviceMemory | None = None
        self._submitted: list[Any] = []

    def workspace_bytes(self, num_rows: int) -> int:
        return WORKSPACE_BYTES_PER_ROW * num_rows

    def use_workspace(self, memory: DeviceMemory) -> None:
        self._workspace = memory

    def enqueue(self, addresses: Mapping[str, int], *, num_rows: int, stream: Stream) -> None:
        self._on_enqueue()
        self.num_rows.append(num_rows)
        arrays = {name: _view(address, self._specs[name], num_rows) for name, address in addresses.items()}
        assert self._workspace is not None
        workspace = _bytes(self._workspace.address, self.workspace_bytes(num_rows))

        def compute(_: object) -> None:
            self._on_compute()
            workspace[:] = 0xEE
            outputs = self.runner.run({spec.name: arrays[spec.name] for spec in self.runner.inputs})
            for name, values in outputs.items():
                arrays[name][...] = values

        function = _HOST_FUNCTION(compute)
        self._submitted.append(function)  # the stream calls it later
        ctypes.CDLL("libcuda.so.1").cuLaunchHostFunc(ctypes.c_void_p(stream.handle), function, None)


@functools.cache
def _runner(path: Path) -> OpenVinoRunner:
    """One runner for all executions of a graph; it is never left."""
    xml_path = path.with_suffix(".xml")
    if not xml_path.exists():
        compile_to_ir(path, xml_path)
    return OpenVinoRunner(xml_path, num_threads=1).__enter__()


def device_runner(execution: HostExecution, *, batch_size: int | None = 4, max_rows: int = 32) -> DeviceRunner:
    """A runner of an execution on the first device of the stub driver; it takes 1 to ``max_rows`` rows."""
    return DeviceRunner(
        lambda: execution,
        gpu=Gpu(devices()[0]),
        name="ensemble",
        inputs=execution.runner.inputs,
        outputs=execution.runner.outputs,
        profile=RowProfile(min_rows=1, opt_rows=4, max_rows=max_rows),
        batch_size=batch_size,
    )


def _view(address: int, spec: TensorSpec, num_rows: int) -> NDArray[Any]:
    shape = tuple(num_rows if size is None else size for size in spec.shape)
    dtype = np.dtype(spec.dtype)
    return _bytes(address, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)


def _bytes(address: int, num_bytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))
