"""Runs an engine on a GPU, fed from host or device memory. An `Execution` computes; TensorRT stays out of here.

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
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.runtime.cuda import MIB, DeviceMemory, Gpu, OutOfDeviceMemory, Stream
from engine.runtime.device_array import Rows
from engine.runtime.device_buffers import Buffers, cut
from engine.runtime.manifest import RowProfile
from engine.runtime.runner import Tensors, TensorSpec, check_tensors

logger = logging.getLogger(__name__)

Columns = Mapping[str, Sequence[Rows]]
"""For each input the arrays that hold its rows, one after the other."""

_NUM_BUFFERS = 2


class Execution(Protocol):
    """An engine that is loaded on a device. One call at a time, in the current context."""

    @property
    def is_capturable(self) -> bool:
        """Whether what `enqueue` submits may be captured (`Stream.capture`) and launched again."""

    def workspace_bytes(self, num_rows: int) -> int:
        """Device memory that computing ``num_rows`` rows needs besides inputs and outputs; may be 0."""

    def use_workspace(self, memory: DeviceMemory) -> None:
        """Compute in ``memory``, of at least the size that `workspace_bytes` gave last."""

    def enqueue(self, addresses: Mapping[str, int], *, num_rows: int, stream: Stream) -> None:
        """Submit one computation that reads and writes device memory, ``{input or output name: address}``."""


class DeviceRunner:
    """A `Runner` on a GPU.

    ``load`` gives the execution, in a current context, when the runner is entered. ``batch_size``: rows of one
    computation, at most ``profile.max_rows``; None takes ``profile.opt_rows``. If the device has too little memory
    for that, half of it is tried, with a warning; `OutOfDeviceMemory` is raised if that does not suffice. Engines
    without a row of output for each row of input get memory for ``profile.max_rows``. ``name`` is for people.
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
        self.inputs, self.outputs = inputs, outputs
        self._profile = profile
        self._gives_rows = all(spec.shape[:1] == (None,) for spec in outputs)
        self._wanted_rows = (batch_size or profile.opt_rows) if self._gives_rows else profile.max_rows
        self._session: _Session | None = None
        if not profile.min_rows <= self._wanted_rows <= profile.max_rows:
            raise ConfigError(
                f"{name}: the engine takes {profile.min_rows} to {profile.max_rows} rows, not batches of "
                f"{self._wanted_rows}; choose another batch size or build it for larger ones"
            )

    @property
    def batch_size(self) -> int:
        """Rows of one computation; smaller than asked for if memory was short on entry."""
        return self._wanted_rows if self._session is None else self._session.num_rows

    def __enter__(self) -> Self:
        with self._gpu.current():
            execution = self._load()
            try:
                self._session = self._open(execution, self._wanted_rows)
            except OutOfDeviceMemory as error:
                fewer_rows = self._wanted_rows // 2
                if not self._gives_rows or fewer_rows < self._profile.min_rows:
                    raise
                logger.warning("batches of %d instead of %d rows: %s", fewer_rows, self._wanted_rows, error)
                self._session = self._open(execution, fewer_rows)
        return self

    def _open(self, execution: Execution, num_rows: int) -> _Session:
        workspace_bytes = execution.workspace_bytes(num_rows)
        try:
            return _Session(
                execution,
                gpu=self._gpu,
                inputs=self.inputs,
                outputs=self.outputs,
                num_rows=num_rows,
                gives_rows=self._gives_rows,
                workspace_bytes=workspace_bytes,
            )
        except OutOfDeviceMemory as error:
            row_bytes = sum(spec.num_bytes(num_rows) for spec in (*self.inputs, *self.outputs))
            needed = workspace_bytes + _NUM_BUFFERS * row_bytes
            raise OutOfDeviceMemory(
                f"{self._name} needs {needed / MIB:.2f} MiB besides its weights for batches of {num_rows} rows; {error}"
            ) from error

    def __exit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            with self._gpu.current():
                session.close()

    def run(self, *parts: Tensors) -> dict[str, NDArray[Any]]:
        """Run n >= 1 rows; see `engine.runtime.Runner.run`."""
        for part in parts:
            check_tensors(part, self.inputs)
        num_rows = sum(len(part[self.inputs[0].name]) for part in parts)
        least, most = self._profile.min_rows, self._profile.max_rows
        if not self._gives_rows and not least <= num_rows <= most:
            raise ConfigError(f"{self._name}: the engine takes {least} to {most} rows, got {num_rows}")
        session = self._session
        if session is None:
            raise RuntimeError("run() outside of the runner's context; use `with runner:`")
        columns = {spec.name: [part[spec.name] for part in parts] for spec in self.inputs}
        with self._gpu.current():
            results = list(session.compute(columns, num_rows))
        return {spec.name: np.concatenate([result[spec.name] for result in results]) for spec in self.outputs}


