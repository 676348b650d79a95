"""Buffers of one batch on its way through an engine on a GPU: pinned host memory and device memory for each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtime.cuda import CudaGraph, DeviceMemory, Gpu, OutOfDeviceMemory, Stream, free_pinned, wait_for_producer
from engine.runtime.device_array import DeviceArray, Rows
from engine.runtime.runner import TensorSpec

_ALIGNMENT = 256  # bytes, what TensorRT asks of the addresses of tensors


class Buffers:
    """One set of buffers for ``num_rows`` rows, all zero at first, with a stream that copies into and out of them.

    ``graph`` is a computation between these buffers, if one was captured. Made, used and freed in a current context.
    Raises `OutOfDeviceMemory`, and holds nothing then.
    """

    def __init__(self, gpu: Gpu, specs: Iterable[TensorSpec], *, num_rows: int) -> None:
        self.stream = Stream()
        self.graph: CudaGraph | None = None
        self._num_rows = num_rows
        self._memory: dict[str, DeviceMemory] = {}
        self._pinned: dict[str, NDArray[Any]] = {}
        try:
            for spec in specs:
                self._pinned[spec.name] = gpu.allocate_pinned(spec.full_shape(num_rows), spec.dtype)
                self._memory[spec.name] = gpu.allocate(self._pinned[spec.name].nbytes)
                self.stream.clear(self._memory[spec.name])
            self.stream.synchronize()
        except OutOfDeviceMemory:
            self.free()
            raise

    @property
    def addresses(self) -> dict[str, int]:
        """Where in device memory each tensor lies."""
        return {name: memory.address for name, memory in self._memory.items()}

    def upload(self, columns: Mapping[str, Sequence[Rows]]) -> dict[str, int]:
        """Submit the copies of the inputs' rows, and return where the engine finds each tensor.

        Rows on the host pass through pinned memory, rows on the device are copied there. An input that is one device
        array with as many rows as there is room for is not copied: the engine finds it where it is.
        """
        addresses = self.addresses
        for name, arrays in columns.items():
            first = arrays[0]
            if isinstance(first, DeviceArray) and len(first) == self._num_rows and first.address % _ALIGNMENT == 0:
                wait_for_producer(first.stream)
                addresses[name] = first.address
            else:
                self._fill(self._pinned[name], addresses[name], arrays)
        return addresses

    def _fill(self, pinned: NDArray[Any], address: int, arrays: Sequence[Rows]) -> None:
        start = 0
        for array in arrays:
            place = pinned[start : start + len(array)]
            there = address + pinned[:start].nbytes
            if isinstance(array, DeviceArray):
                wait_for_producer(array.stream)
                self.stream.copy(there, array.address, place.nbytes)
            else:
                np.copyto(place, array)
                self.stream.upload(there, place)
            start += len(array)

    def download(self, name: str, *, num_rows: int | None) -> None:
        """Submit the copy of an output to the host; None copies all of it."""
        self.stream.download(self._pinned[name][:num_rows], self._memory[name].address)

    def result(self, name: str, *, num_rows: int | None) -> NDArray[Any]:
        """What `download` copied, as an array of the caller's own, after the stream was waited for."""
        return self._pinned[name][:num_rows].copy()

    def free(self) -> None:
        """Wait for the stream and give all memory back."""
        self.stream.synchronize()
        self.stream.free()
        if self.graph is not None:
            self.graph.free()
        for memory in self._memory.values():
            memory.free()
        for array in self._pinned.values():
            free_pinned(array)


def cut(arrays: Sequence[Rows], start: int, stop: int) -> list[Rows]:
    """Rows ``start`` to ``stop`` of arrays that follow each other."""
    pieces: list[Rows] = []
    first = 0
    for array in arrays:
        piece = array[max(0, start - first) : max(0, stop - first)]
        pieces += [piece] if len(piece) else []
        first += len(array)
    return pieces
