from __future__ import annotations

import struct
from itertools import product

import numpy as np
import pytest

from engine.video.orientation import Orientation

RIGHT_ANGLES = [
    (a, b, c, d)
    for a, b, c, d in product((-1, 0, 1), repeat=4)
    if abs(a * d - b * c) == 1 and abs(a) + abs(b) == 1 == abs(c) + abs(d)
]


def matrix(a: float, b: float, c: float, d: float) -> bytes:
    return struct.pack("=9i", *(int(65536 * n) for n in (a, b, 0, c, d, 0, 0, 0, 16384)))


@pytest.mark.parametrize(("a", "b", "c", "d"), RIGHT_ANGLES)
def test_every_pixel_goes_where_the_matrix_sends_it(a: int, b: int, c: int, d: int) -> None:
    picture = np.arange(12).reshape(3, 4)
    places = {}
    for y, x in product(range(3), range(4)):
        places[a * x + c * y, b * x + d * y] = picture[y, x]
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    shown = Orientation.of_matrix(matrix(a, b, c, d)).apply(picture)
    assert shown.flags.c_contiguous
    assert shown.shape == ((3, 4) if a else (4, 3))
    for (x, y), value in places.items():
        assert shown[y - top, x - left] == value


def test_they_are_eight() -> None:
    assert len({Orientation.of_matrix(matrix(*numbers)) for numbers in RIGHT_ANGLES}) == len(RIGHT_ANGLES) == 8


def test_color_channels_stay() -> None:
    picture = np.arange(24).reshape(2, 4, 3)
    turned = Orientation.of_matrix(matrix(0, 1, -1, 0)).apply(picture)
    np.testing.assert_array_equal(turned, np.rot90(picture, -1))


@pytest.mark.parametrize(("numbers", "nearest"), [((0.9, 0.1, -0.1, 0.9), (1, 0, 0, 1)), ((0, 0, 0, 0), (1, 0, 0, 1))])
def test_other_angles_and_nonsense_are_brought_to_the_nearest(
    numbers: tuple[float, ...], nearest: tuple[int, ...]
) -> None:
    assert Orientation.of_matrix(matrix(*numbers)) == Orientation.of_matrix(matrix(*nearest))
