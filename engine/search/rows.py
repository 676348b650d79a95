"""What a search over rows gives, and the interface behind which another one can stand."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import FloatArray


class RowPairs(NamedTuple):
    """P scored pairs of rows: ``query_rows`` and ``ref_rows`` int64 ``(P,)``, ``scores`` float32 ``(P,)``."""

    query_rows: NDArray[np.int64]
    ref_rows: NDArray[np.int64]
    scores: FloatArray


class Neighbours(NamedTuple):
    """The k best references of each query: ``ref_rows`` int64 ``(Q, k)``, ``scores`` float32 ``(Q, k)``."""

    ref_rows: NDArray[np.int64]
    scores: FloatArray


class RowSearch(Protocol):
    """Finds the ``k`` best pairs of ``queries (Q, D)`` and ``references (R, D)``, float32, by their inner products.

    All together, best first; equal scores are ordered by query row, then reference row. An approximate search may miss
    pairs; the scores of those that it gives are inner products of the rows. Raises ``ConfigError`` for ``k < 1``,
    ``StoreError`` where the dimensions differ.
    """

    def __call__(self, queries: FloatArray, references: FloatArray, *, k: int) -> RowPairs:  # noqa: D102 - see the class
        ...
