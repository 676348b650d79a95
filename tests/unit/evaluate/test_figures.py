"""The printed figures, on a case small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.evaluate.figures import candidate_figures, match_figures
from engine.records import CandidatePair, Match
from engine.store.tables import GroundTruth

TRUTH = GroundTruth(
    pairs=frozenset({("Q1", "R1"), ("Q2", "R2")}),
    matches=(Match("Q1", "R1", 0, 10, 0, 10, 1.0), Match("Q2", "R2", 0, 10, 0, 10, 1.0)),
)


def test_candidates_right_wrong_right_by_hand(tmp_path: Path) -> None:
    candidates = [CandidatePair("Q1", "R1", 3.0), CandidatePair("Q1", "R2", 2.0), CandidatePair("Q2", "R2", -1.0)]
    plot = tmp_path / "pr.png"
    figures = candidate_figures(candidates, TRUTH, plot=plot)
    assert figures["uap"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["recall_at_precision_90"] == 0.5
    assert figures["num_candidates"] == 3
    assert plot.is_file()


def test_one_of_two_segments_found_exactly() -> None:
    figures = match_figures([Match("Q1", "R1", 0, 10, 0, 10, 0.5)], TRUTH)
    assert figures == {"segment_ap": pytest.approx(0.5), "pairwise_uap": pytest.approx(0.5), "num_matches": 1}


def test_matches_need_segments_in_the_ground_truth() -> None:
    with pytest.raises(ConfigError, match="no segments"):
        match_figures([], GroundTruth(pairs=TRUTH.pairs, matches=None))
