from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.describe.near_duplicates import keep_changing, keep_distinct
from engine.projection import l2_normalize
from engine.records import FloatArray


def kept_by_the_whole_matrix(embeddings: FloatArray, max_cosine: float) -> NDArray[np.intp]:
    """The rule written down directly, with the N x N matrix, in float64."""
    unit = embeddings / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    cosine = unit @ unit.T - np.eye(len(unit))
    removed = np.zeros(len(unit), dtype=bool)
    for row in np.argsort(-cosine.mean(axis=0), kind="stable"):
        if not removed[row]:
            removed |= cosine[row] > max_cosine
    return np.flatnonzero(~removed)


def video(num_frames: int, *, num_shots: int, seed: int) -> FloatArray:
    """Frames that drift within shots, so that cosines lie on both sides of the threshold."""
    rng = np.random.default_rng(seed)
    shots = rng.standard_normal((num_shots, 64))[np.sort(rng.integers(0, num_shots, num_frames))]
    return (shots + 0.12 * rng.standard_normal((num_frames, 64))).astype(np.float32)


@pytest.mark.parametrize(("num_frames", "num_shots"), [(1, 1), (2, 1), (30, 4), (255, 20), (700, 40), (700, 650)])
@pytest.mark.parametrize("max_cosine", [0.5, 0.975, 0.985])
def test_equals_the_rule_written_with_the_whole_matrix(num_frames: int, num_shots: int, max_cosine: float) -> None:
    embeddings = video(num_frames, num_shots=num_shots, seed=num_frames)
    kept = keep_distinct(embeddings, max_cosine=max_cosine)
    np.testing.assert_array_equal(kept, kept_by_the_whole_matrix(embeddings, max_cosine))
    assert kept.dtype == np.intp


def test_keeps_the_same_rows_as_the_reference(golden: Path) -> None:
    folder = golden / "postprocess"
    facts = json.loads((folder / "golden.json").read_text())
    inputs = np.load(folder / "query_inputs.npz")
    parts = [l2_normalize(inputs[f"model{i}"].astype(np.float32)) for i in range(1, 1 + facts["models"])]
    embeddings = np.concatenate(parts, axis=1)
    expected, found = {}, {}
    for video_id in dict.fromkeys(inputs["video_ids"].tolist()):
        query = facts["queries"][video_id]
        if not query["gated"]:
            rows = embeddings[inputs["video_ids"] == video_id]
            assert len(rows) == query["rows_in"]
            expected[video_id] = query["rows_kept"]
            found[video_id] = len(keep_distinct(rows, max_cosine=facts["frame_threshold"]))
    assert found == expected
    assert any(len(inputs["video_ids"][inputs["video_ids"] == key]) > count for key, count in found.items())


def test_the_first_of_equal_frames_is_kept() -> None:
    still = np.repeat(np.eye(3, 64, dtype=np.float32) + 0.1, 100, axis=0)
    np.testing.assert_array_equal(keep_distinct(still, max_cosine=0.975), [0, 100, 200])


@pytest.mark.parametrize("max_cosine", [1.0, 2.0])
def test_a_threshold_of_one_or_more_keeps_everything(max_cosine: float) -> None:
    still = np.ones((5, 8), dtype=np.float32)
    np.testing.assert_array_equal(keep_distinct(still, max_cosine=max_cosine), np.arange(5))


def test_black_frames_without_direction_are_kept() -> None:
    embeddings = np.zeros((3, 8), dtype=np.float32)
    np.testing.assert_array_equal(keep_distinct(embeddings, max_cosine=0.975), [0, 1, 2])


def test_no_frames_give_no_rows() -> None:
    assert keep_distinct(np.empty((0, 8), dtype=np.float32), max_cosine=0.975).shape == (0,)


def test_memory_does_not_grow_with_the_square_of_the_frames() -> None:
    embeddings = video(4000, num_shots=3000, seed=0)
    tracemalloc.start()
    keep_distinct(embeddings, max_cosine=0.975)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4000 * 4000


