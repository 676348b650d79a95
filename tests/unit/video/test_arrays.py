"""Frames that a caller has decoded: times, and one line for whatever is no video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.video.arrays import ArrayFrameSource
from engine.video.source import InputSpec

FRAMES = np.zeros((3, 8, 12, 3), np.uint8)


def times(source: ArrayFrameSource) -> list[list[float]]:
    chunks = source.model_inputs([InputSpec("a", 4)])
    return np.concatenate([chunk.timestamps for chunk in chunks]).tolist()


def test_a_frame_lasts_until_the_next_one_and_the_last_as_long_as_the_one_before() -> None:
    assert times(ArrayFrameSource(FRAMES, [0, 0.5, 2.5], fps=1)) == [[0, 0.5], [0.5, 2.5], [2.5, 4.5]]
    assert times(ArrayFrameSource(FRAMES[:1], np.array([3.0]), fps=4)) == [[3, 3.25]]


def test_other_memory_layouts_are_read() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    flipped = ArrayFrameSource(pictures[..., ::-1], [0, 1, 2], fps=1)
    plain = ArrayFrameSource(np.ascontiguousarray(pictures[..., ::-1]), [0, 1, 2], fps=1)
    for one, other in zip(*(source.model_inputs([InputSpec("a", 4)]) for source in (flipped, plain)), strict=True):
        np.testing.assert_array_equal(one.inputs["a"], other.inputs["a"])
    np.testing.assert_array_equal(flipped.scene_statistics().variance, plain.scene_statistics().variance)


@pytest.mark.parametrize(
    "frames",
    [
        FRAMES[0],
        FRAMES[..., :1],
        FRAMES[:0],
        FRAMES[:, :0],
        FRAMES.astype(np.float32),
        np.moveaxis(FRAMES, 3, 1),
        [FRAMES[0], FRAMES[1, :4]],
        "a.mp4",
        None,
    ],
)
def test_what_is_no_stack_of_frames_is_refused(frames: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected RGB uint8 \(N, H, W, 3\)") as error:
        ArrayFrameSource(frames, [0, 1, 2], fps=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("timestamps_s", "reason"),
    [
        ([0, 1], r"shape \(2,\) .* for 3 frames"),
        (1.0, r"shape \(\)"),
        ([[0, 1], [1, 2], [2, 3]], r"shape \(3, 2\)"),
        (["0", "1", "2"], "numbers of shape"),
        ([0, [1, 2], 3], "numbers of shape"),
        ([0, 1, None], "numbers of shape"),
        ([0, 1, np.nan], "NaN or infinite"),
        ([0, 1, np.inf], "NaN or infinite"),
        ([-1, 0, 1], "negative"),
        ([0, 2, 1], "frame 2 begins at 1 s, the one before it at 2 s"),
        ([0, 1, 1], "must rise"),
        (np.array([1e6, 1e6 + 1e-3, 1e6 + 1]), "must rise"),  # float32 cannot tell the first two apart
    ],
)
def test_other_times_are_refused(timestamps_s: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        ArrayFrameSource(FRAMES, timestamps_s, fps=1)
    assert "\n" not in str(error.value)
