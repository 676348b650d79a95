from __future__ import annotations

import numpy as np
import pytest

from engine.video.interlacing import is_combed, show_field
from tests.videos import moving_frames


def woven(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The top field of one picture and the bottom field of another."""
    picture = first.copy()
    picture[1::2] = second[1::2]
    return picture


@pytest.fixture(scope="module")
def textured() -> list[np.ndarray]:
    """A picture with edges, and the same moved by 12 pixels."""
    blocks = np.random.default_rng(0).integers(0, 256, size=(18, 24), dtype=np.uint8)
    large = np.kron(blocks, np.ones((10, 10), dtype=np.uint8))
    return [large[:160, :200], large[:160, 12:212]]


class TestIsCombed:
    def test_two_fields_of_a_moving_picture(self, textured: list[np.ndarray]) -> None:
        assert is_combed(woven(*textured))

    def test_two_fields_of_a_still_picture(self, textured: list[np.ndarray]) -> None:
        assert not is_combed(woven(textured[0], textured[0]))

    @pytest.mark.parametrize("sigma", [5, 20, 60])
    def test_noise(self, textured: list[np.ndarray], sigma: float) -> None:
        noise = np.random.default_rng(1).normal(0, sigma, size=textured[0].shape)
        assert not is_combed(np.clip(textured[0] + noise, 0, 255).astype(np.uint8))

    def test_smooth_pictures(self) -> None:
        assert not any(is_combed(frame[..., 1]) for frame in moving_frames(5))

    @pytest.mark.parametrize("height", [1, 2, 3])
    def test_pictures_of_a_few_lines(self, height: int) -> None:
        assert not is_combed(np.zeros((height, 20), dtype=np.uint8))


class TestShowField:
    @pytest.mark.parametrize("bottom", [False, True])
    def test_nothing_of_the_other_field_is_left(self, bottom: bool) -> None:
        one, other = np.full((16, 8, 3), 50, np.uint8), np.full((16, 8, 3), 200, np.uint8)
        np.testing.assert_array_equal(show_field(woven(one, other), bottom=bottom), other if bottom else one)

    @pytest.mark.parametrize("bottom", [False, True])
    def test_the_picture_stays_in_its_place(self, bottom: bool) -> None:
        ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(6, axis=1)
        difference = show_field(ramp, bottom=bottom)[8:-8].astype(int) - ramp[8:-8]
        assert np.abs(difference).max() <= 2  # a line
