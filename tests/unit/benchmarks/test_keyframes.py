"""The benchmark of key-frame sampling puts key frames where it says, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.data_sets import DataSet
from benchmarks.keyframes import encode_set, encode_with_gops
from engine.records import Media
from engine.video.media import index_timeline
from tests.videos import moving_frames, write_video


@pytest.mark.parametrize("gop_s", [0.4, 1.0, 10.0])
def test_key_frames_are_so_far_apart_and_times_stay(tmp_path: Path, gop_s: float) -> None:
    write_video(tmp_path / "v.mp4", moving_frames(60), fps=25, audio=True)
    encode_with_gops(tmp_path / "v.mp4", tmp_path / "copy.mp4", gop_s=gop_s)
    given, copy = (index_timeline(Media("v", tmp_path / name)) for name in ("v.mp4", "copy.mp4"))
    np.testing.assert_allclose(copy.times_s, given.times_s)
    assert copy.keyframes.tolist() == list(range(0, 60, round(25 * gop_s)))


def test_a_set_is_encoded_once(tmp_path: Path) -> None:
    for name in ("query", "reference"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / f"{name}.mp4", moving_frames(10))
    truth = tmp_path / "val_matching_ground_truth.csv"
    truth.write_text("query_id,ref_id,query_start,query_end,ref_start,ref_end\n")
    given = DataSet("val", tmp_path / "query", tmp_path / "reference", truth)
    made = encode_set(given, tmp_path / "gop_1", gop_s=1.0)
    assert sorted(path.name for path in (*made.queries.iterdir(), *made.references.iterdir())) == [
        "query.mp4",
        "reference.mp4",
    ]
    written = (made.queries / "query.mp4").stat().st_mtime_ns
    encode_set(given, tmp_path / "gop_1", gop_s=1.0)
    assert (made.queries / "query.mp4").stat().st_mtime_ns == written
