from __future__ import annotations

import dataclasses

import pytest

from benchmarks import bench_executor
from benchmarks.bench_executor import check, measure, rows_of
from engine.errors import EngineError
from engine.records import Media
from engine.run.messages import Job


def test_all_videos_are_written_and_read_back() -> None:
    rate = measure(length_s=3, num_videos=7, num_workers=2)
    assert (rate.length_s, rate.num_workers) == (3, 2)
    assert rate.videos_per_s > 0
    assert rate.mb_per_s == pytest.approx(rate.videos_per_s * 3 * bench_executor.NUM_DIMS * 4 / 1e6)


def test_other_rows_and_missing_videos_are_noticed() -> None:
    jobs = [Job("describe", Media(name, bench_executor.Path("v.mp4"))) for name in ("a", "b")]
    good = [rows_of(name, num_rows=2) for name in ("a", "b")]
    check(good, jobs, length_s=2)
    with pytest.raises(EngineError, match="1 of 2 videos"):
        check(good[:1], jobs, length_s=2)
    wrong = dataclasses.replace(good[1], descriptors=good[1].descriptors + 1)
    with pytest.raises(EngineError, match="b was stored with other rows"):
        check([good[0], wrong], jobs, length_s=2)
