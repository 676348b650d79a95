"""Exact inner-product search over descriptor rows. It knows rows and scores, not videos.

What "exact" means here. Matrix products in float32 round differently for different block shapes, thread counts and
machines, by less than a known bound. They are used to find the pairs that *may* belong to the result; these few are
scored again, each alone, in float64, and rounded once to float32. So a score depends only on its two rows, equal rows
give equal scores, and neither block sizes nor the rows around a pair can change what is returned.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, StoreError
from engine.records import FloatArray
from engine.search.faiss_backend import (
    CPU,
    CpuNearest,
    Nearest,
    SearchDevice,
    error_bounds,
    lengths,
    query_blocks,
)
from engine.search.rows import Neighbours, RowPairs, Rows

logger = logging.getLogger(__name__)

_SCORING_BLOCK = 256
# References multiplied at once on the CPU: a block of scores, 16 MiB, is still in the cache when it is looked through.
_REFERENCE_BLOCK = 1024
# Neighbours looked at beyond the k asked for, and by how much more where a row's best references are near-copies.
_SPARE_NEIGHBOURS = 7
_WIDENING = 8
# Neighbours of a row looked at first, in multiples of the average number of its pairs in the result, and at least.
_FIRST_WIDTH = 2
_MIN_WIDTH = 32


def global_top_k(
    queries: FloatArray | Rows, references: FloatArray | Rows, *, k: int, device: SearchDevice = CPU
) -> RowPairs:
    """Find the ``k`` highest inner products of ``queries (Q, D)`` and ``references (R, D)``.

    A `engine.search.rows.RowSearch` that misses none. Equal scores keep their order also where the cut falls among
    them. All Q x R pairs are returned if ``k`` is not smaller. Memory is O(k) and one block, whatever the scores. The
    result does not depend on ``device``.

    A threshold rises while blocks are searched: what cannot be among the k best seen so far is not kept, and query rows
    that cannot reach it with any reference, such as those of videos that the gate stopped, are not searched. GPUs find
    the nearest of each row; rows with more pairs above the threshold than they can find are searched on the CPU, which
    is said. For GPUs, rows of several arrays are copied into one. Raises as a `RowSearch`, ``ValueError`` for arrays
    that are not finite float32 with at least one row, and what `SearchDevice.check` does.
    """
    queries, references = _as_rows("queries", queries), _as_rows("references", references)
    _check(queries, references, k=k)
    best = _BestPairs(queries, references, k=k)
    longest = max(float(lengths(array).max()) for array in references.arrays)
    errors = np.concatenate([error_bounds(array, longest=longest) for array in queries.arrays])
    rows = np.arange(len(queries))
    if device != CPU:
        rows = _offer_nearest(best, device.open(references.joined()), queries.joined(), errors, k=k)
        if len(rows):
            logger.info(
                "%d of %d query rows have too many pairs for a GPU; searched on the CPU", len(rows), len(queries)
            )
    if len(rows):
        _offer_all(best, queries, references, errors, rows)
    return best.result()


def _offer_nearest(
    best: _BestPairs, nearest: Nearest, queries: FloatArray, errors: FloatArray, *, k: int
) -> NDArray[np.intp]:
    """Offer the nearest of each row, ever more of them where all that were found count; gives the rows still open."""
    rows = np.arange(len(queries))
    width = min(max(_MIN_WIDTH, _FIRST_WIDTH * -(-k // len(queries))), nearest.max_k)
    while len(rows):
        last = np.empty(len(rows), dtype=np.float32)
        for block in query_blocks(len(rows), results_per_row=width):
            scores, ref_rows = nearest.search(queries[rows[block]], k=width)
            last[block] = scores[:, -1]
            query_rows = np.repeat(rows[block], width)
            pairs = _Pairs(query_rows, ref_rows.ravel(), scores.ravel(), errors[query_rows])
            best.offer(pairs.take(pairs.scores + pairs.errors >= best.threshold))
        best.tighten()
        if width == best.num_references:
            return rows[:0]
        # A reference that was not found scores at most the last one found, give or take the error.
        rows = rows[last + errors[rows] >= best.threshold]
        best.forget(rows)
        if width == nearest.max_k:
            return rows
        width = min(width * _WIDENING, nearest.max_k)
    return rows


def _offer_all(best: _BestPairs, queries: Rows, references: Rows, errors: FloatArray, rows: NDArray[np.int64]) -> None:
    """Offer every pair of some query rows that may count; rows that can score highest come first."""
    ceilings = _ceilings(queries, references, errors)[rows]
    order = np.argsort(-ceilings, kind="stable")
    rows, ceilings = rows[order], ceilings[order]
    for block in query_blocks(len(rows)):
        if ceilings[block.start] < best.threshold:
            return
        searched = queries.take(rows[block])
        for start, references_block in references.blocks(_REFERENCE_BLOCK):
            open_rows = rows[block][ceilings[block] >= best.threshold]
            scores = searched[: len(open_rows)] @ references_block.T
            if best.threshold == -np.inf:
                best.see(scores - errors[open_rows, None])
            # One step down: the difference was rounded.
            floors = np.nextafter(best.threshold - errors[open_rows], np.float32(-np.inf))
            # Few rows have such a pair, and the maximum of a row is found faster than all that lies above a score.
            places = np.flatnonzero(scores.max(axis=1) >= floors)
            found, ref_rows = np.nonzero(scores[places] >= floors[places, None])
            found = places[found]
            query_rows = open_rows[found]
            best.offer(_Pairs(query_rows, start + ref_rows, scores[found, ref_rows], errors[query_rows]))


def _ceilings(queries: Rows, references: Rows, errors: FloatArray) -> NDArray[np.float64]:
    """Scores that no pair of each query row exceeds, ``(Q,)``: the last dimension is looked at apart from the rest.

    It holds the bias of score normalization, against the same value in all references.
    """
    last = [array[:, -1] for array in references.arrays]
    lowest, highest = float(min(map(np.min, last))), float(max(map(np.max, last)))
    longest = max(float(lengths(array[:, :-1]).max()) for array in references.arrays)
    heads = np.concatenate([lengths(array[:, :-1]) for array in queries.arrays]).astype(np.float64)
    tails = np.concatenate([array[:, -1] for array in queries.arrays]).astype(np.float64)
    return heads * longest + np.maximum(tails * lowest, tails * highest) + errors


class NearestRows:
    """The nearest of ``references (R, D)``; raises as `global_top_k`."""

    def __init__(self, references: FloatArray, *, device: SearchDevice = CPU) -> None:
        _as_rows("references", references)
        self._references = references
        self._longest = float(lengths(references).max())
        self._nearest = device.open(references)

    def top_k(self, queries: FloatArray, *, k: int) -> Neighbours:
        """The ``k`` references of highest inner product for each row of ``queries (Q, D)``.

        Best first; equal scores are ordered by reference row. Raises ``ConfigError`` for ``k`` outside 1..R.
        """
        _check(_as_rows("queries", queries), _as_rows("references", self._references), k=k)
        if k > len(self._references):
            raise ConfigError(f"cannot take the {k} nearest of {len(self._references)} rows")
        found = Neighbours(np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32))
        errors = error_bounds(queries, longest=self._longest)
        for block in query_blocks(len(queries)):
            rows = np.arange(len(queries))[block]
            self._settle(found, queries, errors, rows, width=k + _SPARE_NEIGHBOURS)
        return found

    def _settle(
        self, found: Neighbours, queries: FloatArray, errors: FloatArray, rows: NDArray[np.intp], *, width: int
    ) -> None:
        """Score ``width`` neighbours of some query rows exactly, and look wider only where they do not settle it."""
        width, k = min(width, len(self._references)), found.scores.shape[1]
        nearest = self._nearest
        if width > nearest.max_k:
            logger.info("%d query rows have too many near-copies for a GPU; searched on the CPU", len(rows))
            nearest = CpuNearest(self._references)
        rough, ref_rows = nearest.search(queries[rows], k=width)
        query_rows = np.repeat(rows, width)
        sides = Rows([queries]), Rows([self._references])
        scores = _exact_scores(*sides, query_rows, ref_rows.ravel()).reshape(ref_rows.shape)
        order = np.lexsort((ref_rows, -scores), axis=1)[:, :k]
        found.ref_rows[rows] = np.take_along_axis(ref_rows, order, axis=1)
        found.scores[rows] = np.take_along_axis(scores, order, axis=1)
        if width == len(self._references):
            return
        # A reference that was not found scores at most the last one found, give or take the error.
        unsettled = rows[rough[:, -1] + errors[rows] >= found.scores[rows, -1]]
        for block in query_blocks(len(unsettled), results_per_row=width * _WIDENING):
            self._settle(found, queries, errors, unsettled[block], width=width * _WIDENING)


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

    def __init__(self, queries: Rows, references: Rows, *, k: int) -> None:
        self.threshold = np.float32(-np.inf)
        self.num_references = len(references)
        self._queries = queries
        self._references = references
        self._k = k
        self._parts: list[_Pairs] = []
        self._count = 0

    def see(self, lower_bounds: FloatArray) -> None:
        """Raise the threshold by scores of different pairs, less their errors; the pairs are still to be offered."""
        if lower_bounds.size > self._k:
            self.threshold = max(self.threshold, np.partition(lower_bounds, -self._k, axis=None)[-self._k])

    def offer(self, pairs: _Pairs) -> None:
        """Take pairs of which some may belong to the result."""
        self._hold(pairs)
        if self._count > 2 * self._k:
            self._shrink()

    def tighten(self) -> None:
        """Raise the threshold as far as what is held allows."""
        if self._count > self._k:
            self._shrink()

    def forget(self, query_rows: NDArray[np.intp]) -> None:
        """Drop what is held of some query rows, because all of it will be offered again. The threshold stays true."""
        if self._count and len(query_rows):
            pairs = self._release()
            self._hold(pairs.take(~np.isin(pairs.query_rows, query_rows)))

    def result(self) -> RowPairs:
        """The k best, best first."""
        self.tighten()
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
    queries: Rows, references: Rows, query_rows: NDArray[np.int64], ref_rows: NDArray[np.int64]
) -> FloatArray:
    """Inner products of P pairs of rows, float32 ``(P,)``, each computed alone in float64."""
    scores = np.empty(len(query_rows), dtype=np.float32)
    for start in range(0, len(scores), _SCORING_BLOCK):
        block = slice(start, start + _SCORING_BLOCK)
        left = queries.take(query_rows[block]).astype(np.float64)
        right = references.take(ref_rows[block]).astype(np.float64)
        scores[block] = np.vecdot(left, right)
    return scores


def _as_rows(name: str, rows: FloatArray | Rows) -> Rows:
    if isinstance(rows, Rows):
        return rows
    if rows.ndim != 2 or len(rows) == 0 or rows.dtype != np.float32:
        raise ValueError(f"expected {name} as float32 (N, D) with N >= 1, got {rows.dtype} {rows.shape}")
    return Rows([rows])


def _check(queries: Rows, references: Rows, *, k: int) -> None:
    if queries.num_dims != references.num_dims:
        raise StoreError(
            f"queries have {queries.num_dims} dimensions and references {references.num_dims}; descriptors can only be "
            "compared if they were made with the same engines, and score-normalized on both sides or on neither"
        )
    if k < 1:
        raise ConfigError(f"expected to search for at least one result, got k = {k}")
