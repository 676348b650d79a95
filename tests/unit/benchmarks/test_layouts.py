from __future__ import annotations

import numpy as np

from benchmarks.layouts import WIDTHS, boxes_of, measure, put_inset
from engine.config import Scenes
from tests.videos import moving_frames

CONFIG = Scenes(max_insets=4)


def test_an_inset_keeps_its_aspect_ratio_and_lies_in_the_frame() -> None:
    over, inset = moving_frames(3, height=144, width=256), moving_frames(3, height=90, width=120, seed=1)
    rng = np.random.default_rng(0)
    for width in WIDTHS:
        pictures, (x0, y0, x1, y1) = put_inset(over, inset, width=width, quality=90, rng=rng)
        assert len(pictures) == 3
        assert 0 <= x0 < x1 <= 256
        assert 0 <= y0 < y1 <= 144
        assert abs((x1 - x0) / (y1 - y0) - 120 / 90) < 0.05
        outside = np.ones((144, 256), bool)
        outside[y0:y1, x0:x1] = False
        assert np.abs(pictures[0].astype(int) - over[0])[outside].mean() < 12


def test_insets_of_drawn_footage_are_found_and_plain_footage_has_few() -> None:
    plain = [moving_frames(8, height=144, width=256, seed=seed) for seed in range(3)]
    references = [moving_frames(8, height=144, width=256, seed=10 + seed) for seed in range(3)]
    recalls = measure(references, plain, CONFIG, quality=80)
    assert [row.width for row in recalls] == list(WIDTHS)
    assert all(row.num_first <= row.num_found <= row.num_insets == 3 for row in recalls)
    assert sum(row.num_found for row in recalls) >= 10
    assert sum(len(boxes_of(pictures, CONFIG)) for pictures in plain) <= 2
