"""Sizes by hand-computed numbers; resizing on flat and stepped pictures whose result is known."""

from __future__ import annotations

import numpy as np
import pytest

from training.footage.resizing import contain, corner_of, cover, even, limit_short_side, paste, resize, scaled, size_of


def test_sizes() -> None:
    assert size_of(np.zeros((3, 5, 3), np.uint8)) == (5, 3)
    assert scaled((100, 40), 0.5, 0.01) == (50, 2)
    assert limit_short_side((640, 480), 240) == (320, 240)
    assert limit_short_side((90, 160), 240) == (90, 160)
    assert even((161, 90)) == (160, 90)
    assert corner_of((10, 20), (110, 20), x=0.25, y=1) == (25, 0)


def test_resize_averages_when_shrinking() -> None:
    frame = np.arange(16, dtype=np.uint8).reshape(4, 4)[..., None].repeat(3, axis=2) * 4
    means = frame.reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))
    assert np.array_equal(resize(frame, (2, 2)), means.astype(np.uint8))


def test_resize_to_the_same_size_changes_nothing() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    assert np.array_equal(resize(frame, (9, 7)), frame)


def test_cover_cuts_the_sides_evenly() -> None:
    frame = np.zeros((10, 40, 3), np.uint8)
    frame[:, 15:25] = 200
    assert (cover(frame, (20, 20)) == 200).all()


def test_contain_adds_black_evenly() -> None:
    fitted = contain(np.full((10, 40, 3), 200, np.uint8), (20, 20))
    assert fitted.shape == (20, 20, 3)
    assert [int(row) for row in fitted[:, 0, 0]] == [0] * 8 + [200] * 5 + [0] * 7


@pytest.mark.parametrize("size", [(33, 17), (16, 90), (2, 2), (201, 3)])
def test_any_shape_fits_any_size(size: tuple[int, int]) -> None:
    frame = np.full((48, 64, 3), 99, np.uint8)
    assert size_of(cover(frame, size)) == size_of(contain(frame, size)) == size
    assert (cover(frame, size) == 99).all()


def test_paste_leaves_the_canvas_alone() -> None:
    canvas = np.zeros((4, 4, 3), np.uint8)
    pasted = paste(canvas, np.ones((1, 2, 3), np.uint8), (2, 3))
    assert not canvas.any()
    assert np.argwhere(pasted[..., 0]).tolist() == [[3, 2], [3, 3]]
