"""Exact search by number of references, in one run: `python -m benchmarks.bench_search [--gpus N]`.

Every device must find what a sort of all float64 scores finds (first size), and what the CPU finds (all sizes), before
a time is reported. Rows are random unit vectors around common centres, as frames of videos are.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import report
from engine.errors import EngineError
from engine.projection import l2_normalize
from engine.records import FloatArray
from engine.search.exact import RowPairs, global_top_k
from engine.search.faiss_backend import CPU, SearchDevice

RESULTS_PER_QUERY = 34  # row pairs of the challenge's search: 1200 a video of 35 s


@dataclass(frozen=True)
class Timing:
    """One device on one number of references."""

    device: str
    num_references: int
    queries_per_s: float


def unit_rows(num_rows: int, *, num_dims: int, seed: int) -> FloatArray:
    """Rows around 1,000 centres that all seeds share, float32 ``(num_rows, num_dims)``."""
    centres = np.random.default_rng(0).standard_normal((1000, num_dims), dtype=np.float32)
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 1000, num_rows)] + rng.standard_normal((num_rows, num_dims), dtype=np.float32)
    return l2_normalize(rows)


def brute_force(queries: FloatArray, references: FloatArray, *, k: int) -> RowPairs:
    """The k best of all pairs, by sorting all scores; float64, rounded once."""
    scores = (queries.astype(np.float64) @ references.astype(np.float64).T).astype(np.float32)
    query_rows, ref_rows = np.indices(scores.shape).reshape(2, -1)
    order = np.lexsort((ref_rows, query_rows, -scores.ravel()))[:k]
    return RowPairs(query_rows[order], ref_rows[order], scores.ravel()[order])


def check_equal(found: RowPairs, expected: RowPairs, *, what: str) -> None:
    """Raise ``EngineError`` unless pairs, scores and order are equal."""
    if not all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in RowPairs._fields):
        raise EngineError(f"{what} does not find what was expected; no time is reported")


def measure(
    devices: list[SearchDevice], *, num_queries: int, sizes: list[int], num_dims: int, repeat: int
) -> list[Timing]:
    """Search every number of references on every device; the best of ``repeat`` times counts."""
    queries, k = unit_rows(num_queries, num_dims=num_dims, seed=1), num_queries * RESULTS_PER_QUERY
    timings = []
    for size in sizes:
        references = unit_rows(size, num_dims=num_dims, seed=2)
        expected = global_top_k(queries, references, k=k)
        if size == sizes[0]:
            check_equal(expected, brute_force(queries, references, k=k), what="the CPU")
        for device in devices:
            seconds = []
            for _ in range(repeat):
                start_s = time.perf_counter()
                found = global_top_k(queries, references, k=k, device=device)
                seconds.append(time.perf_counter() - start_s)
                check_equal(found, expected, what=str(device))
            timings.append(Timing(str(device), size, num_queries / min(seconds)))
    return timings


def main() -> None:
    """Prove equality, then report query rows per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=0, help="adds that many GPUs, in float32 and float16")
    parser.add_argument("--queries", type=int, default=1024, help="query rows")
    parser.add_argument("--references", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="reference rows")
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help="folder for the report, e.g. benchmarks/results")
    arguments = parser.parse_args()
    devices = [CPU]
    if arguments.gpus:
        devices += [SearchDevice(arguments.gpus, use_float16=half) for half in (False, True)]
    for device in devices:
        device.check()
    timings = measure(
        devices,
        num_queries=arguments.queries,
        sizes=sorted(arguments.references),
        num_dims=arguments.dims,
        repeat=arguments.repeat,
    )
    lines = [
        f"{arguments.queries} query rows of {arguments.dims} dimensions, {RESULTS_PER_QUERY} results each on average, "
        f"the best of {arguments.repeat}",
        "results equal those of a sort of all scores, and of the CPU, pair by pair and bit by bit",
        f"{'references':>12}  {'device':<20}{'queries/s':>12}{'GFLOP/s':>10}",
        *(
            f"{timing.num_references:>12}  {timing.device:<20}{timing.queries_per_s:>12.0f}"
            f"{2e-9 * timing.queries_per_s * timing.num_references * arguments.dims:>10.1f}"
            for timing in timings
        ),
    ]
    figures = {
        "num_queries": arguments.queries,
        "num_dims": arguments.dims,
        "results": [timing.__dict__ for timing in timings],
    }
    report("bench_search", lines=lines, figures=figures, output=arguments.output)


if __name__ == "__main__":
    main()
