"""Batches made of frames, not of videos: rows of several videos share the batches of one runner.

Each video opens a `RowStream`, submits rows as they are decoded and collects its results at the end. A batch is run by
the thread that completes it; a batch that nobody can complete, because every open stream waits for results, is run
part-filled. Fewer rows than a batch are ever pending, so memory does not grow with the number of videos.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtime.device_array import as_rows
from engine.runtime.runner import Runner, Tensors

Outputs = dict[str, NDArray[Any]]

ALL_ROWS = sys.maxsize


@dataclass(frozen=True)
class _Rows:
    """Rows of one stream that wait for a batch; ``start`` is the index of the first one within the stream."""

    stream: RowStream
    start: int
    tensors: Tensors

    @property
    def count(self) -> int:
        return _num_rows(self.tensors)

    def split(self, count: int) -> tuple[_Rows, _Rows]:
        head = {name: array[:count] for name, array in self.tensors.items()}
        tail = {name: array[count:] for name, array in self.tensors.items()}
        return _Rows(self.stream, self.start, head), _Rows(self.stream, self.start + count, tail)


class SharedRunner:
    """A runner that was entered, whose batches are filled by many videos at once. Thread-safe."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._batch_size = runner.batch_size
        self._changed = threading.Condition()
        self._pending: deque[_Rows] = deque()
        self._num_pending = 0
        self._num_open = 0
        self._num_waiting = 0

    @contextmanager
    def open_stream(self, *, keep: Mapping[str, int] | None = None) -> Iterator[RowStream]:
        """The rows of one video.

        ``keep``: of how many of the first rows each output is wanted, see `ALL_ROWS`; others are not. By default, all.
        """
        stream = RowStream(self, keep=keep)
        with self._changed:
            self._num_open += 1
        try:
            yield stream
        finally:
            with self._changed:
                self._num_open -= 1
                self._pending = deque(rows for rows in self._pending if rows.stream is not stream)
                self._num_pending = sum(rows.count for rows in self._pending)
                self._changed.notify_all()

    def _submit(self, rows: _Rows) -> None:
        with self._changed:
            self._pending.append(rows)
            self._num_pending += rows.count
        while batch := self._take_batch(full_only=True):
            self._run(batch)

    def _wait(self, stream: RowStream) -> None:
        while True:
            with self._changed:
                self._num_waiting += 1
                try:
                    self._changed.notify_all()
                    self._changed.wait_for(
                        lambda: stream.is_complete or (self._num_pending > 0 and self._num_waiting == self._num_open)
                    )
                finally:
                    self._num_waiting -= 1
                if stream.is_complete:
                    return
                batch = self._take_batch(full_only=False)
            self._run(batch)

    def _take_batch(self, *, full_only: bool) -> list[_Rows]:
        with self._changed:
            if full_only and self._num_pending < self._batch_size:
                return []
            batch: list[_Rows] = []
            room = self._batch_size
            while self._pending and room > 0:
                rows = self._pending.popleft()
                if rows.count > room:
                    rows, rest = rows.split(room)
                    self._pending.appendleft(rest)
                batch.append(rows)
                room -= rows.count
            self._num_pending -= self._batch_size - room
            return batch

    def _run(self, batch: list[_Rows]) -> None:
        parts = [rows.tensors for rows in batch]
        outputs: Outputs = {}
        failure: Exception | None = None
        try:
            outputs = self._runner.run(*parts)
        except Exception as error:  # noqa: BLE001 - it belongs to every video of the batch, and is raised in each
            failure = error
        with self._changed:
            first = 0
            for rows in batch:
                last = first + rows.count
                rows.stream._accept(rows.start, {name: array[first:last] for name, array in outputs.items()}, failure)
                first = last
            self._changed.notify_all()


class RowStream:
    """The rows of one video on their way through a `SharedRunner`. One thread uses it."""

    def __init__(self, shared: SharedRunner, *, keep: Mapping[str, int] | None) -> None:
        self._shared = shared
        self._keep = keep
        self._num_submitted = 0
        self._num_done = 0
        self._outputs: Outputs = {}
        self._error: Exception | None = None

    @property
    def is_complete(self) -> bool:
        """Every submitted row has come back, or an error has."""
        return self._error is not None or self._num_done == self._num_submitted

    def submit(self, tensors: Mapping[str, Any]) -> None:
        """Hand over rows ``{input name: (B, ...)}``; may run a batch. The arrays must not change afterwards.

        An array is NumPy's, or any object with ``__cuda_array_interface__``, whose rows stay on their device.
        """
        rows = _Rows(self, self._num_submitted, {name: as_rows(array) for name, array in tensors.items()})
        self._num_submitted += rows.count
        self._shared._submit(rows)

    def results(self) -> Outputs:
        """Wait for all submitted rows: ``{output name: (rows, ...)}`` in the order of submission, of what is kept.

        To be called once, at the end: the arrays are the caller's, and nothing else holds them.
        Raises what the runner raised on a batch with rows of this stream; ``ValueError`` if nothing was submitted.
        """
        if self._num_submitted == 0:
            raise ValueError("results() of a stream to which no rows were submitted")
        self._shared._wait(self)
        if self._error is not None:
            raise self._error
        outputs, self._outputs = self._outputs, {}
        return {name: rows[: self._num_done] for name, rows in outputs.items()}

    def _accept(self, start: int, outputs: Outputs, error: Exception | None) -> None:
        if error is not None:
            self._error = error
            return
        self._num_done += _num_rows(outputs)
        for name, rows in outputs.items():
            limit = ALL_ROWS if self._keep is None else self._keep.get(name, 0)
            stop = min(start + len(rows), limit)
            if stop > start:
                self._room(name, rows, stop=stop, limit=limit)[start:stop] = rows[: stop - start]

    def _room(self, name: str, rows: NDArray[Any], *, stop: int, limit: int) -> NDArray[Any]:
        """One array for the rows of an output, which doubles: thousands of small ones would scatter over the heap."""
        held = self._outputs.get(name, rows[:0])
        if len(held) < stop:
            grown = np.empty((min(limit, max(stop, 2 * len(held))), *rows.shape[1:]), rows.dtype)
            grown[: len(held)] = held
            self._outputs[name] = held = grown
        return held


def _num_rows(tensors: Tensors | Outputs) -> int:
    return len(next(iter(tensors.values())))
