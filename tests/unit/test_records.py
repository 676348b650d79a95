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


@pytest.mark.parametrize("ends_s", [(), (0.0,), (2.0, 1.0), (1.0, 1.0), (float("nan"),)])
def test_ends_of_shots_rise(ends_s: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected shot_ends_s to rise from above 0"):
        Descriptors("Q1", times(1), np.ones((1, 4), np.float32), shot_ends_s=ends_s)


def test_a_video_is_as_long_as_its_last_shot_or_row_says() -> None:
    rows = np.ones((1, 4), np.float32)
    assert Descriptors("Q1", np.array([[0, 9]], np.float32), rows).duration_s == 9
    assert Descriptors("Q1", np.array([[0, 9]], np.float32), rows, shot_ends_s=(4.0, 9.36)).duration_s == 9.36


def test_region_gives_box_and_size() -> None:
    region = Region(1, 2, 11, 22)
    assert region.box == (1, 2, 11, 22)
    assert region.size == (10, 20)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 4, 5), (-1, 0, 4, 5)])
def test_empty_or_negative_region_fails(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="empty or negative"):
        Region(*box)
