from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from engine.config import Search
from engine.errors import StoreError
from engine.records import CandidatePair, Descriptors
from engine.search.candidates import find_candidates
from engine.search.exact import global_top_k
from engine.search.faiss_backend import SearchDevice
from engine.store.challenge_npz import read_npz
from engine.store.tables import read_candidates
from tests.search_devices import DEVICES


def videos(prefix: str, num_videos: int, *, seed: int, num_dims: int = 16) -> list[Descriptors]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num_videos):
        num_rows = int(rng.integers(1, 9))
        rows = rng.standard_normal((num_rows, num_dims)).astype(np.float32)
        found.append(Descriptors(f"{prefix}{number}", np.zeros((num_rows, 2), dtype=np.float32), rows))
    return found


def whole_numbers(source: Sequence[Descriptors]) -> list[Descriptors]:
    """The same videos with ties everywhere."""
    return [Descriptors(video.video_id, video.timestamps, np.round(video.descriptors)) for video in source]


def written_out(
    queries: Sequence[Descriptors], references: Sequence[Descriptors], *, num_frame_pairs: int, num_candidates: int
) -> list[CandidatePair]:
    """The challenge's procedure over a list of all pairs of frames."""
    frame_pairs = []
    for query in queries:
        for query_row in query.descriptors.astype(np.float64):
            for reference in references:
                for score in (reference.descriptors.astype(np.float64) @ query_row).astype(np.float32).tolist():
                    frame_pairs.append((score, query.video_id, reference.video_id))
    frame_pairs.sort(key=lambda pair: -pair[0])
    best: dict[tuple[str, str], float] = defaultdict(lambda: -np.inf)
    for score, query_id, ref_id in frame_pairs[:num_frame_pairs]:
        best[query_id, ref_id] = max(best[query_id, ref_id], score)
    pairs = [CandidatePair(query_id, ref_id, score) for (query_id, ref_id), score in best.items()]
    return sorted(pairs, key=lambda pair: -pair.score)[:num_candidates]


@pytest.mark.parametrize(("retrieve_per_query", "candidates_per_query"), [(1, 1), (7, 2), (60, 4), (1200, 25)])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_the_procedure_written_out(retrieve_per_query: int, candidates_per_query: int, tied: bool) -> None:
    queries, references = videos("Q", 9, seed=0), videos("R", 30, seed=1)
    if tied:
        queries, references = whole_numbers(queries), whole_numbers(references)
    config = Search(retrieve_per_query=retrieve_per_query, candidates_per_query=candidates_per_query)
    found = find_candidates(queries, references, config=config)
    expected = written_out(
        queries, references, num_frame_pairs=9 * retrieve_per_query, num_candidates=9 * candidates_per_query
    )
    assert found == expected
    assert all(type(pair.score) is float for pair in found)


@pytest.mark.parametrize(
    ("recorded", "retrieve_per_query", "candidates_per_query"),
    [("candidates.csv", 1200, 25), ("candidates_small_k.csv", 40, 3)],
)
@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_equals_the_reference(
    golden: Path, device: SearchDevice, recorded: str, retrieve_per_query: int, candidates_per_query: int
) -> None:
    folder = golden / "postprocess"
    expected = read_candidates(folder / recorded)
    found = find_candidates(
        read_npz(folder / "query_sn.npz"),
        read_npz(folder / "test_refs_sn.npz"),
        config=Search(retrieve_per_query=retrieve_per_query, candidates_per_query=candidates_per_query),
        search=partial(global_top_k, device=device),
    )
    assert_same_but_for_rounding(found, expected)


def assert_same_but_for_rounding(found: Sequence[CandidatePair], expected: Sequence[CandidatePair]) -> None:
    """The same pairs, scores and order; but recorded scores carry float32 rounding, which orders neighbours at will."""
    scores = {(pair.query_id, pair.ref_id): pair.score for pair in found}
    assert scores.keys() == {(pair.query_id, pair.ref_id) for pair in expected}
    in_recorded_order = np.array([scores[pair.query_id, pair.ref_id] for pair in expected])
    np.testing.assert_allclose(in_recorded_order, [pair.score for pair in expected], rtol=0, atol=1e-6)
    assert (np.diff(in_recorded_order) < 2e-7).all()
    assert (np.diff([pair.score for pair in found]) <= 0).all()


class TestBadInput:
    def test_nothing_to_search_fails(self) -> None:
        with pytest.raises(StoreError, match="no query descriptors"):
            find_candidates([], videos("R", 2, seed=0))
        with pytest.raises(StoreError, match="no reference descriptors"):
            find_candidates(videos("Q", 2, seed=0), [])

    def test_a_video_that_occurs_twice_fails(self) -> None:
        once = videos("Q", 3, seed=0)
        for queries, references in (([*once, once[1]], once), (once, [*once, once[1]])):
            with pytest.raises(StoreError, match=r"\['Q1'\] more than once"):
                find_candidates(queries, references)

    def test_dimensions_that_differ_fail(self) -> None:
        with pytest.raises(StoreError, match="'Q0' has 16, 'R0' has 17"):
            find_candidates(videos("Q", 3, seed=0), videos("R", 3, seed=0, num_dims=17))

    @pytest.mark.parametrize(("retrieve_per_query", "candidates_per_query"), [(0, 25), (1200, 0), (-1, 25)])
    def test_numbers_below_one_fail(self, retrieve_per_query: int, candidates_per_query: int) -> None:
        with pytest.raises(ValidationError, match="greater than 0"):
            Search(retrieve_per_query=retrieve_per_query, candidates_per_query=candidates_per_query)
