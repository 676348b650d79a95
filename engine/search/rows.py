"""What a search over rows takes and gives, and the interface behind which another one can stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import FloatArray


class Rows:
    """The rows of several arrays, float32 ``(n, D)`` each, as one table ``(N, D)``, without a copy of them.

    Raises ``ValueError`` unless they are of one D and there is at least one row.
    """

    def __init__(self, arrays: Sequence[FloatArray]) -> None:
        for array in arrays:
            if array.ndim != 2 or array.dtype != np.float32 or array.shape[1:] != arrays[0].shape[1:]:
                raise ValueError(f"expected rows as float32 (N, D) of one D, got {array.dtype} {array.shape}")
        self.arrays = tuple(array for array in arrays if len(array))
        self._starts = np.cumsum([0, *map(len, self.arrays)])
        if not self.arrays:
            raise ValueError("expected rows as float32 (N, D) with N >= 1, got none")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def num_dims(self) -> int:
        """D."""
        return int(self.arrays[0].shape[1])

    def joined(self) -> FloatArray:
        """All rows in one array: the one that holds them, or else a copy."""
        return self.arrays[0] if len(self.arrays) == 1 else np.concatenate(self.arrays)

    def blocks(self, num_rows: int) -> Iterator[tuple[int, FloatArray]]:
        """The number of the first row, and ``num_rows`` rows or what is left: where one array holds them, no copy."""
        for start in range(0, len(self), num_rows):
            stop = min(start + num_rows, len(self))
            first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
            parts = [
                self.arrays[place][max(0, start - begin) : stop - begin]
                for place, begin in enumerate(self._starts[first : last + 1].tolist(), start=first)
            ]
            yield start, parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, indices: NDArray[np.int64]) -> FloatArray:
        """A copy of some rows, ``(len(indices), D)``."""
        if len(self.arrays) == 1:
            return self.arrays[0][indices]
        places = np.searchsorted(self._starts, indices, side="right") - 1
        within = indices - self._starts[places]
        taken = np.empty((len(indices), self.num_dims), dtype=np.float32)
        for number, (place, row) in enumerate(zip(places.tolist(), within.tolist(), strict=True)):
            taken[number] = self.arrays[place][row]
        return taken


class RowPairs(NamedTuple):
    """P scored pairs of rows: ``query_rows`` and ``ref_rows`` int64 ``(P,)``, ``scores`` float32 ``(P,)``."""

    query_rows: NDArray[np.int64]
    ref_rows: NDArray[np.int64]
    scores: FloatArray


class Neighbours(NamedTuple):
    """The k best references of each query: ``ref_rows`` int64 ``(Q, k)``, ``scores`` float32 ``(Q, k)``."""

    ref_rows: NDArray[np.int64]
    scores: FloatArray


def best_of(parts: Sequence[RowPairs], *, k: int) -> RowPairs:
    """The ``k`` best of several searches, best first, in the order of a `RowSearch`; all where there are no more.

    Where each part holds the ``k`` best of some references, numbered as in all of them, this is what one exact search
    of all finds.
    """
    query_rows, ref_rows, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((ref_rows, query_rows, -scores))[:k]
    return RowPairs(query_rows[order], ref_rows[order], scores[order])


class RowSearch(Protocol):
    """Finds the ``k`` best pairs of ``queries (Q, D)`` and ``references (R, D)`` by their inner products.

    All together, best first; equal scores are ordered by query row, then reference row. An approximate search may miss
    pairs; the scores of those that it gives are inner products of the rows. Raises ``ConfigError`` for ``k < 1``,
    ``StoreError`` where the dimensions differ.
    """

    def __call__(self, queries: Rows, references: Rows, *, k: int) -> RowPairs:  # noqa: D102 - see the class
        ...
