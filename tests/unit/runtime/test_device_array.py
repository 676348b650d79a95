"""Rows in device memory, seen by address; the interface is checked against NumPy's own arithmetic of strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.runtime.device_array import LEGACY_DEFAULT_STREAM, DeviceArray, as_rows


class Owner:
    """What a library that decodes on a GPU hands over."""

    def __init__(self, shape: tuple[int, ...], *, dtype: str = "|u1", **changes: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": dtype,
            "data": (4096, False),
            "version": 3,
        } | changes


def test_reads_what_the_interface_says() -> None:
    owner = Owner((5, 4, 4, 3), stream=7)
    array = DeviceArray.of(owner)
    assert (array.address, array.shape, array.dtype, array.stream) == (4096, (5, 4, 4, 3), np.uint8, 7)
    assert (len(array), array.row_bytes) == (5, 48)
    assert array.owner is owner


@pytest.mark.parametrize("rows", [slice(0, 2), slice(1, 4), slice(3, None), slice(-2, None), slice(4, 9), slice(2, 2)])
def test_a_slice_lies_where_numpy_would_put_it(rows: slice) -> None:
    host = np.zeros((5, 2, 3), np.float32)
    part = DeviceArray.of(Owner((5, 2, 3), dtype="<f4"))[rows]
    assert part.shape == host[rows].shape
    if len(part):
        offset = host[rows].__array_interface__["data"][0] - host.__array_interface__["data"][0]
        assert part.address - 4096 == offset


def test_strides_may_be_named_if_they_are_those_of_packed_rows() -> None:
    assert DeviceArray.of(Owner((5, 2, 3), strides=(6, 3, 1))).shape == (5, 2, 3)
    with pytest.raises(ValueError, match=r"C-contiguous .* shape \(5, 2, 3\) with strides \(12, 3, 1\)"):
        DeviceArray.of(Owner((5, 2, 3), strides=(12, 3, 1)))


def test_before_version_3_the_default_stream_is_waited_for() -> None:
    assert DeviceArray.of(Owner((1,), version=2)).stream == LEGACY_DEFAULT_STREAM
    assert DeviceArray.of(Owner((1,))).stream is None


def test_rows_are_not_taken_apart() -> None:
    with pytest.raises(ValueError, match="step 2"):
        DeviceArray.of(Owner((4, 2)))[::2]


def test_arrays_in_host_memory_stay_what_they_are() -> None:
    host = np.zeros(3)
    assert as_rows(host) is host
    array = as_rows(Owner((2, 2)))
    assert isinstance(array, DeviceArray)
    assert as_rows(array) is array
