"""Edits that only training and `benchmarks.per_edit` draw: each one's effect against plain NumPy or a known picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.videos import moving_frames
from training.footage.edits import EDITS, Edit
from training.footage.edits.bars import CaptionBar, PadUneven
from training.footage.edits.tone import (
    Gamma,
    LowResolution,
    Posterize,
    SaltAndPepper,
    SqueezeContrast,
    SwapChannels,
    Tint,
    TurnHue,
)
from training.footage.edits.wide import MORE_EDITS

CLIP = moving_frames(3, height=91, width=122, seed=1)
BLACK = np.zeros((90, 120, 3), np.uint8)


def first(edit: Edit, frame: NDArray[np.uint8] = CLIP[0]) -> NDArray[np.float64]:
    return next(edit.apply(iter([frame]))).astype(np.float64)


def test_they_have_names_of_their_own_and_change_no_set_that_is_drawn_from_a_seed() -> None:
    assert not set(EDITS) & set(MORE_EDITS)
    assert all(kind.name == name for name, kind in MORE_EDITS.items())


@pytest.mark.parametrize("exponent", [0.4, 2.5])
def test_gamma_is_a_power_of_the_level(exponent: float) -> None:
    assert np.abs(first(Gamma(exponent)) - 255 * (CLIP[0] / 255) ** exponent).max() <= 0.5


def test_squeezed_contrast_maps_black_and_white_to_its_ends() -> None:
    edited = first(SqueezeContrast(low=0.2, high=0.6))
    assert np.abs(edited - (51 + 102 * (CLIP[0] / 255))).max() <= 0.5


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_posterize_leaves_few_levels_in_their_order(bits: int) -> None:
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    levels = first(Posterize(bits), frame)[..., 0].ravel()
    assert len(set(levels.tolist())) == 2**bits
    assert (np.diff(levels) >= 0).all()
    assert (levels[0], levels[-1]) == (0, 255)


def test_tint_is_a_layer_over_the_grey_or_coloured_frame() -> None:
    gray = (CLIP[0] @ [0.299, 0.587, 0.114])[..., None]
    expected = 0.6 * (0.25 * CLIP[0] + 0.75 * gray) + 0.4 * np.array([200, 10, 90])
    assert np.abs(first(Tint((200, 10, 90), amount=0.4, saturation=0.25)) - expected).max() <= 2


def test_swapped_channels_hold_the_values_of_others() -> None:
    assert np.array_equal(first(SwapChannels((2, 0, 1))), CLIP[0][..., [2, 0, 1]])


def test_a_turned_hue_turns_red_into_green_and_leaves_grey() -> None:
    frame = np.array([[[255, 0, 0], [90, 90, 90]]], np.uint8)
    assert first(TurnHue(120.0), frame).tolist() == [[[0, 255, 0], [90, 90, 90]]]


def test_salt_and_pepper_lie_on_their_share_of_the_pixels_and_move() -> None:
    gray = np.full((200, 200, 3), 100, np.uint8)
    one, two = SaltAndPepper(share=0.1, seed=3).apply(iter([gray, gray]))
    assert (one == 0).all(axis=2).mean() == pytest.approx(0.05, abs=0.01)
    assert (one == 255).all(axis=2).mean() == pytest.approx(0.05, abs=0.01)
    assert not np.array_equal(one, two)


def test_low_resolution_keeps_the_size_and_loses_detail() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    edited = first(LowResolution(0.25), frame)
    assert edited.shape == frame.shape
    assert edited.std() < 0.35 * frame.std()


@pytest.mark.parametrize(
    ("place", "rows"), [("top", slice(0, 18)), ("bottom", slice(72, 90)), ("lower_third", slice(65, 83))]
)
def test_a_bar_on_the_frame_covers_its_rows_with_colour_and_text(place: Any, rows: slice) -> None:
    edited = first(CaptionBar(place, 0.2, "a line", 1, (10, 200, 30), 255), BLACK)
    assert edited.shape == BLACK.shape
    covered = (edited == (10, 200, 30)).all(axis=2)
    assert covered[rows].mean() > 0.6
    assert not covered[rows].all()
    assert not np.delete(edited, np.arange(90)[rows], axis=0).any()


@pytest.mark.parametrize("place", ["above", "below"])
def test_a_bar_beside_the_frame_makes_it_higher(place: Any) -> None:
    edited = first(CaptionBar(place, 0.25, "two lines", 2, (0, 0, 0), 160))
    bar_px = round(0.25 * 91)
    assert edited.shape == (91 + bar_px, 122, 3)
    assert np.array_equal(edited[bar_px:] if place == "above" else edited[:91], CLIP[0])


def test_the_opacity_of_a_bar_lets_the_frame_through() -> None:
    white = np.full((90, 120, 3), 255, np.uint8)
    edited = first(CaptionBar("bottom", 0.2, "x", 1, (0, 0, 0), 153), white)
    assert edited[80, 2].tolist() == pytest.approx([0.4 * 255] * 3, abs=2)


def test_uneven_borders_lie_where_they_are_said_to() -> None:
    edited = first(PadUneven((0.1, 0.0, 0.3, 0.2), (1, 2, 3)))
    assert edited.shape == (91 + 18, 122 + 12 + 37, 3)
    assert np.array_equal(edited[:91, 12:134], CLIP[0])
    assert (edited[:, :12] == (1, 2, 3)).all()
    assert (edited[91:] == (1, 2, 3)).all()
