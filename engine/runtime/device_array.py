"""Rows that lie in the memory of a GPU, by address: no driver is asked, nothing is read or copied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEGACY_DEFAULT_STREAM = 1


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array in device memory, cut along its first dimension as a NumPy array is.

    ``stream``: handle of the CUDA stream that is still writing it, None if it is finished. ``owner`` holds the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    owner: object

    @classmethod
    def of(cls, owner: Any) -> DeviceArray:
        """The memory of any object with ``__cuda_array_interface__`` (of Numba). ``ValueError`` unless C-contiguous."""
        interface = owner.__cuda_array_interface__
        shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        strides = interface.get("strides")
        if strides is not None and tuple(strides) != _packed_strides(shape, dtype):
            raise ValueError(f"expected a C-contiguous device array, got shape {shape} with strides {tuple(strides)}")
        # Before version 3 nothing is said of streams: then the default one has to be waited for.
        stream = interface.get("stream") if interface["version"] >= 3 else LEGACY_DEFAULT_STREAM
        return cls(interface["data"][0], shape, dtype, stream, owner)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"expected neighbouring rows of a device array, got step {step}")
        shape = (max(0, stop - start), *self.shape[1:])
        return DeviceArray(self.address + start * self.row_bytes, shape, self.dtype, self.stream, self.owner)


Rows = NDArray[Any] | DeviceArray


def as_rows(array: Any) -> Rows:
    """A NumPy array as it is, and any object with ``__cuda_array_interface__`` as a `DeviceArray`."""
    return array if isinstance(array, np.ndarray | DeviceArray) else DeviceArray.of(array)


def _packed_strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) * dtype.itemsize for axis in range(len(shape)))
