"""Drops the near-duplicate frames of one video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.projection import l2_normalize
from engine.records import FloatArray

_BLOCK_ROWS = 256


def keep_distinct(embeddings: FloatArray, *, max_cosine: float) -> NDArray[np.intp]:
    """Choose the rows of ``embeddings``, float32 ``(N, E)``, that remain; returns ascending indices ``(M,)``.

    Greedy rule of the reference (VSC22 descriptor track, first place): rows are visited by falling mean cosine to all
    rows, the most typical first; a visited row that is still there removes all others whose cosine with it is above
    ``max_cosine``. Rows of equal mean, such as copies of one row, are visited in their order, so that the first copy
    is kept. A ``max_cosine`` of 1 or more keeps everything.

    Memory beyond two copies of the input is a block of rows by N, never N x N.
    """
    num_rows = len(embeddings)
    if max_cosine >= 1:
        return np.arange(num_rows)
    unit = l2_normalize(embeddings)
    visit_order = np.argsort(-_total_cosine(unit), kind="stable")
    unit = unit[visit_order]
    kept = np.ones(num_rows, dtype=bool)
    for start in range(0, num_rows, _BLOCK_ROWS):
        block = start + np.flatnonzero(kept[start : start + _BLOCK_ROWS])
        too_close = unit[block] @ unit[start:].T > max_cosine
        for row, close in zip(block, too_close, strict=True):
            if kept[row]:
                kept[row + 1 :] &= ~close[row + 1 - start :]
    return np.sort(visit_order[kept])


def _total_cosine(unit: FloatArray) -> NDArray[np.float64]:
    """Sum of each row's cosines with all rows, itself included: orders rows as their mean with the others does."""
    total = unit.sum(axis=0, dtype=np.float64)
    sums = np.empty(len(unit))
    for start in range(0, len(unit), _BLOCK_ROWS):
        block = unit[start : start + _BLOCK_ROWS].astype(np.float64)
        sums[start : start + _BLOCK_ROWS] = np.vecdot(block, total)
    return sums
