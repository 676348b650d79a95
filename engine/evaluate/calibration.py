"""What a score means: how often unrelated videos reach it, and what precision it has where the truth is known."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from engine.config import FalseMatches, Preset
from engine.errors import ConfigError
from engine.evaluate.metrics import VideoPair
from engine.records import CandidatePair, FloatArray

Verdict = Literal["copy", "review", "no match"]

_MIN_TAIL = 50
_MIN_SCORES = 1000


@dataclass(frozen=True)
class FalseMatchModel:
    """How the scores of unrelated pairs of videos are distributed, above the score ``start``.

    A share ``tail_share`` of unrelated pairs has a score above ``start``, and what they exceed it by is distributed
    exponentially with the mean ``mean_excess`` (peaks over a threshold; Pickands, "Statistical inference using extreme
    order statistics", Annals of Statistics 1975, with shape 0). It is a model of videos of the length it was fitted on.
    """

    start: float
    tail_share: float
    mean_excess: float

    @classmethod
    def fit(cls, scores: FloatArray | Sequence[float], *, tail_share: float = 0.05) -> Self:
        """Fit the model to the scores of unrelated pairs, ``(N,)``: all of them, also those below any threshold.

        Raises ``ConfigError`` for fewer than 1,000 scores or a tail of fewer than 50, and where the tail is one value.
        """
        values = np.asarray(scores, dtype=np.float64)
        start = float(np.quantile(values, 1 - tail_share)) if len(values) >= _MIN_SCORES else math.nan
        excess = values[values > start] - start
        if len(excess) < _MIN_TAIL:
            raise ConfigError(
                f"{len(values)} scores of unrelated pairs have a tail of {len(excess)}; expected at least "
                f"{_MIN_SCORES} scores and a tail of {_MIN_TAIL}: add unrelated videos"
            )
        return cls(start, len(excess) / len(values), float(excess.mean()))

    @classmethod
    def of(cls, config: FalseMatches) -> Self:
        """The model that a preset ships."""
        return cls(config.tail_start, config.tail_share, config.mean_excess)

    def rate(self, score: float, *, num_references: int) -> float:
        """The probability, 0-1, that an upload without a copy has a pair with this score or more among so many videos.

        Pairs are taken for independent of one another. Below ``start`` the model knows an upper bound only, which is
        what a pair at ``start`` has; no verdict lies there.
        """
        per_pair = self.tail_share * math.exp(-max(score - self.start, 0.0) / self.mean_excess)
        return -math.expm1(num_references * math.log1p(-per_pair))

    def score_at(self, rate: float, *, num_references: int) -> float:
        """The score at which `rate` is ``rate`` (above 0, below 1); ``start`` where it is reached below that."""
        if num_references < 1:
            return self.start
        per_pair = -math.expm1(math.log1p(-rate) / num_references)
        return self.start + self.mean_excess * max(math.log(self.tail_share / per_pair), 0.0)


@dataclass(frozen=True)
class VerdictScores:
    """From which score on a pair is a ``copy``, and from which one a person should look at it."""

    act: float
    review: float

    @classmethod
    def of(cls, config: FalseMatches, *, num_references: int) -> Self:
        """The thresholds of a preset for a catalogue of so many videos: the larger, the higher."""
        model = FalseMatchModel.of(config)
        act, review = (
            model.score_at(rate, num_references=num_references) for rate in (config.act_rate, config.review_rate)
        )
        return cls(act, review)

    @classmethod
    def of_preset(cls, preset: Preset, *, num_references: int, use_score_norm: bool) -> Self | None:
        """`of` the preset's calibration; None where it has none, or scores are not the normalized ones it is for."""
        if preset.false_matches is None or not use_score_norm:
            return None
        return cls.of(preset.false_matches, num_references=num_references)

    def verdict(self, score: float | None) -> Verdict:
        """The verdict on a pair, or on an upload by the score of its best pair; None: it has none."""
        if score is None or score < self.review:
            return "no match"
        return "copy" if score >= self.act else "review"


@dataclass(frozen=True)
class OperatingPoint:
    """The lowest score at which the pairs from there up have a precision, and what that finds.

    ``score``: None where no score reaches the precision. ``score_low`` and ``score_high``, ``recall_low`` and
    ``recall_high``: the middle 95% of resampled sets of queries that reach it, None where none does.
    """

    precision: float
    score: float | None
    recall: float
    score_low: float | None
    score_high: float | None
    recall_low: float
    recall_high: float


def operating_points(
    candidates: Sequence[CandidatePair],
    true_pairs: frozenset[VideoPair],
    *,
    precisions: Sequence[float],
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[OperatingPoint]:
    """For each precision (0-1), the score to ask for and the recall it leaves, with bootstrap intervals over queries.

    Queries are drawn with replacement, all pairs of a query with it, since pairs of one query are not independent.
    Raises ``ConfigError`` without ground truth and for a precision out of range.
    """
    if not true_pairs:
        raise ConfigError("the ground truth names no pair of videos; no precision can be found")
    for precision in precisions:
        if not 0 < precision <= 1:
            raise ConfigError(f"got a precision of {precision}; expected more than 0 and at most 1")
    by_query: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    num_true: dict[str, int] = defaultdict(int)
    for query_id, _ in true_pairs:
        num_true[query_id] += 1
        by_query.setdefault(query_id, [])
    for pair in candidates:
        by_query[pair.query_id].append((pair.score, (pair.query_id, pair.ref_id) in true_pairs))
    queries = [(np.array(pairs, dtype=np.float64).reshape(-1, 2), num_true[name]) for name, pairs in by_query.items()]
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(queries), size=len(queries)).tolist() for _ in range(num_resamples)]
    resampled = [_thresholds([queries[index] for index in sample], precisions) for sample in drawn]
    return [
        _point(precision, found, [of_sample[number] for of_sample in resampled])
        for number, (precision, found) in enumerate(zip(precisions, _thresholds(queries, precisions), strict=True))
    ]


def _thresholds(
    queries: Sequence[tuple[np.ndarray, int]], precisions: Sequence[float]
) -> list[tuple[float | None, float]]:
    """For each precision the lowest score that has it, and its recall."""
    pairs = np.concatenate([pairs for pairs, _ in queries])
    num_true = sum(count for _, count in queries)
    pairs = pairs[np.argsort(-pairs[:, 0], kind="stable")]
    num_correct = np.cumsum(pairs[:, 1])
    precision = num_correct / np.arange(1, len(pairs) + 1)
    is_last_of_score = np.diff(pairs[:, 0], append=-np.inf) != 0
    found: list[tuple[float | None, float]] = []
    for wanted in precisions:
        reached = np.flatnonzero(is_last_of_score & (precision >= wanted) & (num_correct > 0))
        if len(reached) == 0 or num_true == 0:
            found.append((None, 0.0))
        else:
            found.append((float(pairs[reached[-1], 0]), float(num_correct[reached[-1]]) / num_true))
    return found


def _point(
    precision: float, found: tuple[float | None, float], resampled: Sequence[tuple[float | None, float]]
) -> OperatingPoint:
    scores = [score for score, _ in resampled if score is not None]
    recalls = [recall for _, recall in resampled]
    score_low, score_high = map(float, np.quantile(scores, (0.025, 0.975))) if scores else (None, None)
    recall_low, recall_high = map(float, np.quantile(recalls, (0.025, 0.975))) if recalls else (0.0, 0.0)
    return OperatingPoint(precision, *found, score_low, score_high, recall_low, recall_high)
