from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling import Extraction, check_equal, compare
from engine.errors import EngineError
from engine.records import Descriptors
from engine.run.plan import Workers
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.discovery import find_videos
from tests.videos import moving_frames, write_video


def extraction(workers: Workers, *, value: float = 1.0) -> Extraction:
    rows = np.full((5, 4), value, dtype=np.float32)
    results = [Descriptors(video_id, np.zeros((5, 2), dtype=np.float32), rows) for video_id in ("a", "b")]
    return Extraction(workers, results, total_s=4.0, stages_s={"decode": 3.0, "ensemble": 9.0}, usage={})


def test_ceilings() -> None:
    found = extraction(Workers(count=2, videos_at_once=3, num_threads=3))
    assert found.videos_per_s == 0.5
    assert found.decode_ceiling == 2 * 3 * 2 / 3.0
    # 5 frames a video of 2 GFLOP each on one device with 100 GFLOP/s.
    assert found.compute_ceiling(flop_per_frame=2e9, gemm_gflops=100) == pytest.approx(10)
    on_gpus = extraction(Workers(count=2, videos_at_once=3, num_threads=3, gpus=("0", "1")))
    assert on_gpus.compute_ceiling(flop_per_frame=2e9, gemm_gflops=100) == pytest.approx(20)


def test_other_descriptors_are_refused() -> None:
    one = extraction(Workers.share_cores(1))
    check_equal(one, extraction(Workers.share_cores(2)))
    with pytest.raises(EngineError, match="a: one worker and 2 differ; no time is reported"):
        check_equal(one, extraction(Workers.share_cores(2), value=2.0))


def test_workers_are_compared(tiny_engines: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", moving_frames(20, seed=ord(name)), fps=10)
    engines = EnginesDirectory.open(tiny_engines)
    lines, figures = compare(engines, find_videos([tmp_path]), num_workers=2, num_gpus=None)
    assert "2 videos, 4 frames; descriptors are equal bit for bit" in lines[0]
    assert [found["num_workers"] for found in figures["passes"]] == [1, 2]
    assert all(found["compute_ceiling"] > 0 for found in figures["passes"])
