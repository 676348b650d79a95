"""What stands for a video that the edit gate stopped. Knows nothing of the gate."""

from __future__ import annotations

import hashlib

import numpy as np

from engine.records import Descriptors, FloatArray

_PLACEHOLDER_RANGE = 1e-5


def gated_placeholder(video_id: str, slot: FloatArray, *, edit_score: float | None, num_dims: int) -> Descriptors:
    """One row, uniform in ``[-1e-5, 1e-5)``, for the time ``slot``, float32 ``(1, 2)``.

    The reference seeds it by a counter; the video's id is used instead, so that no order of videos changes it.
    """
    seed = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "little")
    row = np.random.default_rng(seed).uniform(-_PLACEHOLDER_RANGE, _PLACEHOLDER_RANGE, size=(1, num_dims))
    return Descriptors(video_id, slot, row.astype(np.float32), edit_score=edit_score, gated=True)


def is_held(video: Descriptors) -> bool:
    """The gate stopped the video, but the rows of its frames are still there, for `engine.readmit`."""
    return video.gated and bool(np.abs(video.descriptors).max() > _PLACEHOLDER_RANGE)


def shut_out(video: Descriptors) -> Descriptors:
    """The video with a placeholder instead of rows that are held; any other video as it is."""
    if not is_held(video):
        return video
    num_dims = video.descriptors.shape[1]
    return gated_placeholder(video.video_id, video.timestamps[:1], edit_score=video.edit_score, num_dims=num_dims)
