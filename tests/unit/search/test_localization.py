"""What both methods of localization do with the candidates of a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from engine.config import Localization
from engine.errors import StoreError
from engine.records import CandidatePair, Match
from engine.search.localization import MAX_INLIERS, localize, localize_candidates, rescore, rescore_seen
from tests.unit.search.footage import as_query, as_reference, describe, footage

COPIED = footage(1)
REFERENCE = describe("R1", as_reference(COPIED))
# The query begins with seconds 4-14 of the reference, the other reference with second 5.
QUERY = describe("Q1", as_query([*COPIED[4:14], *footage(2, 8)]))
OTHER = describe("R2", as_reference(COPIED[5:]))

Method = Literal["temporal_network", "hough_voting"]
both_methods = pytest.mark.parametrize("method", ["temporal_network", "hough_voting"])


@both_methods
@pytest.mark.parametrize("use_score_norm", [True, False])
def test_a_copy_is_found_where_it_is(method: Method, use_score_norm: bool) -> None:
    sides = (
        (QUERY, REFERENCE) if use_score_norm else (describe("Q1", QUERY.descriptors[:, :-1]), describe("R1", COPIED))
    )
    (match,) = localize(*sides, 0.7, config=Localization(method=method), use_score_norm=use_score_norm)
    assert (match.query_id, match.ref_id) == ("Q1", "R1")
    times = match.query_start_s, match.query_end_s, match.ref_start_s, match.ref_end_s
    assert times == pytest.approx((0, 10, 4, 14), abs=1.01 if use_score_norm else 0.01)


@both_methods
def test_the_best_candidates_are_localized_in_order_of_score(method: Method) -> None:
    candidates = [CandidatePair("Q1", "R2", 0.1), CandidatePair("Q1", "R1", 0.9)]
    found = localize_candidates([QUERY], [REFERENCE, OTHER], candidates, config=Localization(method=method))
    assert [match.ref_id for match in found] == ["R1", "R2"]
    one = Localization(method=method, candidates_per_query=1)
    assert [match.ref_id for match in localize_candidates([QUERY], [REFERENCE, OTHER], candidates, config=one)] == [
        "R1"
    ]
    assert localize_candidates([], [REFERENCE], []) == []


@pytest.mark.parametrize("pair", [CandidatePair("Q1", "R9", 0.5), CandidatePair("Q9", "R1", 0.5)])
def test_candidates_without_descriptors_fail(pair: CandidatePair) -> None:
    with pytest.raises(StoreError, match=f"no descriptors for candidate {pair.query_id}, {pair.ref_id}"):
        localize_candidates([QUERY], [REFERENCE], [pair])


@both_methods
def test_descriptors_of_two_sizes_fail(method: Method) -> None:
    with pytest.raises(StoreError, match="'Q1' has 129, 'R1' has 128"):
        localize(QUERY, describe("R1", COPIED), 0.5, config=Localization(method=method))


class TestRescoreSeen:
    PAIRS = (CandidatePair("q", "a", 0.5), CandidatePair("q", "b", 0.4), CandidatePair("q", "c", 0.4))
    MATCHES = (
        Match("q", "a", 0, 1, 0, 1, 3.0),
        Match("q", "b", 0, 1, 0, 1, 2.0, num_inliers=5),
        Match("q", "b", 2, 3, 2, 3, 1.0, num_inliers=10),
        Match("q", "c", 0, 1, 0, 1, 0.5, num_inliers=0),
        Match("p", "b", 0, 1, 0, 1, 0.5, num_inliers=9999),
    )

    def test_pairs_rise_by_their_best_match_and_matches_by_their_own(self) -> None:
        pairs, matches = rescore_seen(self.PAIRS, self.MATCHES, pair_weight=0.02, match_weight=0.25)
        assert [(pair.ref_id, pair.score) for pair in pairs] == [
            ("b", pytest.approx(0.6)), ("a", 0.5), ("c", 0.4)
        ]  # fmt: skip
        assert [(match.query_id, match.ref_id, match.score) for match in matches] == [
            ("p", "b", 0.5 + 0.25 * MAX_INLIERS), ("q", "b", 3.5), ("q", "b", 3.25), ("q", "a", 3.0), ("q", "c", 0.5)
        ]  # fmt: skip
        assert [match.num_inliers for match in matches] == [9999, 10, 5, None, 0]

    def test_matches_that_pictures_refute_are_left_out(self) -> None:
        shown = Match("q", "a", 0, 8, 20, 28, 3.0, num_inliers=30)
        elsewhere = Match("q", "a", 1, 8, 3, 10, 2.0, num_inliers=0)
        weaker = Match("q", "a", 0, 7, 40, 47, 1.0)
        other_seconds = Match("q", "a", 9, 15, 3, 9, 0.9)
        other_video = Match("q", "b", 0, 8, 20, 28, 2.5, num_inliers=0)

        def kept(*matches: Match) -> list[Match]:
            return rescore_seen([], matches, pair_weight=0, match_weight=0)[1]

        assert kept(weaker, elsewhere, shown, other_video, other_seconds) == [shown, other_video, other_seconds]
        assert kept(shown, replace(elsewhere, num_inliers=12), weaker) == [
            shown, replace(elsewhere, num_inliers=12), weaker
        ], "the reference repeats itself: nobody looked at the third"  # fmt: skip
        few = replace(shown, num_inliers=9)
        assert kept(few, elsewhere, weaker) == [few, elsewhere, weaker], "so few may be chance"
        first = replace(elsewhere, score=4.0)
        assert kept(first, shown) == [shown], "what the descriptors thought best, too"

    def test_pairs_are_sorted_where_no_match_raises_them(self) -> None:
        pairs, _ = rescore_seen(self.PAIRS[::-1], [], pair_weight=0.02, match_weight=0.25)
        assert [pair.score for pair in pairs] == [0.5, 0.4, 0.4]
        assert rescore(self.PAIRS[::-1], [], segment_weight=0.05) == pairs

    def test_weights_of_zero_change_no_score(self) -> None:
        pairs, matches = rescore_seen(self.PAIRS, self.MATCHES, pair_weight=0, match_weight=0)
        assert (tuple(pairs), tuple(matches)) == (self.PAIRS, self.MATCHES)
