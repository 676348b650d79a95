"""The NVIDIA driver through PyCUDA: GPUs, their memory, streams, CUDA graphs.

Everything happens in the primary context of a device, which DALI, TensorRT and FAISS use too, so that an address from
one of them is valid for all. It is kept until the process ends. A context is current in one thread at a time: each call
into the driver stands inside `Gpu.current`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, ConfigError, EngineError

_UPDATE_DRIVER = "update the NVIDIA driver"
try:
    import pycuda.driver as driver
except ModuleNotFoundError as _error:
    raise BackendUnavailable("engines on a GPU need pycuda: pip install 'vsc-engine[gpu]'") from _error
except ImportError as _error:
    if "undefined symbol" in str(_error):
        raise BackendUnavailable(
            f"the NVIDIA driver is too old for this PyCUDA ({_error}); {_UPDATE_DRIVER}"
        ) from _error
    raise BackendUnavailable(
        f"no NVIDIA driver on this machine ({_error}): install it, or start the container with access to GPUs "
        "(--gpus all); engines for the CPU need neither"
    ) from _error

MIB = 1 << 20
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream that other libraries use
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads go on allocating meanwhile


@dataclass(frozen=True)
class Device:
    """A GPU as the driver lists it, after ``CUDA_VISIBLE_DEVICES``, of a compute capability such as ``8.6``."""

    index: int
    name: str
    capability: str
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.capability}, {self.memory_bytes // MIB} MiB)"


class OutOfDeviceMemory(EngineError):  # noqa: N818 - the established name for this condition
    """The memory of a GPU does not suffice; the message has the numbers."""


def devices() -> tuple[Device, ...]:
    """The GPUs of this machine, at least one.

    Raises ``BackendUnavailable`` that says why there is none: a driver that is too old, or one that finds no device.
    """
    built, found = driver.get_version(), driver.get_driver_version()
    if found // 1000 < built[0]:
        raise BackendUnavailable(
            f"the NVIDIA driver is too old: it runs CUDA {found // 1000}.{found % 1000 // 10}, and these libraries "
            f"need CUDA {built[0]}.0; {_UPDATE_DRIVER}"
        )
    try:
        driver.init()
        listed = [driver.Device(index) for index in range(driver.Device.count())]
    except driver.Error as error:
        raise BackendUnavailable(f"{_why_none(str(error))} ({error})") from error
    if not listed:
        raise BackendUnavailable(_why_none("CUDA_ERROR_NO_DEVICE"))
    return tuple(
        Device(index, device.name(), ".".join(map(str, device.compute_capability())), device.total_memory())
        for index, device in enumerate(listed)
    )


def choose_devices(num_gpus: int, *, built_for: Sequence[str] | None = None) -> tuple[Device, ...]:
    """The first ``num_gpus`` GPUs, all of a compute capability in ``built_for`` (such as ``8.6``) unless None.

    Raises ``ConfigError`` that says what is there instead, ``BackendUnavailable`` if there is nothing.
    """
    found = devices()
    listing = ", ".join(f"{device.index}: {device}" for device in found)
    if not 1 <= num_gpus <= len(found):
        raise ConfigError(f"--gpus {num_gpus}: this machine has {len(found)} ({listing}); ask for 1 to {len(found)}")
    chosen = found[:num_gpus]
    others = [device for device in chosen if built_for is not None and device.capability not in built_for]
    if others and built_for is not None:
        wanted = " ".join(sorted({device.capability for device in chosen}))
        raise ConfigError(
            f"the engines were built for compute capability {', '.join(built_for)}, which GPUs "
            f"{', '.join(str(device.index) for device in others)} do not have ({listing}); build them for all "
            f"(TensorRT-RTX: --compute-capability {wanted}), or choose GPUs that are alike (CUDA_VISIBLE_DEVICES)"
        )
    return chosen


def _why_none(error: str) -> str:
    if "NO_DEVICE" in error:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = f"; CUDA_VISIBLE_DEVICES is {visible!r}" if visible is not None else ""
        return f"the NVIDIA driver finds no GPU: give this machine or container one{hint}"
    return "the NVIDIA driver does not start: restart the machine after a driver update, or install it again"


@functools.cache
def _primary_context(index: int) -> Any:
    context = driver.Device(index).retain_primary_context()
    # PyCUDA's own clean-up at exit takes it for a context that it made.
    atexit.register(context.detach)
    return context


class Gpu:
    """A GPU of `devices` that this process computes on. Thread-safe."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current in this thread. Errors of the driver leave as ``EngineError``."""
        context = _primary_context(self.device.index)
        context.push()
        try:
            yield
        except driver.Error as error:
            raise EngineError(f"GPU {self.device.index}, {self.device}: {error}") from error
        finally:
            driver.Context.pop()

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all there are."""
        free, total = driver.mem_get_info()
        return free, total

    def allocate(self, num_bytes: int) -> DeviceMemory:
        """Device memory, not cleared. Raises `OutOfDeviceMemory`."""
        with self._out_of_memory(num_bytes):
            return DeviceMemory(driver.mem_alloc(num_bytes), num_bytes)

    def allocate_pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """A host array that the device copies from and to by itself; `free_pinned` frees it."""
        with self._out_of_memory(np.dtype(dtype).itemsize * int(np.prod(shape))):
            array: NDArray[Any] = driver.pagelocked_empty(shape, np.dtype(dtype))
            return array

    @contextmanager
    def _out_of_memory(self, num_bytes: int) -> Iterator[None]:
        try:
            yield
        except driver.MemoryError as error:
            free, total = self.memory()
            raise OutOfDeviceMemory(
                f"GPU {self.device.index}, {self.device.name}: asked for {num_bytes / MIB:.2f} MiB, "
                f"{free / MIB:.2f} of {total / MIB:.2f} MiB are free"
            ) from error


def free_pinned(array: NDArray[Any]) -> None:
    """Free what `Gpu.allocate_pinned` gave."""
    base: Any = array.base
    base.free()


@dataclass(frozen=True)
class DeviceMemory:
    """A block of device memory. ``allocation`` is PyCUDA's."""

    allocation: Any
    num_bytes: int

    @property
    def address(self) -> int:
        """Where it starts."""
        return int(self.allocation)

    def free(self) -> None:
        """Give it back; not while work that uses it is under way."""
        self.allocation.free()


