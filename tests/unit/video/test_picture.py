"""Inputs made of planes are those made of RGB, but for rounding and the edges of colors."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.records import Media
from engine.video.color import rgb_from_planes
from engine.video.picture import Picture, Planes
from engine.video.pyav import PyAvFrameSource
from engine.video.resize import fit_picture
from engine.video.source import InputSpec
from tests.photographs import slideshow
from tests.videos import moving_frames, write_video

SPEC = InputSpec("a", 224)


def planes_of(rgb: NDArray[np.uint8], *, pixel_format: str = "yuvj420p") -> Planes:
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
    found = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
    return found[0], found[1], found[2]


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuvj422p", "yuvj444p"])
@pytest.mark.parametrize("size", [(288, 512), (480, 270), (120, 160)])
def test_inputs_of_planes_differ_from_those_of_rgb_by_less_than_a_grey_level(
    pixel_format: str, size: tuple[int, int]
) -> None:
    for photo in slideshow("astronaut", "coffee", "chelsea", num_seconds=1, height=size[0], width=size[1])[::10]:
        planes = planes_of(photo, pixel_format=pixel_format)
        found = Picture(planes).fit(SPEC)
        difference = np.abs(found.astype(np.int16) - fit_picture(rgb_from_planes(*planes), SPEC))
        assert difference.mean() < 1
        assert np.quantile(difference, 0.99) <= 8


@pytest.mark.parametrize("level", [0, 77, 255])
def test_grey_stays_as_it_is(level: int) -> None:
    planes = np.full((96, 128), level, np.uint8), *(np.full((48, 64), 128, np.uint8) for _ in range(2))
    np.testing.assert_array_equal(Picture((planes[0], planes[1], planes[2])).fit(SPEC), level)


def test_other_fits_are_made_of_rgb() -> None:
    planes = planes_of(moving_frames(1)[0])
    spec = InputSpec("a", 48, "center_crop")
    np.testing.assert_array_equal(Picture(planes).fit(spec), fit_picture(rgb_from_planes(*planes), spec))


def test_rgb_is_made_once_and_again_where_it_was_dropped() -> None:
    picture = Picture(planes_of(moving_frames(1)[0]))
    assert (picture.num_bytes, picture.num_bytes_with_rgb) == (96 * 128 * 3 // 2, 96 * 128 * 9 // 2)
    rgb = picture.rgb
    assert picture.rgb is rgb
    picture.drop_rgb()
    assert picture.rgb is not rgb
    np.testing.assert_array_equal(picture.rgb, rgb)
    given = Picture(rgb)
    given.drop_rgb()
    assert given.rgb is rgb
    assert given.num_bytes == rgb.nbytes


@pytest.mark.parametrize("cache_bytes", [0, 96 * 128 * 3 * 2, 1 << 28])
def test_sources_of_planes_give_the_same_rgb_in_every_pass(tmp_path: Path, cache_bytes: int) -> None:
    write_video(tmp_path / "v.mp4", moving_frames(40), fps=10)
    media = Media("v", tmp_path / "v.mp4")
    expected = list(PyAvFrameSource(media).pictures())
    source = PyAvFrameSource(media, cache_bytes=cache_bytes, resizes_planes=True)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(source.pictures())), np.stack(expected))


@pytest.mark.parametrize("size", [(97, 128), (96, 129)])
def test_pictures_of_odd_size_are_resized_as_rgb(tmp_path: Path, size: tuple[int, int]) -> None:
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(1))
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for frame in moving_frames(3, height=size[0], width=size[1]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    sources = [PyAvFrameSource(Media("v", tmp_path / "v.mkv"), resizes_planes=planes) for planes in (False, True)]
    one, other = (np.concatenate([chunk.inputs["a"] for chunk in each.model_inputs([SPEC])]) for each in sources)
    np.testing.assert_array_equal(one, other)
