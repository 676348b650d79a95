from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import ConfigError, StoreError
from engine.records import FloatArray
from engine.search import exact as index
from engine.search import faiss_backend as nearest
from engine.search.exact import global_top_k
from engine.search.faiss_backend import SearchDevice
from engine.search.rows import Neighbours, RowPairs, Rows
from tests.search_devices import DEVICES, top_k


def unit_rows(num_rows: int, num_dims: int = 64, *, seed: int, num_clusters: int = 40) -> FloatArray:
    """Rows around common centres, as frames of videos are."""
    centres = np.random.default_rng(99).standard_normal((num_clusters, num_dims))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, num_clusters, num_rows)] + rng.standard_normal((num_rows, num_dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def integer_rows(num_rows: int, *, seed: int) -> FloatArray:
    """Rows whose inner products are small integers: exact in any arithmetic, with ties everywhere."""
    return np.random.default_rng(seed).integers(-1, 2, (num_rows, 8)).astype(np.float32)


def brute_force(queries: FloatArray, references: FloatArray, k: int) -> RowPairs:
    scores = (queries.astype(np.float64) @ references.astype(np.float64).T).astype(np.float32)
    query_rows, ref_rows = np.indices(scores.shape).reshape(2, -1)
    order = np.lexsort((ref_rows, query_rows, -scores.ravel()))[:k]
    return RowPairs(query_rows[order], ref_rows[order], scores.ravel()[order])


def assert_same(found: RowPairs | Neighbours, expected: RowPairs | Neighbours) -> None:
    for name, values in found._asdict().items():
        np.testing.assert_array_equal(values, getattr(expected, name), err_msg=name)


def small_blocks(monkeypatch: pytest.MonkeyPatch, *, query_block: int, reference_block: int) -> None:
    monkeypatch.setattr(nearest, "_QUERY_BLOCK", query_block)
    monkeypatch.setattr(index, "_REFERENCE_BLOCK", reference_block)
    monkeypatch.setattr(nearest, "_MAX_RESULTS", query_block * 16)
    monkeypatch.setattr(index, "_SCORING_BLOCK", 5)


class WatchedRows(Rows):
    """Rows that know which of them were looked at."""

    def __init__(self, arrays: Sequence[FloatArray]) -> None:
        super().__init__(arrays)
        self.taken: set[int] = set()

    def take(self, indices: NDArray[np.int64]) -> FloatArray:
        self.taken.update(indices.tolist())
        return super().take(indices)


@pytest.fixture(params=DEVICES.values(), ids=DEVICES)
def device(request: pytest.FixtureRequest) -> SearchDevice:
    found: SearchDevice = request.param
    return found


class TestGlobalTopK:
    @pytest.mark.parametrize("k", [1, 10, 2500, 60_000, 10**12])
    def test_equals_brute_force(self, device: SearchDevice, k: int) -> None:
        queries, references = unit_rows(130, seed=0), unit_rows(700, seed=1)
        found = global_top_k(queries, references, k=k, device=device)
        assert_same(found, brute_force(queries, references, k))
        assert [column.dtype.name for column in found] == ["int64", "int64", "float32"]

    @pytest.mark.parametrize(("query_block", "reference_block"), [(1, 1), (7, 64), (33, 50), (512, 10)])
    def test_blocks_change_nothing(
        self, device: SearchDevice, monkeypatch: pytest.MonkeyPatch, query_block: int, reference_block: int
    ) -> None:
        queries, references = unit_rows(60, seed=2), unit_rows(150, seed=3)
        small_blocks(monkeypatch, query_block=query_block, reference_block=reference_block)
        assert_same(global_top_k(queries, references, k=400, device=device), brute_force(queries, references, 400))

    @pytest.mark.parametrize("k", [1, 137, 1000, 4000])
    def test_equal_scores_are_ordered_by_row_also_at_the_cut(
        self, device: SearchDevice, monkeypatch: pytest.MonkeyPatch, k: int
    ) -> None:
        queries, references = integer_rows(90, seed=0), integer_rows(110, seed=1)
        *_, inside, outside = brute_force(queries, references, k + 1).scores
        assert inside == outside
        expected = brute_force(queries, references, k)
        assert_same(global_top_k(queries, references, k=k, device=device), expected)
        small_blocks(monkeypatch, query_block=8, reference_block=16)
        assert_same(global_top_k(queries, references, k=k, device=device), expected)

    def test_scores_are_the_nearest_float32_of_the_exact_ones(self, device: SearchDevice) -> None:
        queries, references = unit_rows(50, 512, seed=4), unit_rows(80, 512, seed=5)
        exact = queries.astype(np.longdouble) @ references.astype(np.longdouble).T
        found = global_top_k(queries, references, k=10_000, device=device)
        np.testing.assert_array_equal(found.scores, exact[found.query_rows, found.ref_rows].astype(np.float32))

    def test_a_score_depends_only_on_its_two_rows(self, device: SearchDevice) -> None:
        queries, references = unit_rows(40, 513, seed=6), unit_rows(90, 513, seed=7)
        permutation = np.random.default_rng(0).permutation(90)
        found = global_top_k(queries, references, k=10_000, device=device)
        table = np.empty((40, 90), dtype=np.float32)
        table[found.query_rows, found.ref_rows] = found.scores
        other = global_top_k(queries[::-1], references[permutation], k=10_000, device=device)
        np.testing.assert_array_equal(other.scores, table[::-1][:, permutation][other.query_rows, other.ref_rows])

    def test_negative_scores_and_rows_of_very_different_length(self, device: SearchDevice) -> None:
        """As score normalization makes them: a query's last value is its bias, -100 if it was gated."""
        queries = np.concatenate([unit_rows(60, seed=8), np.full((60, 1), -0.9, dtype=np.float32)], axis=1)
        queries[::4, -1] = -100
        references = np.concatenate([unit_rows(200, seed=9), np.ones((200, 1), dtype=np.float32)], axis=1)
        for k in (500, 60 * 200 - 300):
            expected = brute_force(queries, references, k)
            assert expected.scores[-1] < 0
            assert_same(global_top_k(queries, references, k=k, device=device), expected)

    @pytest.mark.parametrize("k", [1, 30, 500, 45 * 200 + 5])
    def test_rows_that_cannot_reach_the_threshold_are_searched_only_where_k_asks_for_them(
        self, monkeypatch: pytest.MonkeyPatch, k: int
    ) -> None:
        """As queries that the gate stopped: their bias is -100."""
        small_blocks(monkeypatch, query_block=5, reference_block=64)
        queries = np.concatenate([unit_rows(60, seed=8), np.full((60, 1), -0.9, dtype=np.float32)], axis=1)
        stopped = np.arange(0, 60, 4)
        queries[stopped, -1] = -100
        references = np.concatenate([unit_rows(200, seed=9), np.ones((200, 1), dtype=np.float32)], axis=1)
        watched = WatchedRows([queries])
        assert_same(global_top_k(watched, references, k=k), brute_force(queries, references, k))
        assert watched.taken.isdisjoint(stopped.tolist()) == (k <= 45 * 200)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
    def test_no_score_is_above_the_ceiling_of_its_row(self, scale: float) -> None:
        queries, references = scale * unit_rows(300, 65, seed=16), unit_rows(400, 65, seed=17)
        queries[::3] = references[:100] * np.float32(scale)
        references[::2] *= np.float32(0.1)
        bounds = nearest.error_bounds(queries, longest=1.0)
        ceilings = index._ceilings(Rows([queries]), Rows([references]), bounds)
        exact = queries.astype(np.longdouble) @ references.astype(np.longdouble).T
        assert (exact.max(axis=1).astype(np.float32) <= ceilings).all()

    def test_rows_of_many_arrays_are_as_one_array(self, device: SearchDevice, monkeypatch: pytest.MonkeyPatch) -> None:
        queries, references = unit_rows(60, seed=2), unit_rows(150, seed=3)
        expected = brute_force(queries, references, 400)
        small_blocks(monkeypatch, query_block=7, reference_block=64)
        sides = Rows(np.split(queries, [1, 1, 20])), Rows(np.split(references, [30, 33, 149]))
        assert_same(global_top_k(*sides, k=400, device=device), expected)

    def test_references_are_not_copied(self) -> None:
        queries, references = unit_rows(20, 512, seed=18), unit_rows(20_000, 512, seed=19)
        sides = Rows([queries]), Rows(np.split(references, 500))
        tracemalloc.start()
        global_top_k(*sides, k=100)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < references.nbytes / 4

    def test_rows_of_zeros(self, device: SearchDevice) -> None:
        queries, references = np.zeros((4, 8), dtype=np.float32), integer_rows(5, seed=0)
        assert_same(global_top_k(queries, references, k=7, device=device), brute_force(queries, references, 7))

    def test_memory_stays_bounded_when_all_scores_are_equal(
        self, device: SearchDevice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small_blocks(monkeypatch, query_block=32, reference_block=64)
        monkeypatch.setattr(index, "_SCORING_BLOCK", 256)
        rows = np.repeat(unit_rows(1, seed=0), 500, axis=0)
        tracemalloc.start()
        found = global_top_k(rows, rows, k=100, device=device)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(found.query_rows, np.zeros(100))
        np.testing.assert_array_equal(found.ref_rows, np.arange(100))
        assert peak_bytes < 500 * 500 * 8


class TestTopK:
    @pytest.mark.parametrize("k", [1, 2, 50, 700])
    def test_equals_brute_force(self, device: SearchDevice, k: int) -> None:
        queries, references = unit_rows(130, seed=10), unit_rows(700, seed=11)
        found = top_k(queries, references, k=k, device=device)
        assert found.ref_rows.shape == found.scores.shape == (130, k)
        for row in range(0, 130, 13):
            expected = brute_force(queries[row : row + 1], references, k)
            np.testing.assert_array_equal(found.ref_rows[row], expected.ref_rows)
            np.testing.assert_array_equal(found.scores[row], expected.scores)

    @pytest.mark.parametrize(("query_block", "reference_block"), [(1, 1), (7, 64), (33, 50)])
    def test_blocks_change_nothing(
        self, device: SearchDevice, monkeypatch: pytest.MonkeyPatch, query_block: int, reference_block: int
    ) -> None:
        queries, references = unit_rows(60, seed=12), unit_rows(150, seed=13)
        expected = top_k(queries, references, k=3, device=device)
        small_blocks(monkeypatch, query_block=query_block, reference_block=reference_block)
        assert_same(top_k(queries, references, k=3, device=device), expected)

    def test_many_equal_neighbours_are_ordered_by_row(self, device: SearchDevice) -> None:
        """More equal references than are looked at first, as a still video in the norm set has."""
        references = np.repeat(unit_rows(3, seed=14), 200, axis=0)
        shuffled = np.random.default_rng(1).permutation(600)
        found = top_k(references[::100], references[shuffled], k=150, device=device)
        for row in range(6):
            expected = brute_force(references[::100][row : row + 1], references[shuffled], 150)
            np.testing.assert_array_equal(found.ref_rows[row], expected.ref_rows)
            assert len(set(found.scores[row].tolist())) == 1

    def test_near_copies_are_told_apart(self, device: SearchDevice) -> None:
        """Scores closer than a float32 matrix product can tell."""
        base = unit_rows(1, 512, seed=15).astype(np.float64)
        steps = np.random.default_rng(2).standard_normal((300, 512)) * 1e-7
        references = (base + steps).astype(np.float32)
        found = top_k(base.astype(np.float32), references, k=5, device=device)
        expected = brute_force(base.astype(np.float32), references, 5)
        np.testing.assert_array_equal(found.ref_rows[0], expected.ref_rows)
        np.testing.assert_array_equal(found.scores[0], expected.scores)

    def test_more_neighbours_than_rows_fail(self, device: SearchDevice) -> None:
        with pytest.raises(ConfigError, match="cannot take the 6 nearest of 5 rows"):
            top_k(unit_rows(2, seed=0), unit_rows(5, seed=0), k=6, device=device)


@pytest.mark.parametrize("search", [global_top_k, top_k])
class TestBadInput:
    def test_dimensions_that_differ_fail(self, search: Callable[..., object]) -> None:
        with pytest.raises(StoreError, match=r"queries have 8 dimensions and references 9; .* same engines"):
            search(unit_rows(2, 8, seed=0), unit_rows(2, 9, seed=0), k=1)

    @pytest.mark.parametrize("k", [0, -3])
    def test_k_below_one_fails(self, search: Callable[..., object], k: int) -> None:
        with pytest.raises(ConfigError, match=f"at least one result, got k = {k}"):
            search(unit_rows(2, seed=0), unit_rows(2, seed=0), k=k)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_rows_that_are_not_finite_fail(self, search: Callable[..., object], bad: float) -> None:
        rows = unit_rows(5, seed=0)
        rows[3, 2] = bad
        for pair in ((rows, unit_rows(5, seed=1)), (unit_rows(5, seed=1), rows)):
            with pytest.raises(ValueError, match="finite rows"):
                search(*pair, k=1)

    def test_other_arrays_fail(self, search: Callable[..., object]) -> None:
        rows = unit_rows(2, seed=0)
        for bad in (rows.astype(np.float64), rows[0], rows[:0]):
            with pytest.raises(ValueError, match=r"expected references as float32 \(N, D\)"):
                search(rows, bad, k=1)
