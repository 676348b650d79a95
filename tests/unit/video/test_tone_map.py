from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from engine.video.tone_map import KNEE, PEAK, Transfer, compress, display_light, tone_map

# What a standard recording would hold for a grey of so many cd/m2, 203 being white: BT.1886, gamma 2.4.
GREYS_CDM2 = [1.0, 5.0, 20.0, 50.0, 100.0, 150.0]


def pq_code(light_cdm2: float) -> float:
    """SMPTE ST 2084, equation 5.2."""
    power = (light_cdm2 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_code(light_cdm2: float) -> float:
    """BT.2100 table 5 for greys: inverse OOTF of a display of 1,000 cd/m2, then the OETF."""
    scene = (light_cdm2 / 1000) ** (1 / 1.2)
    return math.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073


CODES = {"pq": pq_code, "hlg": hlg_code}


def mapped(y: float, cb: float, cr: float, transfer: Transfer) -> np.ndarray:
    planes = [Image.fromarray(np.full((2, 2), round(value), np.uint8)) for value in (y, cb, cr)]
    return np.asarray(tone_map(Image.merge("RGB", planes), transfer))[0, 0]


@pytest.mark.parametrize("transfer", CODES)
class TestToneMap:
    @pytest.mark.parametrize("light", GREYS_CDM2)
    def test_what_is_darker_than_white_stays(self, transfer: Transfer, light: float) -> None:
        expected = 255 * (light / 203) ** (1 / 2.4)
        found = mapped(255 * CODES[transfer](light), 128, 128, transfer)
        assert found.tolist() == pytest.approx([expected] * 3, abs=3.5)  # a step of the 8-bit code is as much

    def test_black_and_white(self, transfer: Transfer) -> None:
        assert mapped(0, 128, 128, transfer).max() <= 1
        assert mapped(255, 128, 128, transfer).min() >= 250  # interpolated from colors that are clipped beside it

    def test_brighter_is_brighter(self, transfer: Transfer) -> None:
        ramp = np.array([mapped(code, 128, 128, transfer)[1] for code in range(0, 256, 3)]).astype(int)
        assert (np.diff(ramp) >= 0).all()

    def test_light(self, transfer: Transfer) -> None:
        for light in (*GREYS_CDM2, 203.0, 600.0, 1000.0):
            found = display_light(np.full(3, CODES[transfer](light)), transfer)
            np.testing.assert_allclose(found, light, rtol=1e-4)


def test_colors_of_bt709_come_back() -> None:
    """Linear RGB of BT.709 to PQ in BT.2020 by the matrix of ITU-R BT.2087, and back, as the reference reads BT.709."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    for linear in ([0.5, 0.1, 0.1], [0.1, 0.4, 0.2], [0.05, 0.1, 0.5], [0.5, 0.5, 0.05]):
        coded = np.array([pq_code(203 * value) for value in to_2020 @ linear])
        y = coded @ [0.2627, 0.6780, 0.0593]
        cb, cr = (coded[2] - y) / 1.8814, (coded[0] - y) / 1.4746
        found = mapped(255 * y, 255 * cb + 128, 255 * cr + 128, "pq")
        red, green, blue = np.array(linear) ** (1 / 2.4)
        y709 = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        b, r = (blue - y709) / 1.8556, (red - y709) / 1.5748
        as_601 = 255 * np.clip([y709 + 1.402 * r, y709 - 0.344136 * b - 0.714136 * r, y709 + 1.772 * b], 0, 1)
        assert np.abs(found - as_601).max() < 12  # codes of 8 bits leave as much in saturated colors


def test_compression_is_smooth_and_ends_at_white() -> None:
    light = np.linspace(0, 2 * PEAK, 10_001)
    found = compress(light)
    steps = np.diff(found) / np.diff(light)
    np.testing.assert_allclose(found[light <= KNEE], light[light <= KNEE])
    assert (steps >= -1e-12).all()
    assert steps.max() <= 1 + 1e-9
    assert compress(np.array([PEAK, 10 * PEAK])).tolist() == pytest.approx([1, 1])
    around = np.searchsorted(light, KNEE)
    np.testing.assert_allclose(steps[around - 3 : around + 3], 1, atol=0.05)