class _Session:
    """What a runner holds while it is entered; made, used and closed in a current context.

    All computations are on one stream, one after the other, because they share the workspace.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        gpu: Gpu,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        num_rows: int,
        gives_rows: bool,
        workspace_bytes: int,
    ) -> None:
        self.num_rows = num_rows
        self._execution = execution
        self._outputs = outputs
        self._gives_rows = gives_rows
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
        with ExitStack() as undo:
            self._stream = Stream()
            undo.callback(self._stream.free)
            if workspace_bytes > 0:
                workspace = gpu.allocate(workspace_bytes)
                undo.callback(workspace.free)
                execution.use_workspace(workspace)
            for _ in range(_NUM_BUFFERS):
                buffers = Buffers(gpu, [*inputs, *outputs], num_rows=num_rows)
                undo.callback(buffers.free)
                self._capture(buffers)
                self._free.put(buffers)
            self._resources = undo.pop_all()

    def _capture(self, buffers: Buffers) -> None:
        if not (self._gives_rows and self._execution.is_capturable):
            return

        def submit() -> None:
            self._execution.enqueue(buffers.addresses, num_rows=self.num_rows, stream=self._stream)

        submit()  # the first time sets things up, which cannot be captured
        self._stream.synchronize()
        buffers.graph = self._stream.capture(submit)

    def close(self) -> None:
        """Give all memory back, when whoever still computes has finished."""
        for _ in range(_NUM_BUFFERS):
            self._free.get()
        self._stream.synchronize()
        del self._execution
        self._resources.close()

    def compute(self, columns: Columns, num_rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Results of each batch, in order; the next batch is submitted before the one before is waited for."""
        in_flight: deque[tuple[Buffers, int]] = deque()
        try:
            for start in range(0, num_rows, self.num_rows):
                stop = min(start + self.num_rows, num_rows)
                buffers = self._next_buffers(wait=not in_flight)
                if buffers is None:
                    yield self._results(*in_flight[0])
                    buffers, _ = in_flight.popleft()
                in_flight.append((buffers, stop - start))
                batch = {name: cut(arrays, start, stop) for name, arrays in columns.items()}
                self._submit(buffers, batch, num_rows=stop - start)
            while in_flight:
                yield self._results(*in_flight[0])
                self._free.put(in_flight.popleft()[0])
        finally:
            with ExitStack() as stack:  # after an error some still have work under way
                for buffers, _ in in_flight:
                    stack.callback(self._free.put, buffers)
                    stack.callback(buffers.stream.synchronize)
                    stack.callback(self._stream.synchronize)

    def _next_buffers(self, *, wait: bool) -> Buffers | None:
        # Who holds buffers never waits for others: two threads could wait for each other.
        try:
            return self._free.get(block=wait)
        except queue.Empty:
            return None

    def _submit(self, buffers: Buffers, columns: Columns, *, num_rows: int) -> None:
        addresses = buffers.upload(columns)
        uploaded = buffers.stream.record_event()
        with self._lock:
            self._stream.wait_for(uploaded)
            if buffers.graph is not None and addresses == buffers.addresses:
                buffers.graph.launch(self._stream)
            else:
                computed_rows = self.num_rows if self._gives_rows else num_rows
                self._execution.enqueue(addresses, num_rows=computed_rows, stream=self._stream)
            computed = self._stream.record_event()
        buffers.stream.wait_for(computed)
        for spec in self._outputs:
            buffers.download(spec.name, num_rows=num_rows if self._gives_rows else None)

    def _results(self, buffers: Buffers, num_rows: int) -> dict[str, NDArray[Any]]:
        buffers.stream.synchronize()
        rows = num_rows if self._gives_rows else None
        return {spec.name: buffers.result(spec.name, num_rows=rows) for spec in self._outputs}