def kept_one_by_one(
    embeddings: FloatArray, times: list[int], views: list[int], max_cosine: float
) -> dict[int, list[int]]:
    """Which rows stand for which times, the rule written down directly: one row after the other."""
    unit = embeddings / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    stands_for: dict[int, list[int]] = {}
    rows_of: dict[int, list[int]] = {}
    by_time = sorted(set(times))
    for number, time in enumerate(by_time):
        before = by_time[number - 1] if number else None
        for row in (index for index, of_row in enumerate(times) if of_row == time):
            own = [index for index, view in enumerate(views) if view == views[row] and times[index] < time]
            last = max(own, key=lambda index: times[index], default=None)
            known = [
                other
                for other, held in stands_for.items()
                if before in held or time in held or (last is not None and last in rows_of[other])
            ]
            twin = max(known, key=lambda other: unit[other] @ unit[row], default=None)
            if twin is not None and unit[twin] @ unit[row] > max_cosine:
                stands_for[twin].append(time)
                rows_of[twin].append(row)
            else:
                stands_for[row] = [time]
                rows_of[row] = [row]
    return stands_for


@pytest.mark.parametrize("max_cosine", [0.5, 0.9, 0.975])
def test_what_changes_equals_the_rule_written_row_by_row(max_cosine: float) -> None:
    every_second = video(60, num_shots=5, seed=4)[::2]
    embeddings = np.concatenate([video(60, num_shots=8, seed=1), video(60, num_shots=3, seed=2), every_second])
    starts = [*range(60), *range(60), *range(0, 60, 2)]
    views = [0] * 60 + [1] * 60 + [2] * 30
    timestamps = np.stack([starts, np.array(starts) + 1], axis=1).astype(np.float32)
    kept, times = keep_changing(embeddings, timestamps, max_cosine=max_cosine)
    expected = kept_one_by_one(embeddings, starts, views, max_cosine)
    assert kept.tolist() == sorted(expected)
    assert times.tolist() == [[starts[row], max(expected[row]) + 1] for row in sorted(expected)]


def test_what_comes_back_has_rows_again_and_what_stands_still_has_one() -> None:
    first, second = np.eye(2, 8, dtype=np.float32)
    rows = np.stack([first, first, first, second, second, first, first])
    timestamps = np.stack([np.arange(7), np.arange(7) + 1], axis=1).astype(np.float32)
    kept, times = keep_changing(rows, timestamps, max_cosine=0.975)
    assert kept.tolist() == [0, 3, 5]
    assert times.tolist() == [[0, 3], [3, 5], [5, 7]]
    assert keep_distinct(rows, max_cosine=0.975).tolist() == [0, 3]


def test_what_stands_still_has_one_row_in_a_view_of_every_second_frame_too() -> None:
    moving, still = np.eye(8, 9, dtype=np.float32), np.tile(np.eye(1, 9, 8, dtype=np.float32), (4, 1))
    starts = np.append(np.arange(8), np.arange(0, 8, 2))
    timestamps = np.stack([starts, starts + 1], axis=1).astype(np.float32)
    kept, times = keep_changing(np.concatenate([moving, still]), timestamps, max_cosine=0.975)
    assert kept.tolist() == list(range(9))
    assert times[-1].tolist() == [0, 7]


def test_of_two_equal_views_one_remains_at_each_time() -> None:
    rows = video(20, num_shots=20, seed=3)
    timestamps = np.stack([np.arange(20), np.arange(20) + 1], axis=1).astype(np.float32)
    kept, _ = keep_changing(np.tile(rows, (2, 1)), np.tile(timestamps, (2, 1)), max_cosine=0.975)
    alone, _ = keep_changing(rows, timestamps, max_cosine=0.975)
    assert kept.tolist() == alone.tolist()
