"""Drops the near-duplicate frames of one video: all, as the reference does, or only while a picture stands still."""

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


def keep_changing(
    embeddings: FloatArray, timestamps: FloatArray, *, max_cosine: float
) -> tuple[NDArray[np.intp], FloatArray]:
    """Choose the rows at which something new is shown; what was shown before and comes back has rows again.

    ``embeddings``: float32 ``(N, E)``; ``timestamps``: float32 ``(N, 2)``, of several views, one after the other. A row
    is dropped where its cosine with a row that stands for the time before, for the one before it of its own view, or
    with one of the same time, is above ``max_cosine``; that row stands for this time, too. Returns ascending indices
    ``(M,)`` of the rows that remain and their times ``(M, 2)``, which end with the last row that they stand for.
    """
    unit = l2_normalize(embeddings)
    ends_s = timestamps[:, 1].copy()
    order = np.argsort(timestamps[:, 0], kind="stable")
    _, first = np.unique(timestamps[order, 0], return_index=True)
    follows = np.append(False, timestamps[1:, 0] > timestamps[:-1, 0])  # a time that goes back begins a view
    stands_for = list(range(len(unit)))
    kept: list[int] = []
    before: list[int] = []
    for rows in np.split(order, first[1:]):
        shown: list[int] = []
        for row in rows.tolist():
            own = [stands_for[row - 1]] if follows[row] else []
            known = [*before, *(other for other in (*own, *shown) if other not in before)]
            cosines = unit[known] @ unit[row]
            if known and cosines.max() > max_cosine:
                twin = known[int(cosines.argmax())]
                ends_s[twin] = max(ends_s[twin], timestamps[row, 1])
            else:
                twin = row
                kept.append(row)
            stands_for[row] = twin
            if twin not in shown:
                shown.append(twin)
        before = shown
    indices = np.sort(np.array(kept, dtype=np.intp))
    return indices, np.stack([timestamps[indices, 0], ends_s[indices]], axis=1)


def _total_cosine(unit: FloatArray) -> NDArray[np.float64]:
    """Sum of each row's cosines with all rows, itself included: orders rows as their mean with the others does."""
    total = unit.sum(axis=0, dtype=np.float64)
    sums = np.empty(len(unit))
    for start in range(0, len(unit), _BLOCK_ROWS):
        block = unit[start : start + _BLOCK_ROWS].astype(np.float64)
        sums[start : start + _BLOCK_ROWS] = np.vecdot(block, total)
    return sums