class Stream:
    """A queue of work on the device; what is submitted returns before it is done."""

    def __init__(self) -> None:
        self._stream = driver.Stream(_NON_BLOCKING)

    @property
    def handle(self) -> int:
        """What other libraries take for this stream."""
        return int(self._stream.handle)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a pinned array to ``address``."""
        driver.memcpy_htod_async(address, array, self._stream)

    def download(self, array: NDArray[Any], address: int) -> None:
        """Copy from ``address`` into a pinned array."""
        driver.memcpy_dtoh_async(array, address, self._stream)

    def copy(self, to_address: int, from_address: int, num_bytes: int) -> None:
        """Copy on the device."""
        driver.memcpy_dtod_async(to_address, from_address, num_bytes, self._stream)

    def clear(self, memory: DeviceMemory) -> None:
        """Set all bytes to zero."""
        driver.memset_d8_async(memory.address, 0, memory.num_bytes, self._stream)

    def record_event(self) -> Any:
        """An event that occurs when all that was submitted so far is done."""
        return driver.Event(driver.event_flags.DISABLE_TIMING).record(self._stream)

    def wait_for(self, event: Any) -> None:
        """Let what is submitted from now on start after ``event``."""
        self._stream.wait_for_event(event)

    def synchronize(self) -> None:
        """Block this thread until all that was submitted is done."""
        self._stream.synchronize()

    def free(self) -> None:
        """Give it back; work that was submitted is still done. Needs the current context, as all else."""
        del self._stream

    def capture(self, submit: Callable[[], None]) -> CudaGraph:
        """A graph of what ``submit`` puts on this stream, which does not run it now."""
        _call("cuStreamBeginCapture_v2", ctypes.c_void_p(self.handle), _CAPTURE_THREAD_LOCAL)
        graph = ctypes.c_void_p()
        try:
            submit()
        finally:
            _call("cuStreamEndCapture", ctypes.c_void_p(self.handle), ctypes.byref(graph))
        return CudaGraph(graph)


class CudaGraph:
    """Captured work that one call launches, with the addresses it was captured with."""

    def __init__(self, graph: ctypes.c_void_p) -> None:
        self._instance = ctypes.c_void_p()
        _call("cuGraphInstantiateWithFlags", ctypes.byref(self._instance), graph, ctypes.c_ulonglong(0))
        _call("cuGraphDestroy", graph)

    def launch(self, stream: Stream) -> None:
        """Put it on ``stream``."""
        _call("cuGraphLaunch", self._instance, ctypes.c_void_p(stream.handle))

    def free(self) -> None:
        """Give it back; not while it runs."""
        _call("cuGraphExecDestroy", self._instance)


def wait_for_producer(stream: int | None) -> None:
    """Block until another library's stream, by its handle, has done its work; None has no work."""
    if stream is not None:
        _call("cuStreamSynchronize", ctypes.c_void_p(stream))


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    """A function of the driver that PyCUDA does not have, with ctypes values. Raises ``EngineError``."""
    code = _library()[name](*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        raise EngineError(f"{name} failed: {(text.value or b'').decode() or code}")
