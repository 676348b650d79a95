from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.video.resize import fit_picture
from engine.video.source import InputSpec
from tests.oracles import bicubic_resize

SIZES = [(96, 128), (128, 96), (300, 301), (47, 33), (224, 224), (90, 720), (360, 480)]


def random_picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size_px", [64, 224])
def test_stretch_is_antialiased_bicubic(height: int, width: int, size_px: int) -> None:
    picture = random_picture(height, width)
    fitted = fit_picture(picture, InputSpec("frames", size_px))
    assert fitted.dtype == np.uint8
    assert fitted.shape == (size_px, size_px, 3)
    difference = np.abs(fitted - bicubic_resize(picture, height=size_px, width=size_px))
    # Pillow works in fixed point: a value that falls on a half may be rounded either way, once in each pass.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.torch
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size_px", [64, 224, 225])
@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_both_fits_equal_torchvision(height: int, width: int, size_px: int, name: Any) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode(name)
    image = Image.fromarray(random_picture(height, width))
    stretch = transforms.Resize((size_px, size_px), interpolation=mode)
    crop = transforms.Compose([transforms.Resize(size_px, interpolation=mode), transforms.CenterCrop(size_px)])
    picture = np.asarray(image)
    np.testing.assert_array_equal(
        fit_picture(picture, InputSpec("a", size_px, interpolation=name)), np.asarray(stretch(image))
    )
    np.testing.assert_array_equal(
        fit_picture(picture, InputSpec("a", size_px, "center_crop", name)), np.asarray(crop(image))
    )


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    picture = random_picture(64, 64)
    for fit in ("stretch", "center_crop"):
        np.testing.assert_array_equal(fit_picture(picture, InputSpec("a", 64, fit=fit)), picture)


def test_a_view_of_a_larger_picture_is_fitted_like_a_copy() -> None:
    view = random_picture(200, 300)[20:120, 50:170]
    spec = InputSpec("a", 64, fit="center_crop")
    np.testing.assert_array_equal(fit_picture(view, spec), fit_picture(view.copy(), spec))
