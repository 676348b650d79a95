from __future__ import annotations

import numpy as np

from benchmarks.layouts import WIDTHS, boxes_of, edited, measure, put_inset
from engine.config import Scenes
from tests.videos import moving_frames

CONFIG = Scenes(max_insets=4)


def test_an_inset_keeps_its_aspect_ratio_and_lies_in_the_frame() -> None:
    over, inset = moving_frames(3, height=144, width=256), moving_frames(3, height=90, width=120, seed=1)
    rng = np.random.default_rng(0)
    for width in WIDTHS:
        pictures, (x0, y0, x1, y1) = put_inset(over, inset, width=width, rng=rng)
        assert len(pictures) == 3
        assert 0 <= x0 < x1 <= 256
        assert 0 <= y0 < y1 <= 144
        assert abs((x1 - x0) / (y1 - y0) - 120 / 90) < 0.05
        outside = np.ones((144, 256), bool)
        outside[y0:y1, x0:x1] = False
        np.testing.assert_array_equal(pictures[0][outside], over[0][outside])


def test_an_edit_moves_the_box_with_its_content() -> None:
    marked = [np.zeros((144, 256, 3), np.uint8) for _ in range(2)]
    for picture in marked:
        picture[40:100, 60:200] = 200
    for seed in range(5):
        pictures, (x0, y0, x1, y1) = edited(marked, (60, 40, 200, 100), rng=np.random.default_rng(seed))
        assert (pictures[0][y0:y1, x0:x1] == 200).all()
        assert (x1 - x0, y1 - y0) == (140, 60)
        assert (pictures[0][y1 + 5 :] == 255).any(), "the caption"


def test_insets_of_drawn_footage_are_found_and_plain_footage_has_few() -> None:
    plain = [moving_frames(8, height=144, width=256, seed=seed) for seed in range(3)]
    references = [moving_frames(8, height=144, width=256, seed=10 + seed) for seed in range(3)]
    recalls = measure(references, plain, CONFIG, quality=80, is_edited=False)
    assert [row.width for row in recalls] == list(WIDTHS)
    assert all(row.num_first <= row.num_found <= row.num_insets == 3 for row in recalls)
    assert sum(row.num_found for row in recalls) >= 10
    assert sum(len(boxes_of(pictures, CONFIG)) for pictures in plain) <= 2
