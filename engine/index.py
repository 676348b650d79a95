"""Exact inner-product search over descriptor rows. It knows rows and scores, not videos.

What "exact" means here. Matrix products in float32 round differently for different block shapes, thread counts and
machines, by less than a known bound. They are used to find the pairs that *may* belong to the result; these few are
scored again, each alone, in float64, and rounded once to float32. So a score depends only on its two rows, equal rows
give equal scores, and neither block sizes nor the rows around a pair can change what is returned.

The bound: a float32 inner product of D terms, summed in any order, is off by at most ``D u / (1 - D u) * |q| |r|`` with
``u = 2**-24`` (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, StoreError
from engine.records import FloatArray

# The block that faiss multiplies at once: smaller ones wait more often for all threads, larger ones only take memory.
_QUERY_BLOCK = 4096
_REFERENCE_BLOCK = 1024
_SCORING_BLOCK = 256
_KNN_RESULTS = 2**22
# Neighbours looked at beyond the k asked for, and by how much more where a row's best references are near-copies.
_SPARE_NEIGHBOURS = 7
_WIDENING = 8
_UNIT_ROUNDOFF = 2.0**-24


class RowPairs(NamedTuple):
    """P scored pairs of rows: ``query_rows`` and ``ref_rows`` int64 ``(P,)``, ``scores`` float32 ``(P,)``."""

    query_rows: NDArray[np.int64]
    ref_rows: NDArray[np.int64]
    scores: FloatArray


class Neighbours(NamedTuple):
    """The k best references of each query: ``ref_rows`` int64 ``(Q, k)``, ``scores`` float32 ``(Q, k)``."""

    ref_rows: NDArray[np.int64]
    scores: FloatArray


def global_top_k(queries: FloatArray, references: FloatArray, *, k: int) -> RowPairs:
    """Find the ``k`` highest inner products among all pairs of ``queries (Q, D)`` and ``references (R, D)``.

    Best first; equal scores are ordered by query row, then reference row, also where the cut falls among them. All
    Q x R pairs are returned if ``k`` is not smaller. Memory is O(k) and one block, whatever the scores.

    A threshold rises while blocks are searched: what cannot be among the k best seen so far is not kept. Raises
    ``ConfigError`` for ``k < 1``, ``StoreError`` where the dimensions differ, and ``ValueError`` for arrays that are
    not finite float32 with at least one row.
    """
    _check(queries, references, k=k)
    errors = _error_bounds(queries, references)
    best = _BestPairs(queries, references, k=k)
    for first_ref in range(0, len(references), _REFERENCE_BLOCK):
        index = faiss.IndexFlatIP(references.shape[1])
        index.add(references[first_ref : first_ref + _REFERENCE_BLOCK])
        for first_query in range(0, len(queries), _QUERY_BLOCK):
            block = slice(first_query, first_query + _QUERY_BLOCK)
            # faiss returns scores above the radius; those equal to it are wanted too.
            radius = np.nextafter(best.threshold - errors[block].max(), np.float32(-np.inf))
            limits, scores, ref_rows = index.range_search(queries[block], float(radius))
            results_per_query = np.diff(limits).astype(np.int64)
            query_rows = first_query + np.repeat(np.arange(len(results_per_query)), results_per_query)
            best.offer(_Pairs(query_rows, first_ref + ref_rows, scores, errors[query_rows]))
    return best.result()


def top_k(queries: FloatArray, references: FloatArray, *, k: int) -> Neighbours:
    """Find the ``k`` references of highest inner product for each row of ``queries (Q, D)`` in ``references (R, D)``.

    Best first; equal scores are ordered by reference row. Raises ``ConfigError`` for ``k`` outside 1..R, else as
    `global_top_k`.
    """
    _check(queries, references, k=k)
    if k > len(references):
        raise ConfigError(f"cannot take the {k} nearest of {len(references)} rows")
    errors = _error_bounds(queries, references)
    ref_rows = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = slice(start, start + _QUERY_BLOCK)
        ref_rows[block], scores[block] = _nearest(
            queries[block], references, errors[block], k=k, width=k + _SPARE_NEIGHBOURS
        )
    return Neighbours(ref_rows, scores)


def _nearest(queries: FloatArray, references: FloatArray, errors: FloatArray, *, k: int, width: int) -> Neighbours:
    """`top_k` of one block: score ``width`` neighbours exactly, and look wider only where they do not settle it."""
    width = min(width, len(references))
    rough, found = faiss.knn(queries, references, width, metric=faiss.METRIC_INNER_PRODUCT)
    query_rows = np.repeat(np.arange(len(queries)), width)
    scores = _exact_scores(queries, references, query_rows, found.ravel()).reshape(found.shape)
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    best = Neighbours(np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1))
    if width < len(references):
        # A reference that was not found scores at most the last one found, give or take the error.
        unsettled = np.flatnonzero(rough[:, -1] + errors >= best.scores[:, -1])
        num_rows = max(1, _KNN_RESULTS // (width * _WIDENING))
        for start in range(0, len(unsettled), num_rows):
            rows = unsettled[start : start + num_rows]
            best.ref_rows[rows], best.scores[rows] = _nearest(
                queries[rows], references, errors[rows], k=k, width=width * _WIDENING
            )
    return best


class _Pairs(NamedTuple):
    """Scored pairs of rows with the most that each score can be off; all ``(P,)``."""

    query_rows: NDArray[np.int64]
    ref_rows: NDArray[np.int64]
    scores: FloatArray
    errors: FloatArray

    def take(self, selection: NDArray[np.bool_] | NDArray[np.intp]) -> _Pairs:
        return _Pairs(
            self.query_rows[selection], self.ref_rows[selection], self.scores[selection], self.errors[selection]
        )


class _BestPairs:
    """Collects the pairs that may be among the k best. ``threshold``: no pair below it can be."""

    def __init__(self, queries: FloatArray, references: FloatArray, *, k: int) -> None:
        self.threshold = np.float32(-np.inf)
        self._queries = queries
        self._references = references
        self._k = k
        self._parts: list[_Pairs] = []
        self._count = 0

    def offer(self, pairs: _Pairs) -> None:
        """Take pairs of which some may belong to the result."""
        self._hold(pairs)
        if self._count > 2 * self._k:
            self._shrink()

    def result(self) -> RowPairs:
        """The k best, best first."""
        if self._count > self._k:
            self._shrink()
        best = self._settle(self._release())
        return RowPairs(best.query_rows, best.ref_rows, best.scores)

    def _hold(self, pairs: _Pairs) -> None:
        self._parts.append(pairs)
        self._count += len(pairs.scores)

    def _release(self) -> _Pairs:
        held = _Pairs(*(np.concatenate(columns) for columns in zip(*self._parts, strict=True)))
        self._parts, self._count = [], 0
        return held

    def _shrink(self) -> None:
        pairs = self._release()
        self.threshold = np.partition(pairs.scores - pairs.errors, -self._k)[-self._k]
        pairs = pairs.take(pairs.scores + pairs.errors >= self.threshold)
        if len(pairs.scores) > 1.5 * self._k:
            # Many scores, such as those of equal rows, lie within their errors of the k-th: only exact ones decide.
            pairs = self._settle(pairs)
            self.threshold = pairs.scores[-1]
        self._hold(pairs)

    def _settle(self, pairs: _Pairs) -> _Pairs:
        """Exact scores, best first, the k best only."""
        rough = pairs.errors > 0
        scores, errors = pairs.scores.copy(), np.zeros_like(pairs.errors)
        scores[rough] = _exact_scores(self._queries, self._references, pairs.query_rows[rough], pairs.ref_rows[rough])
        order = np.lexsort((pairs.ref_rows, pairs.query_rows, -scores))[: self._k]
        return _Pairs(pairs.query_rows, pairs.ref_rows, scores, errors).take(order)


def _exact_scores(
    queries: FloatArray, references: FloatArray, query_rows: NDArray[np.int64], ref_rows: NDArray[np.int64]
) -> FloatArray:
    """Inner products of P pairs of rows, float32 ``(P,)``, each computed alone in float64."""
    scores = np.empty(len(query_rows), dtype=np.float32)
    for start in range(0, len(scores), _SCORING_BLOCK):
        block = slice(start, start + _SCORING_BLOCK)
        left = queries[query_rows[block]].astype(np.float64)
        right = references[ref_rows[block]].astype(np.float64)
        scores[block] = np.vecdot(left, right)
    return scores


def _error_bounds(queries: FloatArray, references: FloatArray) -> FloatArray:
    """How far a float32 score of each query can be from the exact one, float32 ``(Q,)``.

    Eight more roundings than the D terms need cover those of the lengths here, of sums and differences with the bound,
    and of the exact score to float32.
    """
    num_roundings = queries.shape[1] + 8
    relative = num_roundings * _UNIT_ROUNDOFF / (1 - num_roundings * _UNIT_ROUNDOFF)
    lengths = [np.sqrt(np.vecdot(rows, rows)) for rows in (queries, references)]
    if not all(np.isfinite(values).all() for values in lengths):
        raise ValueError("expected finite rows, got NaN, infinity or values whose squares are infinite")
    bounds: FloatArray = (relative * lengths[1].max() * lengths[0]).astype(np.float32)
    return bounds


def _check(queries: FloatArray, references: FloatArray, *, k: int) -> None:
    for name, rows in (("queries", queries), ("references", references)):
        if rows.ndim != 2 or len(rows) == 0 or rows.dtype != np.float32:
            raise ValueError(f"expected {name} as float32 (N, D) with N >= 1, got {rows.dtype} {rows.shape}")
    if queries.shape[1] != references.shape[1]:
        raise StoreError(
            f"queries have {queries.shape[1]} dimensions and references {references.shape[1]}; descriptors can only be "
            "compared if they were made with the same engines, and score-normalized on both sides or on neither"
        )
    if k < 1:
        raise ConfigError(f"expected to search for at least one result, got k = {k}")
