from __future__ import annotations

import numpy as np
import pytest

from training.descriptor.reference_views import ReferenceViews
from training.descriptor.views import NEVER_TRAINED, EditedViews, Views, WideViews, draw_kinds, random_crop
from training.footage.edits import EDITS, Edit
from training.footage.edits.wide import MORE_EDITS, draw_wide
from training.footage.resizing import Frame

VIEWS = [
    EditedViews(),
    ReferenceViews(hard_mix=(0.5, 0.5), overlay_probability=0.5, min_crop_area=0.5),
    WideViews(max_edits=7, both_probability=0.5),
]


def picture(seed: int, height: int = 60, width: int = 80) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("views", VIEWS, ids=["edited", "reference", "wide"])
def test_views_are_squares_that_the_seed_decides(views: Views) -> None:
    for seed in range(30):
        drawn = [views.draw(np.random.default_rng(seed), picture(1), lambda: picture(2), input_px=32) for _ in range(2)]
        for first, again in zip(*drawn, strict=True):
            assert first.shape == (32, 32, 3)
            assert first.dtype == np.uint8
            np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("views", VIEWS, ids=["edited", "reference", "wide"])
@pytest.mark.parametrize("size", [(2, 3), (200, 11)])
def test_odd_pictures_do_not_break_them(views: Views, size: tuple[int, int]) -> None:
    for seed in range(60):
        assert len(views.draw(np.random.default_rng(seed), picture(3, *size), lambda: picture(4), input_px=16)) == 2


@pytest.mark.parametrize("views", VIEWS, ids=["edited", "reference", "wide"])
def test_the_picture_itself_is_not_changed(views: Views) -> None:
    original = picture(5)
    kept = original.copy()
    for seed in range(30):
        views.draw(np.random.default_rng(seed), original, lambda: original, input_px=16)
    np.testing.assert_array_equal(original, kept)


def test_training_draws_each_kind_for_pictures_but_those_kept_for_validation() -> None:
    rng = np.random.default_rng(0)
    drawn = {kind.name for _ in range(600) for kind in draw_kinds(rng, num_edits=4)}
    assert drawn == set(EDITS) - NEVER_TRAINED - {"change_video_speed", "fps", "encoding_quality"}


def test_a_hard_view_has_as_many_edits_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(rng: np.random.Generator, *, num_edits: int) -> list[type[Edit]]:
        counts.append(num_edits)
        return draw_kinds(rng, num_edits=num_edits)

    monkeypatch.setattr("training.descriptor.views.draw_kinds", counted)
    for seed in range(40):
        EditedViews(min_edits=2, max_edits=3).draw(
            np.random.default_rng(seed), picture(7), lambda: picture(8), input_px=16
        )
    assert set(counts) == {2, 3}


def test_a_crop_has_the_area_that_was_asked_for() -> None:
    rng = np.random.default_rng(1)
    areas = [random_crop(rng, picture(6, 300, 400), area=(0.5, 0.6)).size / (300 * 400 * 3) for _ in range(200)]
    # Where a stretched side would be longer than the picture it is cut, which makes the area smaller.
    assert min(areas) > 0.4
    assert max(areas) < 0.61


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_second_wide_view_is_edited_as_often_as_asked_for(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(rng: np.random.Generator, *, num_edits: int) -> list[Edit]:
        counts.append(num_edits)
        return draw_wide(rng, num_edits=num_edits)

    monkeypatch.setattr("training.descriptor.views.draw_wide", counted)
    for seed in range(20):
        views = WideViews(min_edits=3, max_edits=4, both_probability=share)
        views.draw(np.random.default_rng(seed), picture(7), lambda: picture(8), input_px=16)
    assert set(counts) == ({1, 2, 3, 4} if share else {3, 4})


def test_wide_edits_are_of_all_kinds_for_pictures_a_group_each() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_wide(rng, num_edits=4) for _ in range(600)]
    assert {edit.name for edits in drawn for edit in edits} == (
        set(EDITS | MORE_EDITS) - {"change_video_speed", "fps", "encoding_quality"}
    )
    assert all(len(edits) == 4 for edits in drawn)
