"""Scores of a set as a matrix, and the check of a model on it counted by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.calibrate import RATES, SIZES, check_lines, picture_line, score_matrix, size_lines
from engine.config import load_preset
from engine.evaluate.calibration import FalseMatchModel
from engine.records import CandidatePair, Match


def test_candidates_become_a_matrix() -> None:
    pairs = [CandidatePair("b", "y", 0.5), CandidatePair("a", "x", -0.5), CandidatePair("a", "y", 0.25)]
    matches = [
        Match("a", "x", 0, 1, 0, 1, 1.0),
        Match("b", "y", 0, 1, 0, 1, 1.0, num_inliers=0),
        Match("a", "y", 0, 1, 0, 1, 1.0, num_inliers=3),
        Match("a", "y", 2, 3, 2, 3, 1.0),
    ]
    found = score_matrix("set", pairs, matches, frozenset({("a", "x"), ("b", "x")}), query_ids="ab", ref_ids="xy")
    assert found.num_inliers.tolist() == [[-1, 3], [-1, 0]]
    assert found.scores.tolist() == [[-0.5, 0.25], [-np.inf, 0.5]]
    assert found.is_true.tolist() == [[True, False], [True, False]]
    assert sorted(found.unrelated.tolist()) == [0.25, 0.5]


def test_false_pairs_and_copies_are_counted_at_each_rate() -> None:
    model = FalseMatchModel(start=0.0, tail_share=0.05, mean_excess=0.1)
    thresholds = [model.score_at(rate, num_references=2) for rate in RATES]
    # A false pair of one of two uploads, and one of two copies, lie between the last two thresholds.
    score = (thresholds[-2] + thresholds[-1]) / 2
    pairs = [CandidatePair("a", "y", score), CandidatePair("b", "x", score), CandidatePair("a", "x", -1.0)]
    found = score_matrix("set", pairs, [], frozenset({("a", "x"), ("b", "x")}), query_ids="ab", ref_ids="xy")
    lines = check_lines(found, model)
    assert len(lines) == 1 + len(RATES)
    assert lines[-2].endswith("1 of 2 (0.500)         1 of 2")
    assert lines[-1].endswith("0 of 2 (0.000)         0 of 2")


def test_pictures_that_agree_are_counted() -> None:
    matches = [
        Match("a", ref_id, 0, 1, 0, 1, 1.0, num_inliers=count) for ref_id, count in (("x", 9), ("y", 0), ("z", 3))
    ]
    found = score_matrix("set", [], matches, frozenset({("a", "x")}), query_ids="ab", ref_ids="xyz")
    assert picture_line([found]) == (
        "pictures of 2 unrelated pairs of set: in 1 some feature agrees, most 3, 0; of 1 copies 1 have more than all "
        "of them"
    )


def test_pictures_tell_copies_in_catalogues_in_which_they_are_looked_at() -> None:
    model = FalseMatchModel(start=0.0, tail_share=0.05, mean_excess=0.05)
    # In a million videos, 50,000 * exp(-s / 0.05) unrelated ones are expected above s: 2.3 above 0.5, 124 above 0.3.
    raise_of_40 = 40 * load_preset("lite").search.inlier_weight
    pairs = [CandidatePair("a", "x", 0.5 + raise_of_40), CandidatePair("b", "x", 0.3 + raise_of_40)]
    matches = [Match(name, "x", 0, 1, 0, 1, 1.0, num_inliers=99) for name in "ab"]
    found = score_matrix("set", pairs, matches, frozenset({("a", "x"), ("b", "x")}), query_ids="ab", ref_ids="xy")
    lines = dict(zip(SIZES, size_lines(found, model, load_preset("lite"))[1:], strict=True))
    assert "0, 1 of 2" in lines[1_000_000]
    assert "0, 2 of 2" in lines[10_000]
