from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.catalog.found import Found, nothing_found
from engine.catalog.records import CatalogVideo
from engine.errors import StoreError
from engine.records import FloatArray
from engine.search.exact import global_top_k

NUM_VIDEOS = 12


def known(number: int, num_rows: int) -> CatalogVideo:
    return CatalogVideo(f"v{number:02d}", Path(f"v{number}"), "", float(num_rows), num_rows, ())


def searched(videos: list[CatalogVideo], rows: dict[str, FloatArray], query: FloatArray, k: int) -> Found:
    references = np.concatenate([rows[video.video_id] for video in videos])
    return Found.among(videos, global_top_k(query, references, k=k))


@pytest.mark.parametrize("k", [1, 7, 40, 10_000])
def test_the_best_of_parts_are_those_of_one_search_also_where_scores_are_equal(k: int) -> None:
    rng = np.random.default_rng(k)
    videos = [known(number, int(rng.integers(1, 6))) for number in range(NUM_VIDEOS)]
    # Few values, so that many scores are equal, also across the cut.
    rows = {v.video_id: rng.integers(-1, 2, size=(v.num_rows, 3)).astype(np.float32) for v in videos}
    query = rng.integers(-1, 2, size=(5, 3)).astype(np.float32)
    expected = searched(videos, rows, query, k)
    of_part = rng.integers(3, size=NUM_VIDEOS)
    parts = [[video for video, place in zip(videos, of_part, strict=True) if place == part] for part in range(3)]
    found = Found.best_of([*(searched(part, rows, query, k) for part in parts if part), nothing_found()], k=k)
    starts = np.cumsum([0, *found.num_rows().values()])
    for name in ("query_rows", "scores"):
        np.testing.assert_array_equal(getattr(found.pairs, name), getattr(expected.pairs, name))
    places = np.searchsorted(starts, found.pairs.ref_rows, side="right") - 1
    ids = [(found.videos[p].video_id, int(r - starts[p])) for p, r in zip(places, found.pairs.ref_rows, strict=True)]
    starts = np.cumsum([0, *expected.num_rows().values()])
    places = np.searchsorted(starts, expected.pairs.ref_rows, side="right") - 1
    assert ids == [
        (expected.videos[p].video_id, int(r - starts[p])) for p, r in zip(places, expected.pairs.ref_rows, strict=True)
    ]


def test_only_videos_that_occur_are_kept() -> None:
    videos = [known(number, 2) for number in range(3)]
    rows = {video.video_id: np.full((2, 1), number, dtype=np.float32) for number, video in enumerate(videos)}
    found = searched(videos, rows, np.ones((1, 1), dtype=np.float32), 3)
    assert found.num_rows() == {"v01": 2, "v02": 2}
    assert found.pairs.ref_rows.tolist() == [2, 3, 0]


def test_a_video_in_two_parts_is_refused() -> None:
    part = searched([known(1, 1)], {"v01": np.ones((1, 1), dtype=np.float32)}, np.ones((1, 1), dtype=np.float32), 1)
    with pytest.raises(StoreError, match=r"^two shares of the catalogue hold the same video; [^\n]*$"):
        Found.best_of([part, part], k=1)
