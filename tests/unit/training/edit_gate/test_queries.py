from __future__ import annotations

import pytest

pytest.importorskip("torch")

from engine.records import Match
from training.edit_gate.queries import copied_frames

pytestmark = pytest.mark.torch


def test_frames_are_copied_whose_seconds_middle_lies_in_a_match() -> None:
    matches = [Match("Q", "R", start_s, end_s, 0, 1, 1.0) for start_s, end_s in ((0.6, 2.4), (4.5, 5.4))]
    assert copied_frames(6, matches).tolist() == [False, True, False, False, True, False]
    assert not copied_frames(3, []).any()
