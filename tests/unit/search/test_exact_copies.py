"""Queries that the gate stopped: which of them count after all, by comparing every row with every row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import StoreError
from engine.gate_placeholder import placeholder
from engine.records import Descriptors, GateState
from engine.search.exact_copies import read_queries, resolve_stopped
from engine.store.challenge_npz import write_npz
from engine.store.shards import Fingerprint
from engine.store.store import StoreWriter
from engine.video.sampling import slot_timestamps

NUM_DIMS = 16


def video(video_id: str, rows: np.ndarray, *, gate: GateState = "passed") -> Descriptors:
    return Descriptors(video_id, slot_timestamps(len(rows)), rows.astype(np.float32), edit_score=0.5, gate=gate)


def rows_of(num: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, NUM_DIMS))


REFERENCES = [video(f"R{number}", 3 * rows_of(4 + number, seed=number)) for number in range(3)]


def near(row: np.ndarray, *, cosine: float, seed: int) -> np.ndarray:
    """A row with exactly this cosine to ``row``."""
    unit = row / np.linalg.norm(row)
    other = rows_of(1, seed=seed)[0]
    other -= (other @ unit) * unit
    other /= np.linalg.norm(other)
    return 0.1 * (cosine * unit + np.sqrt(1 - cosine**2) * other)


@pytest.fixture
def queries() -> list[Descriptors]:
    """Passed; stopped and far; stopped, with one row near a reference; stopped, and nearly near enough; placeholder."""
    target = REFERENCES[2].descriptors[5].astype(np.float64)
    return [
        video("Q0", REFERENCES[0].descriptors),
        video("Q1", rows_of(5, seed=10), gate="stopped_rows_kept"),
        video("Q2", np.vstack([rows_of(2, seed=11), near(target, cosine=0.96, seed=12)]), gate="stopped_rows_kept"),
        video("Q3", np.vstack([near(target, cosine=0.94, seed=13), rows_of(2, seed=14)]), gate="stopped_rows_kept"),
        placeholder("Q4", slot_timestamps(1), edit_score=0.1, num_dims=NUM_DIMS),
    ]


def test_only_what_is_near_a_reference_passes(queries: list[Descriptors]) -> None:
    resolved = resolve_stopped(queries, REFERENCES, near_identical_cosine=0.95)
    assert [item.video_id for item in resolved] == [item.video_id for item in queries]
    assert [item.is_stopped for item in resolved] == [False, True, False, True, True]
    assert [len(item) for item in resolved] == [4, 1, 3, 1, 1]
    np.testing.assert_array_equal(resolved[2].descriptors, queries[2].descriptors)
    assert max(np.abs(item.descriptors).max() for item in resolved if item.is_stopped) < 1e-5


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_every_pair_of_rows_is_compared(threshold: float) -> None:
    stopped = [
        video(f"Q{number}", rows_of(1 + number % 4, seed=100 + number), gate="stopped_rows_kept")
        for number in range(40)
    ]
    ref_rows = np.concatenate([item.descriptors for item in REFERENCES]).astype(np.float64)
    ref_rows /= np.linalg.norm(ref_rows, axis=1, keepdims=True)
    expected = []
    for item in stopped:
        unit = item.descriptors.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        expected.append(bool((unit @ ref_rows.T).max() <= threshold))
    resolved = resolve_stopped(stopped, REFERENCES, near_identical_cosine=threshold)
    assert [item.is_stopped for item in resolved] == expected


def test_without_a_threshold_all_stay_out(queries: list[Descriptors]) -> None:
    resolved = resolve_stopped(queries, REFERENCES, near_identical_cosine=None)
    assert [item.is_stopped for item in resolved] == [False, True, True, True, True]
    assert [len(item) for item in resolved] == [4, 1, 1, 1, 1]


def test_what_needs_no_decision_is_returned_itself(queries: list[Descriptors]) -> None:
    resolved = resolve_stopped(queries, REFERENCES, near_identical_cosine=0.95)
    assert resolved[0] is queries[0]
    assert resolved[4] is queries[4]


def test_other_dimensions_fail(queries: list[Descriptors]) -> None:
    others = [video("R9", np.ones((2, NUM_DIMS + 1)))]
    with pytest.raises(StoreError, match="differ in dimension"):
        resolve_stopped(queries, others, near_identical_cosine=0.95)


def store(folder: Path, videos: list[Descriptors], identity: dict[str, object]) -> Path:
    with StoreWriter(folder, identity=identity) as writer:
        for item in videos:
            writer.add(item, Fingerprint(1, 1))
        writer.finish()
    return folder


def test_stopped_queries_of_a_store_are_resolved_with_the_figure_it_was_made_with(
    queries: list[Descriptors], tmp_path: Path
) -> None:
    for cosine, expected in ((0.95, [False, True, False, True, True]), (0.93, [False, True, False, False, True])):
        identity = {"settings": {"gate": {"near_identical_cosine": cosine}}}
        folder = store(tmp_path / str(cosine), queries, identity)
        assert [item.is_stopped for item in read_queries(folder, REFERENCES)] == expected


def test_without_kept_rows_any_file_is_read(queries: list[Descriptors], tmp_path: Path) -> None:
    write_npz(tmp_path / "queries.npz", [queries[0], queries[4]])
    assert [item.is_stopped for item in read_queries(tmp_path / "queries.npz", REFERENCES)] == [False, True]


def test_kept_rows_without_a_figure_fail(queries: list[Descriptors], tmp_path: Path) -> None:
    write_npz(tmp_path / "queries.npz", queries)
    folder = store(tmp_path / "store", queries, {"settings": {"gate": {"mode": "off"}}})
    for path in (tmp_path / "queries.npz", folder):
        with pytest.raises(StoreError, match="near_identical_cosine that says"):
            read_queries(path, REFERENCES)
