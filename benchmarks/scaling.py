"""Several workers or GPUs against one: equal descriptors first, then videos per second and the distance to ceilings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.bench_runner import gemm_gflops
from benchmarks.flops import count_flop
from benchmarks.gpu_usage import GpuUsage
from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Descriptors, Media
from engine.run.extraction import extract_to_store
from engine.run.plan import Workers, choose_workers
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.store import read_descriptors

_GEMM_SECONDS = 3.0


@dataclass(frozen=True)
class Extraction:
    """One extraction of all videos as references: every sampled frame passes the ensemble once.

    ``total_s`` has the start of the workers in it. ``usage``: percent of NVDEC and multiprocessors of the first GPU.
    """

    workers: Workers
    results: list[Descriptors]
    total_s: float
    stages_s: dict[str, float]
    usage: dict[str, float]

    @property
    def videos_per_s(self) -> float:
        """Videos per second, all workers together."""
        return len(self.results) / self.total_s

    @property
    def decode_ceiling(self) -> float:
        """Videos per second if the threads that decode did nothing else."""
        num_threads = self.workers.count * self.workers.videos_at_once
        return num_threads * len(self.results) / max(self.stages_s.get("decode", 0.0), 1e-9)

    def compute_ceiling(self, *, flop_per_frame: float, gemm_gflops: float) -> float:
        """Videos per second if every worker's device did nothing but matrix products; a CPU is shared by all."""
        num_devices = len(self.workers.gpus) or 1
        frames_per_video = sum(map(len, self.results)) / len(self.results)
        return num_devices * gemm_gflops * 1e9 / (flop_per_frame * frames_per_video)


def extract(engines: EnginesDirectory, media: Sequence[Media], workers: Workers) -> Extraction:
    """Describe the videos anew. Raises ``EngineError`` if one fails."""
    usage = GpuUsage() if workers.gpus else None
    with TemporaryDirectory() as name:
        output = Path(name) / "store"
        with usage or nullcontext():
            start_s = time.perf_counter()
            summary = extract_to_store(Engine.open(engines), media, role="reference", output=output, workers=workers)
            total_s = time.perf_counter() - start_s
        if summary.failures:
            raise EngineError(f"{summary.failures[0].path}: {summary.failures[0].reason}")
        results = read_descriptors(output)
    return Extraction(workers, results, total_s, dict(summary.stages_s), usage.figures() if usage else {})


def check_equal(one: Extraction, other: Extraction) -> None:
    """Raise ``EngineError`` unless both have the same videos with the same bits."""
    for mine, theirs in zip(one.results, other.results, strict=True):
        same = mine.video_id == theirs.video_id and np.array_equal(mine.descriptors, theirs.descriptors)
        if not same or not np.array_equal(mine.timestamps, theirs.timestamps):
            raise EngineError(f"{mine.video_id}: one worker and {other.workers.count} differ; no time is reported")


def compare(
    engines: EnginesDirectory, media: Sequence[Media], *, num_workers: int | None, num_gpus: int | None
) -> tuple[list[str], dict[str, Any]]:
    """Lines for people and figures of one worker or GPU, and of as many as asked for."""
    manifest = engines.manifest
    single = choose_workers(manifest, num_workers=num_workers and 1, num_gpus=num_gpus and 1)
    several = choose_workers(manifest, num_workers=num_workers, num_gpus=num_gpus)
    passes = [extract(engines, media, workers) for workers in (single, several)]
    check_equal(*passes)
    flop = count_flop(engines.path(manifest.graphs["ensemble"].files[0]))
    gflops = gemm_gflops(manifest, "ensemble", seconds=_GEMM_SECONDS)
    lines = [
        f"{len(media)} videos, {sum(map(len, passes[0].results))} frames; descriptors are equal bit for bit",
        f"{flop / 1e9:.3f} GFLOP a frame; matrix products run at {gflops:.0f} GFLOP/s on one device",
        f"{'workers':<10}{'seconds':>9}{'videos/s':>10}{'decode ceiling':>16}{'compute ceiling':>17}{'NVDEC':>7}"
        f"{'SMs':>6}",
    ]
    figures: dict[str, Any] = {"num_videos": len(media), "flop_per_frame": flop, "gemm_gflops": gflops, "passes": []}
    for found in passes:
        compute = found.compute_ceiling(flop_per_frame=flop, gemm_gflops=gflops)
        usage = "".join(
            f"{found.usage[name]:>{width}.0f}" if found.usage else f"{'-':>{width}}"
            for name, width in (("nvdec_percent", 7), ("sm_percent", 6))
        )
        lines.append(
            f"{found.workers.count:<10}{found.total_s:>9.1f}{found.videos_per_s:>10.2f}{found.decode_ceiling:>16.2f}"
            f"{compute:>17.2f}{usage}"
        )
        figures["passes"].append(
            {
                "num_workers": found.workers.count,
                "num_gpus": len(found.workers.gpus),
                "total_s": found.total_s,
                "stages_s": found.stages_s,
                "videos_per_s": found.videos_per_s,
                "decode_ceiling": found.decode_ceiling,
                "compute_ceiling": compute,
                **found.usage,
            }
        )
    return lines, figures
