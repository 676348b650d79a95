"""Scores of a set as a matrix, and the check of a model on it counted by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.calibrate import RATES, check_lines, score_matrix
from engine.evaluate.calibration import FalseMatchModel
from engine.records import CandidatePair


def test_candidates_become_a_matrix() -> None:
    pairs = [CandidatePair("b", "y", 0.5), CandidatePair("a", "x", -0.5), CandidatePair("a", "y", 0.25)]
    found = score_matrix("set", pairs, frozenset({("a", "x"), ("b", "x")}), query_ids="ab", ref_ids="xy")
    assert found.scores.tolist() == [[-0.5, 0.25], [-np.inf, 0.5]]
    assert found.is_true.tolist() == [[True, False], [True, False]]
    assert sorted(found.unrelated.tolist()) == [0.25, 0.5]


def test_false_pairs_and_copies_are_counted_at_each_rate() -> None:
    model = FalseMatchModel(start=0.0, tail_share=0.05, mean_excess=0.1)
    thresholds = [model.score_at(rate, num_references=2) for rate in RATES]
    # A false pair of one of two uploads, and one of two copies, lie between the last two thresholds.
    score = (thresholds[-2] + thresholds[-1]) / 2
    pairs = [CandidatePair("a", "y", score), CandidatePair("b", "x", score), CandidatePair("a", "x", -1.0)]
    found = score_matrix("set", pairs, frozenset({("a", "x"), ("b", "x")}), query_ids="ab", ref_ids="xy")
    lines = check_lines(found, model)
    assert len(lines) == 1 + len(RATES)
    assert lines[-2].endswith("1 of 2 (0.500)         1 of 2")
    assert lines[-1].endswith("0 of 2 (0.000)         0 of 2")
