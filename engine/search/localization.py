"""Localizes copies in the pairs that a search found, by the method that a preset names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from engine.config import Localization
from engine.errors import StoreError
from engine.records import CandidatePair, Descriptors, Match
from engine.search import hough_voting, temporal_network
from engine.store.store import check_same_dimensions

MAX_INLIERS = 40
"""So many leave no doubt, and more say nothing more: of unrelated pairs none was seen with a third of them
(`benchmarks.calibrate`)."""

_MIN_CONVINCING_INLIERS = 10
"""More than any unrelated pair was seen with."""

_DEFAULT = Localization()


def localize_candidates(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    candidates: Sequence[CandidatePair],
    *,
    config: Localization = _DEFAULT,
    use_score_norm: bool = True,
) -> list[Match]:
    """Find the segments of the best candidates, those of the best one first.

    ``use_score_norm``: the descriptors are normalized. As in the search for candidates,
    ``config.candidates_per_query`` is an average; ``queries`` therefore are all videos that were searched for, with or
    without candidates. Raises ``StoreError`` for a candidate whose descriptors are missing or do not fit.
    """
    queries_by_id = {query.video_id: query for query in queries}
    references_by_id = {reference.video_id: reference for reference in references}
    best = sorted(candidates, key=lambda pair: pair.score, reverse=True)[: config.candidates_per_query * len(queries)]
    matches: list[Match] = []
    for pair in best:
        if pair.query_id not in queries_by_id or pair.ref_id not in references_by_id:
            raise StoreError(
                f"no descriptors for candidate {pair.query_id}, {pair.ref_id}; pass those it was found with"
            )
        query, reference = queries_by_id[pair.query_id], references_by_id[pair.ref_id]
        matches.extend(localize(query, reference, pair.score, config=config, use_score_norm=use_score_norm))
    return matches


def localize(
    query: Descriptors,
    reference: Descriptors,
    score: float,
    *,
    config: Localization = _DEFAULT,
    use_score_norm: bool = True,
) -> list[Match]:
    """Find the segments that a pair of videos shares; ``score`` is the pair's. Raises ``StoreError`` if D differs."""
    check_same_dimensions([query], [reference])
    if config.method == "temporal_network":
        network = config.score_normalized if use_score_norm else config.cosine
        return temporal_network.localize(query, reference, score, network=network)
    settings = config.hough_score_normalized if use_score_norm else config.hough_cosine
    return hough_voting.localize(query, reference, settings=settings)


def rescore(
    candidates: Sequence[CandidatePair], matches: Sequence[Match], *, segment_weight: float
) -> list[CandidatePair]:
    """Raise the score of each pair by ``segment_weight`` times that of its best match; best first.

    Meant for matches of `engine.search.hough_voting`, whose scores are evidence of 0 or more. Equal scores keep their
    order, and weight 0 changes nothing.
    """
    return _raised(candidates, matches, [match.score for match in matches], weight=segment_weight)


def rescore_seen(
    candidates: Sequence[CandidatePair], matches: Sequence[Match], *, pair_weight: float, match_weight: float
) -> tuple[list[CandidatePair], list[Match]]:
    """Raise scores by a weight times ``num_inliers``, of which `MAX_INLIERS` count; best first.

    A match is raised by its own, a pair by the most that one of its matches has. Where nobody looked, and with weights
    of 0, nothing changes; equal scores keep their order. Matches that `_without_refuted` leaves out are gone.
    """
    matches = _without_refuted(matches)
    counted = [min(match.num_inliers or 0, MAX_INLIERS) for match in matches]
    raised = [
        replace(match, score=match.score + match_weight * count) for match, count in zip(matches, counted, strict=True)
    ]
    return (
        _raised(candidates, matches, counted, weight=pair_weight),
        sorted(raised, key=lambda match: match.score, reverse=True),
    )


def _without_refuted(matches: Sequence[Match]) -> list[Match]:
    """Leave out matches of which pictures show nothing, where they show that the query is elsewhere in the reference.

    Those are of one pair and the same seconds of the query. Looked at are the best, until one shows nothing; weaker
    ones are taken to show nothing, either.
    """
    by_pair = defaultdict[tuple[str, str], list[Match]](list)
    for match in sorted(matches, key=lambda match: match.score, reverse=True):
        by_pair[match.query_id, match.ref_id].append(match)
    refuted = set[int]()
    for of_pair in by_pair.values():
        shown = max(of_pair, key=lambda match: match.num_inliers or 0)
        shows_nothing = next((place for place, match in enumerate(of_pair) if match.num_inliers == 0), len(of_pair))
        if (shown.num_inliers or 0) >= _MIN_CONVINCING_INLIERS:
            refuted |= {id(match) for match in of_pair[shows_nothing:] if _show_the_same(match, shown)}
    return [match for match in matches if id(match) not in refuted]


def _show_the_same(match: Match, other: Match) -> bool:
    part = hough_voting.shared_part(match.query_start_s, match.query_end_s, other.query_start_s, other.query_end_s)
    return match is not other and part > hough_voting.SAME_SHARE


def _raised(
    candidates: Sequence[CandidatePair], matches: Sequence[Match], values: Sequence[float], *, weight: float
) -> list[CandidatePair]:
    """Raise each pair by the largest of its matches' ``values`` times ``weight``; best first, unless that is 0."""
    if not weight:
        return list(candidates)
    largest: dict[tuple[str, str], float] = {}
    for match, value in zip(matches, values, strict=True):
        pair = match.query_id, match.ref_id
        largest[pair] = max(value, largest.get(pair, 0.0))
    raised = [
        replace(pair, score=pair.score + weight * largest.get((pair.query_id, pair.ref_id), 0.0)) for pair in candidates
    ]
    return sorted(raised, key=lambda pair: pair.score, reverse=True)
