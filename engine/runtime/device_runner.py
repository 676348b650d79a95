"""Runs an engine on a GPU, fed from host or device memory. Knows nothing of TensorRT: an `Execution` does the computing.

Two sets of buffers take turns: while the engine works on one batch, the next one is copied into the other set by
another thread, or by the same one if a call has more rows than a batch. An engine with a row of output for each row of
input always computes whole batches of one size, so that the bits of a row do not depend on how many rows came with it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.device_array import DeviceArray, Rows
from engine.errors import ConfigError
from engine.runtime import Tensors, TensorSpec, check_tensors
from engine.runtime.cuda import (
    MIB,
    DeviceMemory,
    Gpu,
    OutOfDeviceMemory,
    RecordedWork,
    Stream,
    free_pinned,
    wait_for_producer,
)
from engine.runtime.manifest import RowProfile

logger = logging.getLogger(__name__)

NUM_SLOTS = 2
_ALIGNMENT = 256  # bytes, what TensorRT asks of the addresses of tensors


class Execution(Protocol):
    """An engine that is loaded on a device. One call at a time, in the current context."""

    @property
    def is_recordable(self) -> bool:
        """Whether what `enqueue` submits may be recorded (`Stream.record`) and submitted again."""

    def scratch_bytes(self, num_rows: int) -> int:
        """Device memory that computing ``num_rows`` rows needs besides inputs and outputs; may be 0."""

    def use_scratch(self, memory: DeviceMemory) -> None:
        """Compute in ``memory``, of at least the size that `scratch_bytes` gave last."""

    def enqueue(self, addresses: Mapping[str, int], *, num_rows: int, stream: Stream) -> None:
        """Submit one computation that reads and writes device memory, ``{input or output name: address}``."""


class _Slot:
    """One set of buffers, for at most ``num_rows`` rows of each tensor."""

    def __init__(self, gpu: Gpu, specs: Sequence[TensorSpec], *, num_rows: int) -> None:
        self.stream = Stream()
        self.memory: dict[str, DeviceMemory] = {}
        self.pinned: dict[str, NDArray[Any]] = {}
        self.recorded: RecordedWork | None = None
        self.num_rows = 0
        try:
            for spec in specs:
                self.pinned[spec.name] = gpu.allocate_pinned(_full_shape(spec, num_rows), spec.dtype)
                self.memory[spec.name] = gpu.allocate(self.pinned[spec.name].nbytes)
                self.stream.clear(self.memory[spec.name])
            self.stream.synchronize()
        except OutOfDeviceMemory:
            self.free()
            raise

    @property
    def addresses(self) -> dict[str, int]:
        """Where the engine finds its tensors."""
        return {name: memory.address for name, memory in self.memory.items()}

    def fill(self, name: str, parts: Sequence[Rows]) -> None:
        """Submit the copies of an input's rows; device arrays are copied on the device."""
        pinned, address, row = self.pinned[name], self.memory[name].address, 0
        for part in parts:
            last = row + len(part)
            if isinstance(part, DeviceArray):
                wait_for_producer(part.stream)
                self.stream.copy(address + row * part.row_bytes, part.address, len(part) * part.row_bytes)
            else:
                np.copyto(pinned[row:last], part)
                self.stream.upload(address + pinned[:row].nbytes, pinned[row:last])
            row = last

    def free(self) -> None:
        """Give all memory back."""
        self.stream.synchronize()
        if self.recorded is not None:
            self.recorded.free()
        for memory in self.memory.values():
            memory.free()
        for array in self.pinned.values():
            free_pinned(array)
        self.memory, self.pinned = {}, {}


