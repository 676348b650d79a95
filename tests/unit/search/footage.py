"""Made-up descriptors of footage, score-normalized by hand: unrelated rows reach -0.6, a copy 0.4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.records import Descriptors, FloatArray


def footage(seed: int, num_rows: int = 20) -> FloatArray:
    """Frames that have nothing in common."""
    rows = np.random.default_rng(seed).normal(size=(num_rows, 128))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def shown_at(rows: FloatArray, times_s: Sequence[float] | np.ndarray) -> FloatArray:
    """Frames of footage that changes steadily from row to row, at any times (row numbers)."""
    times = np.clip(np.asarray(times_s, dtype=np.float64), 0, len(rows) - 1)
    before = np.minimum(times.astype(int), len(rows) - 2)
    share = (times - before)[:, None]
    mixed = (1 - share) * rows[before] + share * rows[before + 1]
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def describe(
    video_id: str, rows: FloatArray, *, num_scenes: int = 1, starts_s: Sequence[int] | None = None
) -> Descriptors:
    """One row a second, scene by scene."""
    starts = np.tile(np.arange(len(rows) // num_scenes), num_scenes) if starts_s is None else np.asarray(starts_s)
    return Descriptors(video_id, np.stack([starts, starts + 1], axis=1).astype(np.float32), rows)


def as_query(rows: FloatArray | list[FloatArray], bias: float = -0.6) -> FloatArray:
    return np.append(rows, np.full((len(rows), 1), bias, np.float32), axis=1)


def as_reference(rows: FloatArray) -> FloatArray:
    return np.append(rows, np.ones((len(rows), 1), np.float32), axis=1)
