"""The row that stands for a query which the edit gate stopped."""

from __future__ import annotations

import hashlib

import numpy as np

from engine.records import Descriptors, FloatArray

_RANGE = 1e-5


def placeholder(video_id: str, slot: FloatArray, *, edit_score: float | None, num_dims: int) -> Descriptors:
    """One row, uniform in ``[-1e-5, 1e-5)``, for the time ``slot``, float32 ``(1, 2)``; its gate state is ``stopped``.

    The reference seeds it by a counter; the video's id is used instead, so that no order of videos changes it.
    """
    seed = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "little")
    row = np.random.default_rng(seed).uniform(-_RANGE, _RANGE, size=(1, num_dims))
    return Descriptors(video_id, slot, row.astype(np.float32), edit_score=edit_score, gate="stopped")


def without_kept_rows(video: Descriptors) -> Descriptors:
    """The video with a placeholder instead of the rows that were kept after the gate; any other video as it is."""
    if video.gate != "stopped_rows_kept":
        return video
    num_dims = video.descriptors.shape[1]
    return placeholder(video.video_id, video.timestamps[:1], edit_score=video.edit_score, num_dims=num_dims)
