from __future__ import annotations

import numpy as np
import pytest

from engine.video.color import rgb_from_planes
from tests.oracles import rgb_of_planes


@pytest.mark.parametrize(
    ("luma", "chroma"),
    [((48, 64), (24, 32)), ((47, 63), (24, 32)), ((48, 64), (48, 32)), ((47, 63), (47, 32)), ((48, 64), (48, 64))],
)
def test_colors_against_float64(luma: tuple[int, int], chroma: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 256, size=luma, dtype=np.uint8)
    cb, cr = generator.integers(0, 256, size=(2, *chroma), dtype=np.uint8)
    rgb = rgb_from_planes(y, cb, cr)
    assert rgb.dtype == np.uint8
    difference = np.abs(rgb - rgb_of_planes(*(plane.astype(np.float64) for plane in (y, cb, cr))))
    # Chroma is rounded after each direction (half a level each), blue takes 1.772 times that, and is rounded itself.
    assert difference.max() <= 1.772 + 0.5
    assert difference.mean() < 0.6


def test_planes_may_be_views() -> None:
    generator = np.random.default_rng(1)
    y, cb, cr = (generator.integers(0, 256, size=(16, 40), dtype=np.uint8)[:, :24] for _ in range(3))
    np.testing.assert_array_equal(rgb_from_planes(y, cb, cr), rgb_from_planes(y.copy(), cb.copy(), cr.copy()))


def test_grey_stays_grey() -> None:
    y = np.arange(256, dtype=np.uint8).reshape(16, 16)
    neutral = np.full((8, 8), 128, dtype=np.uint8)
    np.testing.assert_array_equal(rgb_from_planes(y, neutral, neutral), np.repeat(y[..., None], 3, axis=-1))
