"""Scene statistics against NumPy over the whole stack, and against the recorded edges and variances."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.video.statistics import SceneStatistics, SceneStatisticsAccumulator, edge_frame_indices, edge_map
from tests.conftest import golden_root, recorded

SCENES = golden_root() / "scenes"
STACKS = json.loads((SCENES / "golden.json").read_text())["stacks"] if SCENES.is_dir() else {}


def statistics_of(frames: NDArray[np.uint8]) -> SceneStatistics:
    accumulator = SceneStatisticsAccumulator(num_frames=len(frames))
    for frame in frames:
        accumulator.add(frame)
    return accumulator.finish()


def random_frames(num_frames: int) -> NDArray[np.uint8]:
    return np.random.default_rng(num_frames).integers(0, 256, (num_frames, 23, 31, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [0]),
        (4, [0, 1, 2, 3]),
        (20, list(range(20))),
        (40, list(range(0, 40, 2))),
        # Steps of 1.5, halves to even.
        (30, [0, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21, 22, 24, 26, 27, 28]),
    ],
)
def test_edge_frames_are_all_or_twenty_spread_evenly(num_frames: int, expected: list[int]) -> None:
    assert edge_frame_indices(num_frames) == expected


def test_edge_frames_are_those_of_the_reference_for_every_length() -> None:
    for num_frames in range(21, 3000):
        positions = np.arange(0, num_frames, num_frames / 20)
        assert edge_frame_indices(num_frames) == [int(np.round(position)) for position in positions]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 20, 21, 47])
def test_maps_are_those_of_the_whole_stack(num_frames: int) -> None:
    frames = random_frames(num_frames)
    found = statistics_of(frames)
    edges = [edge_map(frames[index]) for index in edge_frame_indices(num_frames)]
    assert found.num_frames == num_frames
    np.testing.assert_allclose(found.variance, frames.astype(np.float64).var(axis=0).sum(axis=-1), rtol=1e-13)
    np.testing.assert_array_equal(found.edge_mean, np.mean(edges, axis=0))


def test_variance_is_rounded_once() -> None:
    frames = random_frames(7)
    values = [[Fraction(int(value)) for value in channel] for channel in frames[:, 3, 5].T]
    exact = sum(sum(v * v for v in channel) / 7 - (sum(channel) / 7) ** 2 for channel in values)
    assert statistics_of(frames).variance[3, 5] == float(exact)


def test_still_pixels_have_exactly_no_variance() -> None:
    assert not statistics_of(np.repeat(random_frames(1), 37, axis=0)).variance.any()


def test_sums_of_long_videos_do_not_overflow() -> None:
    num_frames = 70_000  # 255^2 * 70,000 exceeds 32 bits
    accumulator = SceneStatisticsAccumulator(num_frames=num_frames)
    dark, light = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    for _ in range(num_frames // 2):
        accumulator.add(dark)
        accumulator.add(light)
    assert accumulator.finish().variance.item() == 3 * 127.5**2


def test_an_edge_is_where_the_strongest_channel_has_one() -> None:
    frame = np.zeros((20, 20, 3), np.uint8)
    frame[:, 10:, 1] = 255
    assert edge_map(frame).any(axis=0).nonzero()[0].tolist() == [9]
    assert edge_map(frame[:, ::2]).dtype == np.bool_


def test_frames_of_two_sizes_are_refused() -> None:
    accumulator = SceneStatisticsAccumulator(num_frames=2)
    accumulator.add(np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ValueError, match="broadcast"):
        accumulator.add(np.zeros((6, 4, 3), np.uint8))


def test_the_number_of_frames_must_be_as_announced() -> None:
    accumulator = SceneStatisticsAccumulator(num_frames=2)
    accumulator.add(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="expected 2 frames, got 1"):
        accumulator.finish()
    with pytest.raises(ValueError, match="expected 0 frames, got 0"):
        SceneStatisticsAccumulator(num_frames=0).finish()


@pytest.mark.parametrize(("num_frames", "shape"), [(0, (2, 2)), (1, (2, 3)), (1, (2, 2, 1))])
def test_statistics_check_themselves(num_frames: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scene statistics: expected"):
        SceneStatistics(num_frames=num_frames, variance=np.zeros(shape), edge_mean=np.zeros((2, 2)))


@pytest.mark.parametrize("name", recorded(STACKS))
def test_recorded_stacks(name: str) -> None:
    expected = STACKS[name]
    frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted((SCENES / name).glob("*.webp"))])
    indices = edge_frame_indices(len(frames))
    edges = np.stack([edge_map(frames[index]) for index in indices])
    found = statistics_of(frames)
    assert indices == expected["canny_frames"]
    assert hashlib.md5(np.packbits(edges).tobytes()).hexdigest() == expected["canny_md5"]  # noqa: S324
    assert round(found.edge_mean.sum() * len(indices)) == expected["canny_sum"]
    np.testing.assert_allclose(found.variance.mean(), expected["var_mean"], rtol=1e-12)
