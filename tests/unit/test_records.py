"""Records check themselves on creation."""

from __future__ import annotations

import numpy as np
import pytest

from engine.records import Descriptors, Region


def times(num_rows: int) -> np.ndarray:
    return np.zeros((num_rows, 2), np.float32)


def test_descriptors_know_their_length_and_hide_their_numbers() -> None:
    item = Descriptors("Q1", times(3), np.ones((3, 4), np.float32), edit_score=0.5)
    assert len(item) == 3
    assert repr(item) == "Descriptors('Q1', 3 x 4, edit_score=0.5)"


@pytest.mark.parametrize(
    ("timestamps", "rows", "message"),
    [
        (times(2), np.ones((3, 4), np.float32), r"got \(2, 2\) and \(3, 4\)"),
        (times(0), np.ones((0, 4), np.float32), "N >= 1"),
        (times(3), np.ones((3, 4)), "expected float32, got float32 and float64"),
        (times(1), np.full((1, 4), np.nan, np.float32), "expected finite values"),
    ],
)
def test_bad_descriptors_fail(timestamps: np.ndarray, rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Descriptors("Q1", timestamps, rows)


def test_region_gives_box_and_size() -> None:
    region = Region(1, 2, 11, 22)
    assert region.box == (1, 2, 11, 22)
    assert region.size == (10, 20)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 4, 5), (-1, 0, 4, 5)])
def test_empty_or_negative_region_fails(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="empty or negative"):
        Region(*box)
