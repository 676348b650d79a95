"""Exact search by number of references, in one run: `python -m benchmarks.bench_search [--gpus N]`.

Beside it, the matrix product alone, and the way in which the challenge's code asks FAISS for the best pairs of all
queries: ``range_search_max_results`` of ``faiss.contrib.exhaustive_search``, over batches that double from 32 rows on.

Every device must find what a sort of all float64 scores finds (where there are at most 2**23), and what the CPU finds,
and FAISS the same pairs but for those whose scores float32 cannot tell from the last one, before a time is reported.
Rows are random unit vectors around common centres, as frames of videos are, with the bias of score normalization as
their last value: -100 for the queries that a gate stopped.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

import faiss
import numpy as np
import typer
from faiss.contrib import exhaustive_search
from numpy.typing import NDArray

from benchmarks.harness import OutputOption, command_line, report
from engine.errors import EngineError
from engine.projection import l2_normalize
from engine.records import GATED_BIAS, FloatArray
from engine.search.exact import global_top_k
from engine.search.faiss_backend import CPU, SearchDevice
from engine.search.rows import RowPairs

RESULTS_PER_QUERY = 34  # row pairs of the challenge's search: 1200 a video of 35 s
NUM_REFERENCES = (1_000, 10_000, 100_000)
FAISS_ROUTE = "FAISS, max_results"
PRODUCT = "product alone"
# What is multiplied to know how fast a product is: blocks as large as pays, at most so many references.
PRODUCT_BLOCK = 4096
MAX_PRODUCT_REFERENCES = 32_768
MAX_SORTED = 2**23
# Twice what a float32 sum of a thousand terms is off by.
MAX_ROUNDING = 2e-6

Found = TypeVar("Found")


@dataclass(frozen=True)
class Timing:
    """One way of searching some references: wall and CPU seconds, and the most memory of the process so far, in MiB."""

    device: str
    num_references: int
    wall_s: float
    cpu_s: float
    peak_mib: int


def unit_rows(num_rows: int, *, num_dims: int, seed: int) -> FloatArray:
    """Rows around 1,000 centres that all seeds share, float32 ``(num_rows, num_dims)``."""
    centres = np.random.default_rng(0).standard_normal((1000, num_dims), dtype=np.float32)
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 1000, num_rows)]
    rows += rng.standard_normal((num_rows, num_dims), dtype=np.float32)
    return l2_normalize(rows)


def query_rows(num_rows: int, *, num_dims: int, gated_share: float) -> FloatArray:
    """Normalized queries: unit rows and a bias around -0.6, of which the first ones belong to gated videos."""
    rng = np.random.default_rng(3)
    bias = rng.normal(-0.6, 0.1, num_rows).astype(np.float32)
    bias[: round(gated_share * num_rows)] = GATED_BIAS
    rows = np.column_stack([unit_rows(num_rows, num_dims=num_dims - 1, seed=1), bias])
    return np.ascontiguousarray(rows[rng.permutation(num_rows)])


def reference_rows(num_rows: int, *, num_dims: int) -> FloatArray:
    """Normalized references: unit rows and a one; made in blocks, because all of them may be most of the memory."""
    rows = np.ones((num_rows, num_dims), dtype=np.float32)
    for start in range(0, num_rows, 50_000):
        block = rows[start : start + 50_000, :-1]
        block[:] = unit_rows(len(block), num_dims=num_dims - 1, seed=2 + start)
    return rows


def brute_force(queries: FloatArray, references: FloatArray, *, k: int) -> RowPairs:
    """The k best of all pairs, by sorting all scores; float64, rounded once."""
    scores = (queries.astype(np.float64) @ references.astype(np.float64).T).astype(np.float32)
    query_rows, ref_rows = np.indices(scores.shape).reshape(2, -1)
    order = np.lexsort((ref_rows, query_rows, -scores.ravel()))[:k]
    return RowPairs(query_rows[order], ref_rows[order], scores.ravel()[order])


def faiss_route(queries: FloatArray, references: FloatArray, *, k: int) -> RowPairs:
    """The k best of all pairs as the challenge's code finds them, best first; scores are those of a float32 product."""
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(references)
    _, limits, scores, ref_rows = exhaustive_search.range_search_max_results(  # type: ignore[no-untyped-call]
        index,
        exhaustive_search.exponential_query_iterator(queries),  # type: ignore[no-untyped-call]
        -1e10,
        max_results=2 * k,
        min_results=k,
    )
    order = np.argsort(-scores, kind="stable")[:k]
    found = np.repeat(np.arange(len(queries)), np.diff(limits).astype(np.int64))
    return RowPairs(found[order], ref_rows[order], scores[order])


def product_alone(queries: FloatArray, references: FloatArray) -> None:
    """Multiply all rows, in blocks, and look at nothing."""
    for start in range(0, len(queries), PRODUCT_BLOCK):
        for first in range(0, len(references), PRODUCT_BLOCK):
            np.matmul(queries[start : start + PRODUCT_BLOCK], references[first : first + PRODUCT_BLOCK].T)


def check_equal(found: RowPairs, expected: RowPairs, *, what: str) -> None:
    """Raise ``EngineError`` unless pairs, scores and order are equal."""
    if not all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in RowPairs._fields):
        raise EngineError(f"{what} does not find what was expected; no time is reported")


