"""Scores candidates and matches against ground truth as the challenge does. It knows nothing of files or descriptors.

Two measures of facebookresearch/vsc2022 (``vsc/metrics.py``). Both are the area under one precision-recall curry of
*all* predictions for all queries, sorted by score, so that a score has to mean the same for every query:

- micro average precision (uAP) of pairs of videos, the measure of the descriptor track;
- segment average precision, the measure of the matching track: precision and recall of the *seconds* that matches
  cover, as geometric means over the query axis and the reference axis.

Predictions with equal scores are one step of the curve: their order in a file means nothing. Scores may be negative;
videos that the ground truth does not name are distractors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, StoreError
from engine.records import CandidatePair, Match

VideoPair = tuple[str, str]
"""``(query id, reference id)``."""

Interval = tuple[float, float]
"""``(start, end)`` in seconds."""

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """A precision-recall curve and the area under it.

    ``average_precision``: sum over all scores of precision times gain in recall, 0-1.
    ``precision``, ``recall``, ``score``: float64 ``(P,)``, a point for each score at which recall rises, highest score
    first: precision and recall of the predictions with that score or a higher one. P = 0 if nothing is found.
    """

    average_precision: float
    precision: Floats
    recall: Floats
    score: Floats

    @property
    def max_recall(self) -> float:
        """Recall of all predictions together."""
        return float(self.recall[-1]) if len(self.recall) else 0.0

    def recall_at_precision(self, minimum: float) -> float:
        """The largest recall that a score threshold reaches with at least this precision; 0 if none does."""
        return float(np.max(self.recall[self.precision >= minimum], initial=0.0))


def micro_average_precision(
    candidates: Sequence[CandidatePair], ground_truth: Iterable[Match | VideoPair]
) -> PrecisionRecall:
    """Score pairs of videos. Several segments of a pair in ``ground_truth`` count once.

    Raises ``StoreError`` if a pair is predicted twice or a score is not finite, ``ConfigError`` without ground truth.
    """
    true_pairs = {_video_pair(item) if isinstance(item, Match) else item for item in ground_truth}
    if not true_pairs:
        raise ConfigError("the ground truth names no pair of videos; nothing can be evaluated against it")
    pairs = [_video_pair(candidate) for candidate in candidates]
    _check_distinct(pairs)
    order, scores, last_of_score = _score_steps(candidates)
    correct = np.fromiter((pair in true_pairs for pair in pairs), dtype=np.bool_, count=len(pairs))
    num_correct = np.cumsum(correct[order])[last_of_score]
    return _curve(num_correct / (last_of_score + 1), num_correct / len(true_pairs), scores)


def segment_average_precision(matches: Sequence[Match], ground_truth: Sequence[Match]) -> PrecisionRecall:
    """Score localized matches by the seconds they cover.

    Seconds of a pair of videos that are covered twice count once. A segment of the ground truth counts only if a match
    overlaps it on both axes. A match that ends before it starts covers negative seconds, as in the official evaluation.

    Raises ``StoreError`` if a score or time is not finite, ``ConfigError`` if the ground truth has no seconds.
    """
    _check_times([*matches, *ground_truth])
    true_segments: dict[VideoPair, list[Match]] = defaultdict(list)
    for segment in ground_truth:
        true_segments[_video_pair(segment)].append(segment)
    true_s = np.zeros(2)
    for segments in true_segments.values():
        true_s += [_length_s(_merged(_interval(segment, axis) for segment in segments)) for axis in (0, 1)]
    if not np.all(true_s > 0):
        raise ConfigError("the ground truth has no segments with a duration; segment average precision needs them")
    order, scores, last_of_score = _score_steps(matches)
    coverage = {pair: _Coverage(segments) for pair, segments in true_segments.items()}
    gains = np.zeros((len(matches), 2, 2))
    for position, index in enumerate(order.tolist()):
        pair = _video_pair(matches[index])
        gains[position] = coverage.setdefault(pair, _Coverage([])).add(matches[index])
    found_s, predicted_s = np.cumsum(gains, axis=0)[last_of_score].transpose(1, 0, 2)
    precision = np.divide(found_s, predicted_s, out=np.zeros_like(found_s), where=predicted_s != 0)
    return _curve(_geometric_mean(precision), _geometric_mean(found_s / true_s), scores)


def best_per_pair(matches: Iterable[Match]) -> list[CandidatePair]:
    """A candidate for each pair of videos that has matches, with the score of the best one.

    The official helper raises scores below zero to zero; here they keep their order.
    """
    best: dict[VideoPair, float] = {}
    for match in matches:
        pair = _video_pair(match)
        best[pair] = max(match.score, best.get(pair, match.score))
    return [CandidatePair(query_id, ref_id, score) for (query_id, ref_id), score in best.items()]


class _Coverage:
    """The seconds of one pair of videos that matches cover, on the query axis (0) and on the reference axis (1)."""

    def __init__(self, segments: Iterable[Match]) -> None:
        self._missing = list(segments)
        self._found: list[list[Interval]] = [[], []]
        self._predicted: list[list[Interval]] = [[], []]
        self._seconds = np.zeros((2, 2))

    def add(self, match: Match) -> Floats:
        """Add a match and return the seconds gained: ``[found, predicted]`` by ``[query axis, reference axis]``."""
        newly_found = [segment for segment in self._missing if _overlap(segment, match)]
        self._missing = [segment for segment in self._missing if not _overlap(segment, match)]
        seconds = np.zeros((2, 2))
        for axis in (0, 1):
            true = _merged([*self._found[axis], *(_interval(segment, axis) for segment in newly_found)])
            predicted = _merged([*self._predicted[axis], _interval(match, axis)])
            either_s = _length_s(_merged([*predicted, *true]))
            seconds[:, axis] = _length_s(predicted) + _length_s(true) - either_s, _length_s(predicted)
            self._found[axis], self._predicted[axis] = true, predicted
        gained = seconds - self._seconds
        self._seconds = seconds
        return gained


def _video_pair(item: CandidatePair | Match) -> VideoPair:
    return item.query_id, item.ref_id


def _interval(match: Match, axis: int) -> Interval:
    return (match.query_start_s, match.query_end_s) if axis == 0 else (match.ref_start_s, match.ref_end_s)


def _overlap(match: Match, other: Match) -> bool:
    query_s = min(match.query_end_s, other.query_end_s) - max(match.query_start_s, other.query_start_s)
    ref_s = min(match.ref_end_s, other.ref_end_s) - max(match.ref_start_s, other.ref_start_s)
    return query_s > 0 and ref_s > 0


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of intervals as disjoint ones in ascending order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _length_s(intervals: Iterable[Interval]) -> float:
    return sum(end - start for start, end in intervals)


def _score_steps(predictions: Sequence[CandidatePair] | Sequence[Match]) -> tuple[Indices, Floats, Indices]:
    """Indices of predictions, best first; the distinct scores; and the last position that each of them has."""
    scores = np.array([prediction.score for prediction in predictions], dtype=np.float64)
    finite = np.isfinite(scores)
    if not finite.all():
        first = predictions[int(finite.argmin())]
        raise StoreError(f"the score of {first.query_id}, {first.ref_id} is {first.score}; expected a finite number")
    order = np.argsort(-scores, kind="stable")
    is_last = np.diff(scores[order], append=np.nan) != 0
    return order, scores[order][is_last], np.flatnonzero(is_last)


def _curve(precision: Floats, recall: Floats, scores: Floats) -> PrecisionRecall:
    gains = np.diff(recall, prepend=0.0)
    rises = gains > 0
    return PrecisionRecall(float(np.sum(precision * gains)), precision[rises], recall[rises], scores[rises])


def _geometric_mean(ratios: Floats) -> Floats:
    # Matches of negative length can make a ratio negative.
    means: Floats = np.sqrt(np.maximum(ratios.prod(axis=1), 0.0))
    return means


def _check_distinct(pairs: Sequence[VideoPair]) -> None:
    seen: set[VideoPair] = set()
    for pair in pairs:
        if pair in seen:
            raise StoreError(f"the pair {pair[0]}, {pair[1]} is predicted twice; expected one score for each pair")
        seen.add(pair)


def _check_times(matches: Iterable[Match]) -> None:
    for match in matches:
        if not math.isfinite(match.query_start_s + match.query_end_s + match.ref_start_s + match.ref_end_s):
            raise StoreError(f"a time of the match {match} is not a finite number of seconds")
