"""Calibration against SciPy, simulated catalogues, and thresholds counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from engine.config import FalseMatches
from engine.errors import ConfigError
from engine.evaluate.calibration import FalseMatchModel, VerdictScores, operating_points
from engine.records import CandidatePair

MODEL = FalseMatchModel(start=0.1, tail_share=0.05, mean_excess=0.06)


def unrelated_scores(num_pairs: int, *, seed: int) -> np.ndarray:
    """Scores whose tail above 0.1 is that of `MODEL`."""
    rng = np.random.default_rng(seed)
    tail = rng.random(num_pairs) < MODEL.tail_share
    return np.where(tail, 0.1 + rng.exponential(MODEL.mean_excess, num_pairs), rng.uniform(-1, 0.1, num_pairs))


def test_the_fit_is_that_of_scipy_and_finds_the_truth() -> None:
    scores = unrelated_scores(40_000, seed=1)
    model = FalseMatchModel.fit(scores)
    location, scale = stats.expon.fit(scores[scores > model.start], floc=model.start)
    assert (model.start, model.mean_excess) == pytest.approx((location, scale))
    assert (model.start, model.tail_share, model.mean_excess) == pytest.approx((0.1, 0.05, 0.06), abs=4e-3)


@pytest.mark.parametrize("num_references", [1, 30, 1000])
def test_the_rate_is_what_simulated_uploads_have(num_references: int) -> None:
    best = unrelated_scores(2_000_000, seed=2)[: 2_000_000 // num_references * num_references]
    best = best.reshape(-1, num_references).max(axis=1)
    for score in (0.15, 0.3, 0.5):
        expected = float((best >= score).mean())
        error = 4 * np.sqrt(expected * (1 - expected) / len(best)) + 1e-6
        assert MODEL.rate(score, num_references=num_references) == pytest.approx(expected, abs=error)


def test_scores_and_rates_are_inverse_and_rise_with_the_catalogue() -> None:
    scores = []
    for num_references in (10, 1000, 1_000_000, 10**9):
        score = MODEL.score_at(0.01, num_references=num_references)
        assert MODEL.rate(score, num_references=num_references) == pytest.approx(0.01)
        scores.append(score)
    assert scores == sorted(scores)
    assert np.diff(scores[1:]) == pytest.approx([0.06 * np.log(1000), 0.06 * np.log(1000)], rel=1e-3)


def test_no_verdict_lies_below_the_tail() -> None:
    assert MODEL.score_at(0.2, num_references=1) == MODEL.start
    assert MODEL.score_at(0.01, num_references=0) == MODEL.start
    assert MODEL.rate(-5.0, num_references=1) == MODEL.rate(MODEL.start, num_references=1)


@pytest.mark.parametrize("scores", [np.zeros(5000), np.arange(999.0), []])
def test_too_few_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"{len(scores)} scores of unrelated pairs .* add unrelated videos"):
        FalseMatchModel.fit(scores)


def test_verdicts() -> None:
    config = FalseMatches(tail_start=0.1, tail_share=0.05, mean_excess=0.06)
    scores = VerdictScores.of(config, num_references=100)
    assert scores.review < scores.act < VerdictScores.of(config, num_references=1000).act
    found = [scores.verdict(score) for score in (None, -1.0, scores.review, scores.act - 1e-9, scores.act)]
    assert found == ["no match", "no match", "review", "review", "copy"]
    with pytest.raises(ValueError, match=r"act_rate 0\.5 must not be above review_rate 0\.2"):
        FalseMatches(tail_start=0.1, tail_share=0.05, mean_excess=0.06, act_rate=0.5)


def labelled(num_queries: int, seed: int) -> tuple[list[CandidatePair], frozenset[tuple[str, str]]]:
    rng = np.random.default_rng(seed)
    pairs, true = [], set()
    for query in range(num_queries):
        for ref in range(4):
            pair = f"q{query}", f"r{ref}"
            is_true = ref == 0 and query % 2 == 0
            if is_true:
                true.add(pair)
            pairs.append(CandidatePair(*pair, float(np.round(rng.normal(1.5 if is_true else 0.0, 0.5), 1))))
    return pairs, frozenset(true)


@pytest.mark.parametrize("precision", [0.5, 0.9, 0.99, 1.0])
def test_the_threshold_is_the_lowest_score_with_the_precision(precision: float) -> None:
    pairs, true = labelled(80, seed=3)
    (point,) = operating_points(pairs, true, precisions=[precision], num_resamples=10)
    reached = []
    for score in sorted({pair.score for pair in pairs}):
        above = [(pair.query_id, pair.ref_id) in true for pair in pairs if pair.score >= score]
        if sum(above) and sum(above) / len(above) >= precision:
            reached.append((score, sum(above) / len(true)))
    assert (point.score, point.recall) == (reached[0] if reached else (None, 0.0))


def test_most_intervals_hold_the_figures_of_the_population() -> None:
    (truth,) = operating_points(*labelled(40_000, seed=4), precisions=[0.9], num_resamples=1)
    assert truth.score is not None
    samples = [
        operating_points(*labelled(150, seed=seed), precisions=[0.9], num_resamples=200)[0] for seed in range(5, 35)
    ]
    held = [point.recall_low <= truth.recall <= point.recall_high for point in samples]
    assert np.mean(held) > 0.8
    assert all(point.recall_low <= point.recall <= point.recall_high for point in samples)
    again = operating_points(*labelled(150, seed=5), precisions=[0.9], num_resamples=200)
    assert again == samples[:1]


def test_queries_without_candidates_count_as_missed() -> None:
    (point,) = operating_points([CandidatePair("a", "r", 1.0)], frozenset({("a", "r"), ("b", "r")}), precisions=[0.9])
    assert (point.score, point.recall) == (1.0, 0.5)
    (none,) = operating_points([], frozenset({("a", "r")}), precisions=[0.9])
    assert (none.score, none.recall, none.score_low) == (None, 0.0, None)


@pytest.mark.parametrize("precision", [0.0, 1.1, float("nan")])
def test_precisions_out_of_range_are_refused(precision: float) -> None:
    with pytest.raises(ConfigError, match="expected more than 0 and at most 1"):
        operating_points([], frozenset({("a", "r")}), precisions=[precision])
    with pytest.raises(ConfigError, match="names no pair"):
        operating_points([], frozenset(), precisions=[0.9])
