"""Localization: recorded boxes and matches, a graph library as oracle, and small videos with known copies."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from pydantic import ValidationError

from engine.config import Localization, TemporalNetwork
from engine.evaluate.metrics import segment_average_precision
from engine.records import GATED_BIAS, CandidatePair, Descriptors, FloatArray, Match
from engine.search.localization import localize_candidates
from engine.search.temporal_network import Box, find_segments, localize
from tests.conftest import COMMITTED_GOLDEN
from tests.unit.search.footage import as_query, as_reference, describe, footage

SCORE_NORMALIZED, COSINE = Localization().score_normalized, Localization().cosine


def with_settings(network: TemporalNetwork, **changes: object) -> TemporalNetwork:
    return TemporalNetwork.model_validate(network.model_dump() | changes)


def golden_file(golden: Path, name: str) -> Path:
    path = golden / "postprocess" / name
    if golden == COMMITTED_GOLDEN and not path.exists():
        pytest.skip(f"{name} is not in the committed part of the golden data")
    return path


def read_golden_descriptors(path: Path) -> list[Descriptors]:
    """Frame indices of references, one-dimensional, are taken as both start and end."""
    with np.load(path) as arrays:
        ids, rows, times = arrays["video_ids"], arrays["features"], arrays["timestamps"].astype(np.float32)
    times = np.stack([times, times], axis=1) if times.ndim == 1 else times
    return [Descriptors(str(video), times[ids == video], rows[ids == video]) for video in np.unique(ids)]


def read_golden_matches(path: Path) -> list[Match]:
    with path.open(newline="") as lines:
        return [Match(query, ref, *map(float, numbers)) for query, ref, *numbers in list(csv.reader(lines))[1:]]


def read_golden_candidates(path: Path) -> list[CandidatePair]:
    with path.open(newline="") as lines:
        return [CandidatePair(query, ref, float(score)) for query, ref, score in list(csv.reader(lines))[1:]]


def recorded_inputs(golden: Path) -> tuple[list[Descriptors], list[Descriptors], list[CandidatePair]]:
    return (
        read_golden_descriptors(golden_file(golden, "query_sn.npz")),
        read_golden_descriptors(golden_file(golden, "test_refs_sn.npz")),
        read_golden_candidates(golden_file(golden, "candidates.csv")),
    )


def test_recorded_boxes(golden: Path) -> None:
    cases = json.loads(golden_file(golden, "golden.json").read_text()).get("tn_cases", [])
    with np.load(golden_file(golden, "tn_cases.npz")) as arrays:
        similarities = [arrays[case["array"]] for case in cases]
    found = [[list(box) for box in find_segments(similarity)] for similarity in similarities]
    assert found == [case["boxes_q1_r1_q2_r2"] for case in cases]
    assert sum(map(len, found)) > 0


@pytest.mark.parametrize(
    ("network", "name"), [(COSINE, "matches.csv"), (SCORE_NORMALIZED, "matches_similarity_bias.csv")]
)
def test_recorded_matches(golden: Path, network: TemporalNetwork, name: str) -> None:
    expected = read_golden_matches(golden_file(golden, name))
    config = Localization(score_normalized=with_settings(network, scenes="together"))
    found = localize_candidates(*recorded_inputs(golden), config=config)
    assert [replace(match, score=0.0) for match in found] == [replace(match, score=0.0) for match in expected]
    # Inner products of 512 float32 numbers: a BLAS may add them up in another order.
    np.testing.assert_allclose([match.score for match in found], [match.score for match in expected], atol=1e-6, rtol=0)


def test_scenes_apart_give_sound_segments_and_a_better_score(golden: Path) -> None:
    inputs, truth = recorded_inputs(golden), read_golden_matches(golden_file(golden, "ground_truth.csv"))
    apart = localize_candidates(*inputs)
    config = Localization(score_normalized=with_settings(SCORE_NORMALIZED, scenes="together"))
    together = localize_candidates(*inputs, config=config)
    assert any(match.query_start_s > match.query_end_s for match in together)
    assert all(match.query_start_s < match.query_end_s for match in apart)
    ap = segment_average_precision(apart, truth).average_precision
    assert ap > segment_average_precision(together, truth).average_precision


def segments_by_networkx(similarity: FloatArray, network: TemporalNetwork) -> list[Box]:
    """The definition, one pair of nodes at a time."""
    columns = np.argsort(-similarity, axis=1, kind="stable")[:, : network.top_k].tolist()
    nodes = [(row, column) for row, of_row in enumerate(columns) for column in of_row]
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(nodes)))
    by_row = [[n for n, (row, _) in enumerate(nodes) if row == r] for r in range(len(columns))]
    for row, sources in enumerate(by_row):
        reached: set[int] = set()
        for targets in by_row[row + 1 : row + network.max_step]:
            newly_reached = set()
            for target in targets:
                for source in sources:
                    start, end = nodes[source][1], nodes[target][1]
                    free = not any(start < column < end for column in reached)
                    near = 0 < end - start < network.max_step
                    if free and near and similarity[nodes[target]] >= np.float32(network.min_similarity):
                        newly_reached.add(end)
                        if target != len(nodes) - 1:
                            graph.add_edge(source, target, weight=similarity[nodes[target]])
            reached |= newly_reached
    boxes: list[Box] = []
    for _ in range(network.max_paths):
        path = nx.dag_longest_path(graph)
        if len(path) < 2:
            break
        nx.add_path(graph, path, weight=np.float32(0))
        cells = [nodes[node] for node in path]
        (q0, r0), (q1, r1) = cells[0], cells[-1]
        total = np.float32(0)
        for cell in cells:
            total = total + similarity[cell]
        dense = float(total) > network.min_similarity * (q1 - q0 + r1 - r0) / 2
        new = all(iou_by_counting((q0, r0, q1, r1), box) < network.max_iou for box in boxes)
        if min(q1 - q0, r1 - r0) > network.min_length and dense and new:
            boxes.append((q0, r0, q1, r1))
    return boxes


def iou_by_counting(box: Box, other: Box) -> float:
    cells, others = (
        {(row, column) for row in range(q0, q1 + 1) for column in range(r0, r1 + 1)} for q0, r0, q1, r1 in (box, other)
    )
    return len(cells & others) / len(cells | others)


NETWORKS = [
    SCORE_NORMALIZED,
    with_settings(SCORE_NORMALIZED, top_k=3, max_step=8, min_similarity=0.0, min_length=1, max_iou=0.8),
    with_settings(SCORE_NORMALIZED, top_k=2, max_step=3, min_similarity=0.5, max_paths=3),
]


@pytest.mark.parametrize("decimals", [6, 1, 0])
@pytest.mark.parametrize("network", NETWORKS)
def test_segments_are_those_of_the_definition(network: TemporalNetwork, decimals: int) -> None:
    """Rounded similarities make ties, in which the order of nodes decides."""
    rng = np.random.default_rng(decimals)
    num_boxes = 0
    for _ in range(12):
        similarity = rng.normal(0.2, 0.3, rng.integers(1, 45, 2))
        for offset in rng.integers(-20, 20, 3):
            diagonal = np.eye(*similarity.shape, k=offset, dtype=bool)
            similarity[diagonal] += rng.uniform(0.4, 1.0)
        similarity = similarity.round(decimals).astype(np.float32)
        expected = segments_by_networkx(similarity, network)
        assert find_segments(similarity, network=network) == expected
        num_boxes += len(expected)
    assert num_boxes > 0


def test_a_copied_run_is_one_segment() -> None:
    similarity = np.zeros((30, 40), np.float32)
    similarity[range(5, 20), range(12, 27)] = 0.9
    assert find_segments(similarity) == [(5, 12, 19, 26)]


def test_a_segment_can_begin_early_because_the_first_node_needs_no_similarity() -> None:
    similarity = np.zeros((30, 40), np.float32)
    similarity[range(5, 20), range(12, 27)] = 0.9
    similarity[2, 9] = 0.01
    assert find_segments(similarity) == [(2, 9, 19, 26)]


@pytest.mark.parametrize(("num_rows", "expected"), [(5, []), (6, [(0, 0, 5, 5)])])
def test_short_runs_are_no_segments(num_rows: int, expected: list[Box]) -> None:
    similarity = np.zeros((20, 20), np.float32)
    similarity[range(num_rows), range(num_rows)] = 0.9
    assert find_segments(similarity) == expected


def test_a_reversed_copy_is_no_segment() -> None:
    assert find_segments(np.fliplr(np.eye(20, dtype=np.float32))) == []


COPIED = footage(1)
REFERENCE = describe("R1", as_reference(COPIED))
# The query begins with seconds 4-14 of the reference.
QUERY = describe("Q1", as_query(np.concatenate([COPIED[4:14], footage(2, 8)])))


def test_a_match_goes_from_its_first_to_its_last_second() -> None:
    (match,) = localize(QUERY, REFERENCE, 0.7, network=COSINE)
    assert match == Match("Q1", "R1", 0.0, 10.0, 4.0, 14.0, 0.7)


def test_the_score_of_a_segment_is_its_largest_normalized_similarity() -> None:
    (match,) = localize(QUERY, REFERENCE, 0.7)
    assert replace(match, score=0.7) == Match("Q1", "R1", 0.0, 10.0, 4.0, 14.0, 0.7)
    assert match.score == pytest.approx(1 - 0.6, abs=1e-6)


def test_the_last_rows_of_a_segment_do_not_count_for_its_score() -> None:
    rows = QUERY.descriptors.copy()
    rows[:9, :-1] *= 0.9
    (match,) = localize(replace(QUERY, descriptors=rows), REFERENCE, 0.7)
    assert match.query_end_s == 10.0
    assert match.score == pytest.approx(0.9 - 0.6, abs=1e-6)


def test_one_dimensional_timestamps_end_where_the_last_row_starts() -> None:
    starts = REFERENCE.timestamps[:, :1]
    reference = replace(REFERENCE, timestamps=np.concatenate([starts, starts], axis=1))
    (match,) = localize(QUERY, reference, 0.7, network=COSINE)
    assert (match.ref_start_s, match.ref_end_s) == (4.0, 13.0)


def test_scenes_are_aligned_apart() -> None:
    """Two scenes show seconds 0-8 and 8-16 of one reference: together they look like one run of 16 rows."""
    query = describe("Q1", as_query(COPIED[:16]), num_scenes=2)
    together = localize(query, REFERENCE, 0.7, network=with_settings(COSINE, scenes="together"))
    assert together == [Match("Q1", "R1", 0.0, 8.0, 0.0, 16.0, 0.7)]
    apart = localize(query, REFERENCE, 0.7, network=COSINE)
    assert apart == [Match("Q1", "R1", 0.0, 8.0, 0.0, 8.0, 0.7), Match("Q1", "R1", 0.0, 8.0, 8.0, 16.0, 0.7)]


def test_a_scene_may_begin_in_the_second_in_which_the_one_before_ended() -> None:
    """So it is when near-duplicate rows were dropped."""
    query = describe("Q1", as_query(COPIED[:16]))
    starts = np.concatenate([np.arange(8), np.arange(7, 15)]).astype(np.float32)
    found = localize(replace(query, timestamps=np.stack([starts, starts + 1], axis=1)), REFERENCE, 0.7, network=COSINE)
    assert found == [Match("Q1", "R1", 0.0, 8.0, 0.0, 8.0, 0.7), Match("Q1", "R1", 7.0, 15.0, 8.0, 16.0, 0.7)]


def test_gated_queries_have_no_segments() -> None:
    gated = Descriptors("Q2", np.array([[0, 1]], np.float32), as_query(COPIED[:1], GATED_BIAS), gate="stopped")
    assert localize(gated, REFERENCE, -99.0) == []


def test_rows_of_zeros_have_no_direction() -> None:
    with np.errstate(all="raise"):
        assert localize(describe("Q1", np.zeros((8, 129), np.float32)), REFERENCE, 0.0, network=COSINE) == []


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"max_paths": 0}, {"min_length": 0}, {"min_similarity": -0.1}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        with_settings(SCORE_NORMALIZED, **wrong)
