"""The descriptor file of the VSC2022 challenge, an ``.npz``.

The arrays are those of facebookresearch/vsc2022 (``storage.py``), a row per descriptor: ``video_ids``, ``features``,
``timestamps``. What the edit gate found goes into two more, ``edit_scores`` and ``gate_states``, and which rows are
blank into ``blank``; other programs ignore them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import StoreError
from engine.files import load_arrays, save_arrays
from engine.records import Descriptors, FloatArray, GateState, Role
from engine.storage.location import Location

_ID_PREFIX: Mapping[Role, str] = {"query": "Q", "reference": "R"}


def read_npz(path: Location, *, role: Role | None = None) -> list[Descriptors]:
    """Read videos in the order in which they first appear, and their rows in the order of the file.

    ``video_ids`` are strings, or numbers if ``role`` is given: number 7 of the queries is ``Q000007``. Timestamps of
    shape ``(N, 2)`` are starts and ends; those of shape ``(N,)`` are starts, and each row lasts one sampling interval:
    the shortest time between two rows of a video, 1 s where no video has two. Raises ``StoreError`` for a file that is
    missing, damaged or of other contents, and for NaN or infinity.
    """
    try:
        arrays = load_arrays(path)
    except ValueError as error:
        raise StoreError(str(error)) from error
    missing = sorted({"video_ids", "features", "timestamps"}.difference(arrays))
    if missing:
        raise StoreError(f"{path} lacks the arrays {missing}; expected video_ids, features and timestamps")
    _check_shapes(arrays, source=path)
    ids = _text_ids(arrays["video_ids"], role=role, source=path)
    features, times = arrays["features"], arrays["timestamps"]
    if times.ndim == 1:
        times = np.stack([times, times + _sampling_interval_s(ids, times)], axis=1)
    edit_scores, gate_states, blank = (arrays.get(name) for name in ("edit_scores", "gate_states", "blank"))
    if gate_states is None and "gated" in arrays:  # what older versions wrote
        gate_states = np.where(arrays["gated"], "stopped", "passed")
    videos = []
    for rows in _rows_of_videos(ids):
        score = np.nan if edit_scores is None else float(edit_scores[rows[0]])
        try:
            video = Descriptors(
                video_id=str(ids[rows[0]]),
                timestamps=_float32(times[rows]),
                descriptors=_float32(features[rows]),
                edit_score=None if np.isnan(score) else score,
                gate="passed" if gate_states is None else cast(GateState, str(gate_states[rows[0]])),
                blank=None if blank is None else blank[rows],
            )
        except ValueError as error:
            raise StoreError(f"{path}: {error}") from error
        videos.append(video)
    return videos


def write_npz(path: Location, descriptors: Sequence[Descriptors]) -> None:
    """Write videos in the order given, timestamps as ``(N, 2)``.

    ``edit_scores`` (float64, NaN for none) and ``gate_states`` (strings, see `engine.records.GateState`) are added if
    any video has them, ``blank`` (bool) if all have it: no more than ``warnings`` and ``shot_ends_s`` is lost.
    Raises ``StoreError`` unless there are descriptors, all of one dimension.
    """
    dimensions = sorted({video.descriptors.shape[1] for video in descriptors})
    if len(dimensions) != 1:
        raise StoreError(f"cannot write {path}: expected descriptors of one dimension, got {dimensions or 'none'}")
    lengths = [len(video) for video in descriptors]
    arrays: dict[str, NDArray[Any]] = {
        "video_ids": np.repeat([video.video_id for video in descriptors], lengths),
        "features": np.concatenate([video.descriptors for video in descriptors]),
        "timestamps": np.concatenate([video.timestamps for video in descriptors]),
    }
    blank = [video.blank for video in descriptors if video.blank is not None]
    if len(blank) == len(descriptors):
        arrays["blank"] = np.concatenate(blank)
    if any(video.is_stopped or video.edit_score is not None for video in descriptors):
        scores = [np.nan if video.edit_score is None else video.edit_score for video in descriptors]
        arrays["edit_scores"] = np.repeat(np.array(scores, dtype=np.float64), lengths)
        arrays["gate_states"] = np.repeat([video.gate for video in descriptors], lengths)
    save_arrays(path, arrays)


def _check_shapes(arrays: Mapping[str, NDArray[Any]], *, source: Location) -> None:
    ids, features, times = arrays["video_ids"], arrays["features"], arrays["timestamps"]
    num_rows = len(ids) if ids.ndim == 1 else -1
    kinds = {"edit_scores": "f", "gate_states": "U", "gated": "b", "blank": "b"}
    per_row = [(arrays[name], kind) for name, kind in kinds.items() if name in arrays]
    if (
        features.ndim != 2
        or len(features) != num_rows
        or features.dtype.kind != "f"
        or times.shape not in {(num_rows,), (num_rows, 2)}
        or times.dtype.kind not in "iuf"
        or any(values.shape != (num_rows,) or values.dtype.kind != kind for values, kind in per_row)
    ):
        found = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise StoreError(
            f"{source}: expected video_ids (N,), features (N, D) of floats, timestamps (N,) or (N, 2) and, if any, "
            f"edit_scores, gate_states and blank (N,); got {found}"
        )


def _sampling_interval_s(ids: NDArray[np.str_], starts_s: NDArray[Any]) -> float:
    """The shortest time between two rows of one video, in seconds; 1, as in the challenge, where none has two."""
    _, videos = np.unique(ids, return_inverse=True)
    order = np.lexsort((starts_s, videos))
    gaps_s = np.diff(starts_s[order].astype(np.float64))
    gaps_s = gaps_s[(np.diff(videos[order]) == 0) & (gaps_s > 0)]
    return float(gaps_s.min()) if len(gaps_s) else 1.0


def _float32(values: NDArray[Any]) -> FloatArray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
        return values.astype(np.float32, copy=False)


def _text_ids(ids: NDArray[Any], *, role: Role | None, source: Location) -> NDArray[np.str_]:
    """Video ids as text; numbers get the prefix and the six digits of the challenge."""
    if ids.dtype.kind == "U":
        return ids
    if ids.dtype.kind not in "iu":
        raise StoreError(f"{source}: expected video_ids as strings or numbers, got dtype {ids.dtype}")
    if role is None:
        raise StoreError(f"{source}: video_ids are numbers; say whether they are of queries (Q) or references (R)")
    return np.array([f"{_ID_PREFIX[role]}{number:06d}" for number in ids.tolist()], dtype=np.str_)


def _rows_of_videos(ids: NDArray[np.str_]) -> list[NDArray[np.intp]]:
    """The rows of each video, in the order of the videos' first rows."""
    _, first_rows, video_of_row, counts = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    rows = np.split(np.argsort(video_of_row, kind="stable"), np.cumsum(counts)[:-1])
    return [rows[video] for video in np.argsort(first_rows)]
