"""Which pictures say nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.video.blank import find_blank
from tests.videos import moving_frames
from training.footage.blank import BARS

SIZES = [(224, 224), (216, 384), (32, 32), (16, 20)]


def one_color(height: int, width: int, color: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def drawn(height: int, width: int) -> NDArray[np.uint8]:
    """A dark circle on a little brighter ground, as in a night scene: 12 grey levels apart."""
    picture = one_color(height, width, (12, 14, 20))
    cv2.circle(picture, (width // 2, height // 2), height // 3, (0, 2, 8), -1)
    return picture


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (0, 0, 255), (16, 16, 16)])
def test_one_color_is_blank(height: int, width: int, color: tuple[int, int, int]) -> None:
    assert find_blank(one_color(height, width, color)[None]).tolist() == [True]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bars_and_ramps_are_blank(height: int, width: int) -> None:
    bars = np.array(BARS, np.uint8)[np.arange(width) * len(BARS) // width]
    ramp = np.linspace(0, 255, height).astype(np.uint8)[:, None, None]
    frames = [np.broadcast_to(bars, (height, width, 3)), np.broadcast_to(ramp, (height, width, 3))]
    assert find_blank(np.stack(frames)).all()


def test_faint_noise_is_blank() -> None:
    noise = np.random.default_rng(0).normal(20, 8, (3, 224, 224, 3))
    assert find_blank(np.clip(noise, 0, 255).astype(np.uint8)).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pictures_are_not(height: int, width: int) -> None:
    frames = [drawn(height, width), *moving_frames(3, height=height, width=width)]
    assert not find_blank(np.stack(frames)).any()


def test_a_color_that_changes_alone_is_a_picture() -> None:
    """Red and green squares of one luma."""
    squares = np.indices((8, 8)).sum(axis=0) % 2
    picture = np.where(squares[..., None] == 0, np.uint8([150, 0, 0]), np.uint8([0, 76, 0]))
    assert not find_blank(cv2.resize(picture, (224, 224), interpolation=cv2.INTER_NEAREST)[None]).any()


def test_each_frame_is_told_by_itself() -> None:
    frames = np.stack([one_color(64, 96, (0, 0, 0)), drawn(64, 96), one_color(64, 96, (9, 9, 9))])
    assert find_blank(frames).tolist() == [True, False, True]
