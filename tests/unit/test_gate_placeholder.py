"""What stands for a video that the gate stopped."""

from __future__ import annotations

import numpy as np

from engine.gate_placeholder import placeholder, without_kept_rows
from engine.records import Descriptors, GateState
from engine.video.sampling import slot_timestamps


def video(gate: GateState) -> Descriptors:
    rows = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    return Descriptors("Q1", slot_timestamps(3), rows, edit_score=0.25, gate=gate)


def test_placeholders_depend_on_the_id_alone() -> None:
    one, again, other = (placeholder(name, slot_timestamps(1), edit_score=0, num_dims=512) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one.descriptors, again.descriptors)
    assert (one.descriptors != other.descriptors).any()
    assert 0 < np.abs(one.descriptors).max() < 1e-5
    assert one.gate == "stopped"


def test_kept_rows_give_way_to_what_the_gate_would_have_left() -> None:
    stopped = without_kept_rows(video("stopped_rows_kept"))
    expected = placeholder("Q1", slot_timestamps(1), edit_score=0.25, num_dims=8)
    np.testing.assert_array_equal(stopped.descriptors, expected.descriptors)
    np.testing.assert_array_equal(stopped.timestamps, [[0, 1]])
    assert (stopped.gate, stopped.edit_score) == ("stopped", 0.25)


def test_other_videos_stay_as_they_are() -> None:
    for other in (video("passed"), video("stopped"), placeholder("Q2", slot_timestamps(1), edit_score=0, num_dims=8)):
        assert without_kept_rows(other) is other
