"""Rows are checked against what an engine takes, and joined; what runners do with them is in tests/contracts."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.runtime.device_array import DeviceArray
from engine.runtime.runner import TensorSpec, check_tensors, join_host_rows

SPECS = (TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "uint8", (None, None, 3)))


def tensors(num_rows: int, *, width: int = 4) -> dict[str, np.ndarray]:
    return {"x": np.zeros((num_rows, 2), np.float32), "y": np.ones((num_rows, width, 3), np.uint8)}


def test_dimensions_that_the_caller_chooses_fit_any_size() -> None:
    for width in (1, 9):
        check_tensors(tensors(2, width=width), SPECS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 2))}, r"'x': expected float32 \(n, 2\), got float64 \(2, 2\)"),
        ({"y": np.zeros((2, 4, 1), np.uint8)}, r"'y': expected uint8 \(n, n, 3\), got uint8 \(2, 4, 1\)"),
        ({"x": np.zeros((3, 2), np.float32)}, r"same number of rows, 1 or more, .*\{'x': 3, 'y': 2\}"),
        ({"z": np.zeros(2)}, r"expected inputs \['x', 'y'\], got \['x', 'y', 'z'\]"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_tensors(tensors(2) | change, SPECS)


def test_a_single_part_is_not_copied_and_several_follow_each_other() -> None:
    part = tensors(2)
    assert join_host_rows([part], SPECS)["x"] is part["x"]
    joined = join_host_rows([part, {"x": part["x"] + 1, "y": part["y"]}], SPECS)
    assert joined["x"][:, 0].tolist() == [0, 0, 1, 1]
    assert joined["y"].shape == (4, 4, 3)


def test_every_part_is_checked_and_rows_on_a_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match="got \\['x'\\]"):
        join_host_rows([tensors(2), {"x": np.zeros((1, 2), np.float32)}], SPECS)
    on_gpu = DeviceArray(4096, (2, 2), np.dtype("float32"), None, None)
    with pytest.raises(ConfigError, match="'x' lies on a GPU"):
        join_host_rows([tensors(2) | {"x": on_gpu}], SPECS)
