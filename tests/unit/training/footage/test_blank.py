from __future__ import annotations

import numpy as np

from training.footage.blank import BARS, GRAYS, TITLE_COLORS, TITLE_SHAPES, blank_pictures


def test_there_are_plain_ones_bars_ramps_and_noise() -> None:
    pictures = blank_pictures(64)
    assert pictures.shape == (11 + 6 + 4 + 1 + 4 + 12 + 2 + 2 * 3 * 5, 64, 64, 3)
    assert pictures.dtype == np.uint8
    plain = [picture for picture in pictures if (picture == picture[0, 0]).all()]
    assert len(plain) == 21
    assert [int(picture[0, 0, 0]) for picture in plain[: len(GRAYS)]] == list(GRAYS)
    bars = pictures[21]
    assert [tuple(color) for color in bars[5, 4::8].tolist()] == list(BARS)
    ramps = pictures[22:26]
    assert (np.diff(ramps[0].astype(int), axis=0) >= 0).all()
    np.testing.assert_array_equal(ramps[0], ramps[1][::-1])
    np.testing.assert_array_equal(ramps[2], ramps[0].transpose(1, 0, 2))
    titles = pictures[-2 * len(TITLE_COLORS) * len(TITLE_SHAPES) :]
    assert all(tuple(picture[0, 0]) in {ground for ground, _ in TITLE_COLORS} for picture in titles)
    assert all(0.01 < (picture != picture[0, 0]).any(axis=2).mean() < 0.5 for picture in titles)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_they_are_the_same_each_time() -> None:
    np.testing.assert_array_equal(blank_pictures(32), blank_pictures(32))
