"""Exact search by number of references, in one run: `python -m benchmarks.bench_search [--gpus N]`.

Every device must find what a sort of all float64 scores finds (first size), and what the CPU finds (all sizes), before
a time is reported. Rows are random unit vectors around common centres, as frames of videos are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import OutputOption, command_line, report
from engine.errors import EngineError
from engine.projection import l2_normalize
from engine.records import FloatArray
from engine.search.exact import global_top_k
from engine.search.faiss_backend import CPU, SearchDevice
from engine.search.rows import RowPairs

RESULTS_PER_QUERY = 34  # row pairs of the challenge's search: 1200 a video of 35 s
NUM_REFERENCES = (1_000, 10_000, 100_000)


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


def main(
    gpus: Annotated[int, typer.Option(min=0, help="Adds that many GPUs.")] = 0,
    queries: Annotated[int, typer.Option(min=1, help="Query rows.")] = 1024,
    references: Annotated[
        list[int] | None, typer.Option(min=1, help="Reference rows; may be repeated; default: 1000, 10000, 100000.")
    ] = None,
    dims: Annotated[int, typer.Option(min=1, help="Dimensions of a row.")] = 512,
    repeat: Annotated[int, typer.Option(min=1, help="Searches, of which the fastest counts.")] = 3,
    output: OutputOption = None,
) -> None:
    """Prove that every device finds the same pairs, then report query rows per second.

    Example: python -m benchmarks.bench_search --references 10000 --references 100000
    """
    devices = [CPU, SearchDevice(gpus)] if gpus else [CPU]
    for device in devices:
        device.check()
    timings = measure(
        devices, num_queries=queries, sizes=sorted(references or NUM_REFERENCES), num_dims=dims, repeat=repeat
    )
    lines = [
        f"{queries} query rows of {dims} dimensions, {RESULTS_PER_QUERY} results each on average, the best of {repeat}",
        "results equal those of a sort of all scores, and of the CPU, pair by pair and bit by bit",
        f"{'references':>12}  {'device':<20}{'queries/s':>12}{'GFLOP/s':>10}",
        *(
            f"{timing.num_references:>12}  {timing.device:<20}{timing.queries_per_s:>12.0f}"
            f"{2e-9 * timing.queries_per_s * timing.num_references * dims:>10.1f}"
            for timing in timings
        ),
    ]
    figures = {
        "num_queries": queries,
        "num_dims": dims,
        "results": [timing.__dict__ for timing in timings],
    }
    report("bench_search", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