def check_same_pairs(found: RowPairs, expected: RowPairs, *, what: str) -> int:
    """Raise ``EngineError`` unless all pairs are equal but those at the cut; returns how many of those differ."""
    keys, other = (pairs.query_rows * 2**32 + pairs.ref_rows for pairs in (found, expected))
    lowest = expected.scores[-1] + MAX_ROUNDING
    differing: list[NDArray[np.float32]] = [
        found.scores[~np.isin(keys, other)],
        expected.scores[~np.isin(other, keys)],
    ]
    if len(found.scores) != len(expected.scores) or any((scores > lowest).any() for scores in differing):
        raise EngineError(f"{what} finds other pairs; no time is reported")
    return len(differing[0])


def measure(
    devices: list[SearchDevice],
    *,
    num_queries: int,
    sizes: list[int],
    num_dims: int,
    repeat: int,
    gated_share: float = 0.0,
) -> list[Timing]:
    """Search every number of references on every device; of ``repeat`` searches the one of least CPU time counts."""
    queries = query_rows(num_queries, num_dims=num_dims, gated_share=gated_share)
    k = num_queries * RESULTS_PER_QUERY
    timings = []
    for size in sizes:
        references = reference_rows(size, num_dims=num_dims)
        some = references[:MAX_PRODUCT_REFERENCES]
        product = partial(product_alone, queries, some)
        before = _timed(PRODUCT, product, size, repeat)[0]
        searches = [partial(global_top_k, queries, references, k=k, device=device) for device in devices]
        of_devices = [
            _timed(str(device), search, size, repeat) for device, search in zip(devices, searches, strict=True)
        ]
        of_faiss, faiss_pairs = _timed(FAISS_ROUTE, partial(faiss_route, queries, references, k=k), size, repeat)
        is_small = num_queries * size <= MAX_SORTED
        expected = brute_force(queries, references, k=k) if is_small else of_devices[0][1]
        for timing, found in of_devices:
            check_equal(found, expected, what=timing.device)
        check_same_pairs(faiss_pairs, expected, what=FAISS_ROUTE)
        after = _timed(PRODUCT, product, size, repeat)[0]
        scale = size / len(some)
        best = min(before, after, key=lambda one: one.cpu_s)
        timings.append(Timing(PRODUCT, size, scale * best.wall_s, scale * best.cpu_s, before.peak_mib))
        timings += [*(timing for timing, _ in of_devices), of_faiss]
    return timings


def _timed(name: str, act: Callable[[], Found], size: int, repeat: int) -> tuple[Timing, Found]:
    timings = []
    for _ in range(repeat):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = act()
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        timings.append(Timing(name, size, wall_s, cpu_s, peak_mib))
    return min(timings, key=lambda timing: timing.cpu_s), found


def main(
    gpus: Annotated[int, typer.Option(min=0, help="Adds that many GPUs.")] = 0,
    queries: Annotated[int, typer.Option(min=1, help="Query rows.")] = 1024,
    references: Annotated[
        list[int] | None, typer.Option(min=1, help="Reference rows; may be repeated; default: 1000, 10000, 100000.")
    ] = None,
    dims: Annotated[int, typer.Option(min=2, help="Dimensions of a row.")] = 512,
    gated_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the queries that a gate stopped.")] = 0.0,
    repeat: Annotated[int, typer.Option(min=1, help="Searches, of which that of least CPU time counts.")] = 3,
    output: OutputOption = None,
) -> None:
    """Prove that every device finds the same pairs, then report query rows per second.

    Example: python -m benchmarks.bench_search --references 10000 --references 100000
    """
    devices = [CPU, SearchDevice(gpus)] if gpus else [CPU]
    for device in devices:
        device.check()
    sizes = sorted(references or NUM_REFERENCES)
    timings = measure(devices, num_queries=queries, sizes=sizes, num_dims=dims, repeat=repeat, gated_share=gated_share)
    products = {timing.num_references: timing for timing in timings if timing.device == PRODUCT}
    sorted_sizes = [size for size in sizes if queries * size <= MAX_SORTED]
    lines = [
        f"{queries} query rows of {dims} dimensions, {gated_share:.0%} of them of gated videos, {RESULTS_PER_QUERY} "
        f"results each on average; the least CPU time of {repeat}",
        f"results equal those of a sort of all scores ({', '.join(map(str, sorted_sizes)) or 'no size'}) and of the "
        "CPU pair by pair and bit by bit; FAISS's are the same pairs",
        f"the product alone is that of at most {MAX_PRODUCT_REFERENCES} references, before and after, scaled up",
        f"{'references':>12}  {'what':<20}{'CPU s':>10}{'wall s':>10}{'GFLOP/CPU s':>13}{'of product':>12}"
        f"{'peak MiB':>10}",
    ]
    for timing in timings:
        gflop = 2e-9 * queries * timing.num_references * dims
        share = products[timing.num_references].cpu_s / timing.cpu_s
        lines.append(
            f"{timing.num_references:>12}  {timing.device:<20}{timing.cpu_s:>10.2f}{timing.wall_s:>10.2f}"
            f"{gflop / timing.cpu_s:>13.1f}{share:>12.2f}{timing.peak_mib:>10}"
        )
    figures = {
        "num_queries": queries,
        "num_dims": dims,
        "gated_share": gated_share,
        "results": [timing.__dict__ for timing in timings],
    }
    report("bench_search", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
