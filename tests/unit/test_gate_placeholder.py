"""What stands for a video that the gate stopped."""

from __future__ import annotations

import numpy as np

from engine.describe.gate import gated_placeholder, is_held, shut_out
from engine.records import Descriptors
from engine.video.sampling import slot_timestamps


def video(*, gated: bool) -> Descriptors:
    rows = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    return Descriptors("Q1", slot_timestamps(3), rows, edit_score=0.25, gated=gated)


def test_placeholders_depend_on_the_id_alone() -> None:
    one, again, other = (
        gated_placeholder(name, slot_timestamps(1), edit_score=0, num_dims=512) for name in ("a", "a", "b")
    )
    np.testing.assert_array_equal(one.descriptors, again.descriptors)
    assert (one.descriptors != other.descriptors).any()
    assert 0 < np.abs(one.descriptors).max() < 1e-5


def test_a_stopped_video_with_rows_is_held() -> None:
    held = video(gated=True)
    assert is_held(held)
    assert not is_held(video(gated=False))
    assert not is_held(gated_placeholder("Q1", slot_timestamps(1), edit_score=0, num_dims=8))


def test_shutting_out_leaves_what_the_gate_would_have_left() -> None:
    stopped = shut_out(video(gated=True))
    expected = gated_placeholder("Q1", slot_timestamps(1), edit_score=0.25, num_dims=8)
    np.testing.assert_array_equal(stopped.descriptors, expected.descriptors)
    np.testing.assert_array_equal(stopped.timestamps, [[0, 1]])
    assert (stopped.gated, stopped.edit_score) == (True, 0.25)


def test_other_videos_stay_as_they_are() -> None:
    passed = video(gated=False)
    placeholder = gated_placeholder("Q2", slot_timestamps(1), edit_score=0, num_dims=8)
    assert shut_out(passed) is passed
    assert shut_out(placeholder) is placeholder
