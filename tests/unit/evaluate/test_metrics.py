"""Evaluation against the recorded figures, scikit-learn, and counting of whole seconds."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from engine.errors import ConfigError, StoreError
from engine.evaluate.metrics import PrecisionRecall, best_per_pair, micro_average_precision, segment_average_precision
from engine.records import CandidatePair, Match
from tests.conftest import COMMITTED_GOLDEN


def golden_file(golden: Path, name: str) -> Path:
    path = golden / "postprocess" / name
    if golden == COMMITTED_GOLDEN and not path.exists():
        pytest.skip(f"{name} is not in the committed part of the golden data")
    return path


def golden_metric(golden: Path, name: str) -> float:
    metrics = json.loads(golden_file(golden, "golden.json").read_text()).get("metrics", {})
    if golden == COMMITTED_GOLDEN and name not in metrics:
        pytest.skip(f"the metric {name} is not in the committed part of the golden data")
    return float(metrics[name])


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as lines:
        return list(csv.reader(lines))[1:]


def read_candidates(golden: Path, name: str) -> list[CandidatePair]:
    return [CandidatePair(query, ref, float(score)) for query, ref, score in read_rows(golden_file(golden, name))]


def read_matches(golden: Path, name: str) -> list[Match]:
    return [Match(query, ref, *map(float, numbers)) for query, ref, *numbers in read_rows(golden_file(golden, name))]


def simple_micro_average_precision(candidates: list[CandidatePair], true_pairs: set[tuple[str, str]]) -> float:
    """Mean over the true pairs of the precision at the rank where each is found, whatever the ties."""
    ranked = sorted(candidates, key=lambda candidate: candidate.score, reverse=True)
    total, num_correct = 0.0, 0
    for rank, candidate in enumerate(ranked, start=1):
        if (candidate.query_id, candidate.ref_id) in true_pairs:
            num_correct += 1
            total += num_correct / rank
    return total / len(true_pairs)


def pairs_of(matches: list[Match]) -> set[tuple[str, str]]:
    return {(match.query_id, match.ref_id) for match in matches}


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("candidates.csv", "uap"),
        ("candidates_small_k.csv", "uap_small_k"),
        ("candidates_rounded_scores.csv", "uap_rounded_scores"),
    ],
)
def test_recorded_micro_average_precision(golden: Path, name: str, metric: str) -> None:
    found = micro_average_precision(read_candidates(golden, name), read_matches(golden, "ground_truth.csv"))
    assert found.average_precision == pytest.approx(golden_metric(golden, metric), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("candidates.csv", "uap_simple"), ("candidates_rounded_scores.csv", "uap_rounded_scores_simple")],
)
def test_the_oracle_is_the_recorded_simple_form(golden: Path, name: str, metric: str) -> None:
    truth = pairs_of(read_matches(golden, "ground_truth.csv"))
    found = simple_micro_average_precision(read_candidates(golden, name), truth)
    assert found == pytest.approx(golden_metric(golden, metric), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("matches.csv", "matching_segment_ap"),
        # Holds six matches that end before they start.
        ("matches_similarity_bias.csv", "matching_similarity_bias_segment_ap"),
    ],
)
def test_recorded_segment_average_precision(golden: Path, name: str, metric: str) -> None:
    found = segment_average_precision(read_matches(golden, name), read_matches(golden, "ground_truth.csv"))
    assert found.average_precision == pytest.approx(golden_metric(golden, metric), rel=1e-12)


def test_recorded_micro_average_precision_of_matches(golden: Path) -> None:
    pairs = best_per_pair(read_matches(golden, "matches.csv"))
    found = micro_average_precision(pairs, read_matches(golden, "ground_truth.csv")).average_precision
    assert found == pytest.approx(golden_metric(golden, "matching_pairwise_uap"), rel=1e-12)


def random_candidates(rng: np.random.Generator, *, decimals: int) -> list[CandidatePair]:
    pairs = [(f"Q{query}", f"R{ref}") for query in range(20) for ref in range(15)]
    chosen = rng.permutation(len(pairs))[: rng.integers(1, 300)]
    scores = rng.normal(size=len(chosen)).round(decimals)
    return [CandidatePair(*pairs[index], float(score)) for index, score in zip(chosen, scores, strict=True)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_micro_average_precision_is_that_of_scikit_learn(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = random_candidates(rng, decimals=decimals)
    truth = {(f"Q{query}", f"R{ref}") for query, ref in rng.integers(0, 15, (25, 2))}
    correct = [(candidate.query_id, candidate.ref_id) in truth for candidate in candidates]
    # scikit-learn knows no pairs that were not predicted: its recall is relative to the ones that were.
    among_predicted = average_precision_score(correct, [candidate.score for candidate in candidates])
    found = micro_average_precision(candidates, truth)
    assert found.average_precision == pytest.approx(among_predicted * sum(correct) / len(truth), rel=1e-12)
    assert found.max_recall == pytest.approx(sum(correct) / len(truth))
    if decimals == 12:
        simple = simple_micro_average_precision(candidates, truth)
        assert found.average_precision == pytest.approx(simple, rel=1e-12)


def test_the_curve_has_a_point_for_each_score_at_which_recall_rises() -> None:
    truth = [("Q1", "R1"), ("Q2", "R2"), ("Q3", "R3"), ("Q4", "R4")]
    scores = {("Q1", "R1"): 0.9, ("Q1", "R2"): 0.5, ("Q2", "R2"): 0.5, ("Q9", "R9"): 0.1, ("Q3", "R3"): -2.0}
    found = micro_average_precision([CandidatePair(*pair, score) for pair, score in scores.items()], truth)
    np.testing.assert_array_equal(found.score, [0.9, 0.5, -2.0])
    np.testing.assert_allclose(found.recall, [1 / 4, 2 / 4, 3 / 4])
    np.testing.assert_allclose(found.precision, [1, 2 / 3, 3 / 5])
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert found.max_recall == 0.75
    assert found.recall_at_precision(0.9) == 0.25
    assert found.recall_at_precision(0.6) == 0.75


def test_precision_that_is_never_reached_has_no_recall() -> None:
    points = {"precision": np.array([0.5]), "recall": np.array([0.3]), "score": np.array([1.0])}
    assert PrecisionRecall(0.15, **points).recall_at_precision(0.9) == 0.0


def test_the_order_of_equal_scores_means_nothing() -> None:
    candidates = [CandidatePair("Q1", f"R{ref}", 0.5) for ref in range(9)]
    found = [
        micro_average_precision(order, [("Q1", "R0")]).average_precision for order in (candidates, candidates[::-1])
    ]
    assert found == [pytest.approx(1 / 9)] * 2


@pytest.mark.parametrize("candidates", [[], [CandidatePair("Q1", "R2", 0.5)]])
def test_nothing_found_scores_zero(candidates: list[CandidatePair]) -> None:
    found = micro_average_precision(candidates, [("Q1", "R1")])
    assert (found.average_precision, found.max_recall, found.recall_at_precision(0.5), len(found.score)) == (0, 0, 0, 0)


def whole_seconds(match: Match, axis: int) -> set[int]:
    start, end = (match.query_start_s, match.query_end_s) if axis == 0 else (match.ref_start_s, match.ref_end_s)
    return set(range(int(start), int(end)))


def segment_average_precision_by_counting(matches: list[Match], truth: list[Match]) -> float:
    """The definition, on sets of whole seconds, anew for every score."""
    areas = [(segment, [whole_seconds(segment, axis) for axis in (0, 1)]) for segment in truth]
    recall, total = 0.0, 0.0
    for score in sorted({match.score for match in matches}, reverse=True):
        predicted: list[set[tuple[str, str, int]]] = [set(), set()]
        found: list[set[tuple[str, str, int]]] = [set(), set()]
        every: list[set[tuple[str, str, int]]] = [set(), set()]
        touched = defaultdict(bool)
        for match in matches:
            if match.score >= score:
                for axis in (0, 1):
                    predicted[axis] |= {(match.query_id, match.ref_id, s) for s in whole_seconds(match, axis)}
                for number, (segment, seconds) in enumerate(areas):
                    same = (segment.query_id, segment.ref_id) == (match.query_id, match.ref_id)
                    touched[number] |= same and all(seconds[axis] & whole_seconds(match, axis) for axis in (0, 1))
        for number, (segment, seconds) in enumerate(areas):
            for axis in (0, 1):
                ids = {(segment.query_id, segment.ref_id, s) for s in seconds[axis]}
                every[axis] |= ids
                found[axis] |= ids & predicted[axis] if touched[number] else set()
        recalls = [len(found[axis]) / len(every[axis]) for axis in (0, 1)]
        precisions = [len(found[axis]) / len(predicted[axis]) for axis in (0, 1)]
        total += math.sqrt(math.prod(precisions)) * (math.sqrt(math.prod(recalls)) - recall)
        recall = math.sqrt(math.prod(recalls))
    return total


def random_matches(rng: np.random.Generator, count: int) -> list[Match]:
    found = []
    for _ in range(count):
        starts, lengths = rng.integers(0, 25, 2), rng.integers(1, 12, 2)
        times = [starts[0], starts[0] + lengths[0], starts[1], starts[1] + lengths[1]]
        query, ref = rng.integers(0, 3, 2)
        found.append(Match(f"Q{query}", f"R{ref}", *map(float, times), score=round(float(rng.normal()), 1)))
    return found


@pytest.mark.parametrize("seed", range(25))
def test_segment_average_precision_is_that_of_counted_seconds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, matches = random_matches(rng, 12), random_matches(rng, int(rng.integers(1, 60)))
    found = segment_average_precision(matches, truth)
    assert found.average_precision == pytest.approx(segment_average_precision_by_counting(matches, truth), rel=1e-12)
    assert (np.diff(found.recall) > 0).all()
    assert (np.diff(found.score) < 0).all()


SEGMENT = Match("Q1", "R1", 0.0, 10.0, 5.0, 15.0, 1.0)


def test_the_truth_itself_has_a_perfect_score() -> None:
    truth = random_matches(np.random.default_rng(0), 20)
    found = segment_average_precision(truth, truth)
    assert found.max_recall == pytest.approx(1.0)
    assert found.precision == pytest.approx(1.0)


def test_half_a_segment_has_half_the_recall() -> None:
    found = segment_average_precision([replace(SEGMENT, query_end_s=5.0, ref_end_s=10.0)], [SEGMENT])
    assert (found.precision.item(), found.recall.item()) == (1.0, 0.5)


def test_a_match_must_overlap_on_both_axes() -> None:
    beside = replace(SEGMENT, ref_start_s=15.0, ref_end_s=25.0)
    assert segment_average_precision([beside], [SEGMENT]).max_recall == 0.0


def test_matches_without_length_gain_and_cost_nothing() -> None:
    empty = replace(SEGMENT, query_end_s=0.0, score=2.0)
    found = segment_average_precision([empty, SEGMENT], [SEGMENT])
    assert found.average_precision == segment_average_precision([SEGMENT], [SEGMENT]).average_precision == 1.0


def test_more_negative_seconds_than_found_ones_have_no_precision() -> None:
    backwards = replace(SEGMENT, query_id="Q2", query_start_s=9.0, query_end_s=0.0, score=2.0)
    found = segment_average_precision([backwards, replace(SEGMENT, query_end_s=1.0)], [SEGMENT])
    assert (found.average_precision, found.precision.item()) == (0.0, 0.0)


def test_no_matches_score_zero() -> None:
    found = segment_average_precision([], [SEGMENT])
    assert (found.average_precision, found.max_recall) == (0.0, 0.0)


def test_the_best_score_of_a_pair_may_be_negative() -> None:
    scores = [-3.0, -1.0, -2.0]
    assert best_per_pair([replace(SEGMENT, score=score) for score in scores]) == [CandidatePair("Q1", "R1", -1.0)]
    assert best_per_pair([]) == []


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_must_be_finite(score: float) -> None:
    with pytest.raises(StoreError, match=f"the score of Q1, R1 is {score}; expected a finite number"):
        micro_average_precision([CandidatePair("Q1", "R1", score)], [("Q1", "R1")])
    with pytest.raises(StoreError, match="the score of Q1, R1 is"):
        segment_average_precision([replace(SEGMENT, score=score)], [SEGMENT])


def test_times_must_be_finite() -> None:
    unknown = replace(SEGMENT, ref_end_s=math.nan)
    for matches, truth in (([unknown], [SEGMENT]), ([SEGMENT], [unknown])):
        with pytest.raises(StoreError, match="not a finite number of seconds"):
            segment_average_precision(matches, truth)


def test_a_pair_has_one_score() -> None:
    twice = [CandidatePair("Q1", "R1", 0.5), CandidatePair("Q1", "R1", 0.4)]
    with pytest.raises(StoreError, match="the pair Q1, R1 is predicted twice"):
        micro_average_precision(twice, [("Q1", "R1")])


def test_ground_truth_is_needed() -> None:
    with pytest.raises(ConfigError, match="names no pair of videos"):
        micro_average_precision([], [])
    for truth in ([], [replace(SEGMENT, query_end_s=0.0)]):
        with pytest.raises(ConfigError, match="no segments with a duration"):
            segment_average_precision([SEGMENT], truth)