class DeviceRunner:
    """A `Runner` on a GPU.

    ``load`` gives the execution, in a current context, when the runner is entered. ``batch_size``: rows of one
    computation, at most ``profile.max_rows``; None takes ``profile.opt_rows``. If the device has too little memory
    for that, it is halved once, with a warning; `OutOfDeviceMemory` is raised if that does not suffice. Engines without
    a row of output for each row of input get memory for ``profile.max_rows``. ``name`` is for people.
    """

    def __init__(
        self,
        load: Callable[[], Execution],
        *,
        gpu: Gpu,
        name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        profile: RowProfile,
        batch_size: int | None = None,
    ) -> None:
        self._load = load
        self._gpu = gpu
        self._name = name
        self._inputs = inputs
        self._outputs = outputs
        self._profile = profile
        self._gives_rows = all(spec.shape[:1] == (None,) for spec in outputs)
        wanted = (batch_size or profile.opt_rows) if self._gives_rows else profile.max_rows
        if not profile.min_rows <= wanted <= profile.max_rows:
            raise ConfigError(
                f"{name}: the engine takes {profile.min_rows} to {profile.max_rows} rows, not batches of {wanted}; "
                "choose another batch size or build it for larger ones"
            )
        self._wanted_rows = self._batch_rows = wanted
        self._lock = threading.Lock()
        self._is_open = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""
        return self._outputs

    @property
    def batch_size(self) -> int:
        """Rows of one computation; smaller than asked for if memory was short on entry."""
        return self._batch_rows

    def __enter__(self) -> Self:
        with self._gpu.current():
            self._execution: Execution | None = self._load()
            self._stream = Stream()
            self._allocate(self._execution)
            if self._gives_rows and self._execution.is_recordable:
                self._record(self._execution)
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        for _ in range(NUM_SLOTS):
            self._free.get()  # whoever still computes finishes first
        with self._gpu.current():
            self._stream.synchronize()
            for slot in self._slots:
                slot.free()
            self._execution = None
            if self._scratch is not None:
                self._scratch.free()
            # Streams are given back here, while the context is current.
            del slot
            self._slots = []
            del self._stream

    def run(self, *parts: Tensors) -> dict[str, NDArray[Any]]:
        """Run n >= 1 rows; see `engine.runtime.Runner.run`."""
        for part in parts:
            check_tensors(part, self._inputs)
        num_rows = sum(len(part[self._inputs[0].name]) for part in parts)
        if not self._gives_rows and not self._profile.min_rows <= num_rows <= self._batch_rows:
            raise ConfigError(
                f"{self._name}: the engine takes {self._profile.min_rows} to {self._batch_rows} rows, got {num_rows}"
            )
        if not self._is_open:
            raise RuntimeError("run() outside of the runner's context; use `with runner:`")
        columns = {spec.name: [part[spec.name] for part in parts] for spec in self._inputs}
        with self._gpu.current():
            results = list(self._compute(columns, num_rows))
        return {spec.name: np.concatenate([result[spec.name] for result in results]) for spec in self._outputs}

    def _compute(self, columns: Mapping[str, Sequence[Rows]], num_rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Results of each batch, in order; the next batch is submitted before the one before is waited for."""
        held: deque[_Slot] = deque()
        try:
            for start in range(0, num_rows, self._batch_rows):
                stop = min(start + self._batch_rows, num_rows)
                slot = self._free_slot(wait=not held)
                if slot is None:
                    yield self._results(held[0])
                    slot = held.popleft()
                held.append(slot)
                self._submit(slot, {name: _cut(arrays, start, stop) for name, arrays in columns.items()}, stop - start)
            while held:
                yield self._results(held[0])
                self._free.put(held.popleft())
        finally:
            with ExitStack() as stack:  # slots are held here only after an error
                for slot in held:
                    stack.callback(self._free.put, slot)
                    stack.callback(slot.stream.synchronize)
                    stack.callback(self._stream.synchronize)

    def _free_slot(self, *, wait: bool) -> _Slot | None:
        # Who holds a slot never waits for another one: two threads could wait for each other.
        try:
            return self._free.get(block=wait)
        except queue.Empty:
            return None

    def _submit(self, slot: _Slot, columns: Mapping[str, Sequence[Rows]], num_rows: int) -> None:
        slot.num_rows = num_rows
        addresses = slot.addresses
        for name, parts in columns.items():
            first = parts[0]
            if isinstance(first, DeviceArray) and len(first) == self._batch_rows and first.address % _ALIGNMENT == 0:
                wait_for_producer(first.stream)
                addresses[name] = first.address
            else:
                slot.fill(name, parts)
        filled = slot.stream.mark()
        with self._lock:
            self._stream.wait_for(filled)
            if slot.recorded is not None and addresses == slot.addresses:
                slot.recorded.submit(self._stream)
            else:
                self._enqueue(addresses, self._batch_rows if self._gives_rows else num_rows)
            computed = self._stream.mark()
        slot.stream.wait_for(computed)
        for spec in self._outputs:
            rows = slot.pinned[spec.name][: num_rows if self._gives_rows else None]
            slot.stream.download(rows, slot.memory[spec.name].address)

    def _results(self, slot: _Slot) -> dict[str, NDArray[Any]]:
        slot.stream.synchronize()
        rows = slice(slot.num_rows if self._gives_rows else None)
        return {spec.name: slot.pinned[spec.name][rows].copy() for spec in self._outputs}

    def _enqueue(self, addresses: Mapping[str, int], num_rows: int) -> None:
        if self._execution is None:
            raise RuntimeError("run() outside of the runner's context; use `with runner:`")
        self._execution.enqueue(addresses, num_rows=num_rows, stream=self._stream)

    def _allocate(self, execution: Execution) -> None:
        self._batch_rows = self._wanted_rows
        try:
            self._allocate_for(execution)
        except OutOfDeviceMemory as error:
            halved = self._wanted_rows // 2
            if not self._gives_rows or halved < self._profile.min_rows:
                raise
            logger.warning("%s: batches of %d instead of %d rows: %s", self._name, halved, self._wanted_rows, error)
            self._batch_rows = halved
            self._allocate_for(execution)

    def _allocate_for(self, execution: Execution) -> None:
        num_rows, specs = self._batch_rows, [*self._inputs, *self._outputs]
        self._slots: list[_Slot] = []
        self._scratch: DeviceMemory | None = None
        scratch_bytes = execution.scratch_bytes(num_rows)
        try:
            for _ in range(NUM_SLOTS):
                self._slots.append(_Slot(self._gpu, specs, num_rows=num_rows))
            if scratch_bytes > 0:
                self._scratch = self._gpu.allocate(scratch_bytes)
                execution.use_scratch(self._scratch)
        except OutOfDeviceMemory as error:
            for slot in self._slots:
                slot.free()
            self._slots = []
            buffer_bytes = NUM_SLOTS * sum(_num_bytes(spec, num_rows) for spec in specs)
            raise OutOfDeviceMemory(
                f"{self._name} needs {(scratch_bytes + buffer_bytes) / MIB:.1f} MiB for batches of {num_rows} rows; {error}"
            ) from error

    def _record(self, execution: Execution) -> None:
        # The first computation after a change of shape sets things up, which cannot be recorded.
        self._enqueue(self._slots[0].addresses, self._batch_rows)
        self._stream.synchronize()
        for slot in self._slots:
            slot.recorded = self._stream.record(lambda slot=slot: self._enqueue(slot.addresses, self._batch_rows))


def _cut(arrays: Sequence[Rows], start: int, stop: int) -> list[Rows]:
    """Rows ``start`` to ``stop`` of arrays that follow each other."""
    pieces: list[Rows] = []
    first = 0
    for array in arrays:
        piece = array[max(0, start - first) : max(0, stop - first)]
        pieces += [piece] if len(piece) else []
        first += len(array)
    return pieces


def _full_shape(spec: TensorSpec, num_rows: int) -> tuple[int, ...]:
    return tuple(num_rows if size is None else size for size in spec.shape)


def _num_bytes(spec: TensorSpec, num_rows: int) -> int:
    return int(np.prod(_full_shape(spec, num_rows))) * np.dtype(spec.dtype).itemsize
