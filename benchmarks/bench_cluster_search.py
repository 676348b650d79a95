"""The exact search of rows in one process and on local Ray nodes: `python -m benchmarks.bench_cluster_search`.

By default the numbers of videos of VSC2022, with few rows each: 8,000 queries and 40,000 references. Both must find the
same before a time is reported; they take turns. OMP_NUM_THREADS says how many threads the one process has. Starting the
nodes is not counted, starting the actors and sending them the rows is.
"""

from __future__ import annotations

import os
import time
from typing import Annotated

import numpy as np
import typer

from benchmarks.bench_search import RESULTS_PER_QUERY, check_equal, unit_rows
from benchmarks.harness import OutputOption, command_line, report
from benchmarks.ray_nodes import local_nodes, tree_cpu_s
from engine.run.cluster_search import ClusterSearch
from engine.search.exact import global_top_k
from engine.search.rows import Rows, RowSearch

NUM_QUERIES, NUM_REFERENCES = 8_000, 40_000


def main(
    rows_per_query: Annotated[int, typer.Option(min=1, help=f"Of each of {NUM_QUERIES} queries.")] = 1,
    rows_per_reference: Annotated[int, typer.Option(min=1, help=f"Of each of {NUM_REFERENCES} references.")] = 2,
    dims: Annotated[int, typer.Option(min=2)] = 512,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, with a core each.")] = 2,
    repeat: Annotated[int, typer.Option(min=1)] = 3,
    output: OutputOption = None,
) -> None:
    """Compare a search on nodes with one in this process.

    Example: python -m benchmarks.bench_cluster_search --nodes 2
    """
    queries = unit_rows(NUM_QUERIES * rows_per_query, num_dims=dims, seed=1)
    references = unit_rows(NUM_REFERENCES * rows_per_reference, num_dims=dims, seed=2)
    k = RESULTS_PER_QUERY * len(queries)
    with local_nodes(nodes, store_bytes=2 * (queries.nbytes + references.nbytes) + 40 * k + 2**28) as address:
        searches: dict[str, RowSearch] = {"one process": global_top_k, f"{nodes} nodes": ClusterSearch.at(address)}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in searches}
        expected = global_top_k(queries, references, k=k)
        for _ in range(repeat):
            for name, search in searches.items():
                start_s, start_cpu_s = time.perf_counter(), tree_cpu_s()
                found = search(Rows([queries]), Rows([references]), k=k)
                times[name].append((time.perf_counter() - start_s, tree_cpu_s() - start_cpu_s))
                check_equal(found, expected, what=name)
    medians = {name: np.median(measured, axis=0).tolist() for name, measured in times.items()}
    lines = [
        f"{NUM_QUERIES} queries of {rows_per_query} rows, {NUM_REFERENCES} references of {rows_per_reference}, {dims} "
        f"dimensions, the {k} best pairs, equal; medians of {repeat}; OMP_NUM_THREADS "
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}, load {os.getloadavg()[0]:.0f}",
        f"{'where':<14}{'s':>8}{'CPU, s':>9}",
        *(f"{name:<14}{seconds:>8.1f}{cpu_s:>9.1f}" for name, (seconds, cpu_s) in medians.items()),
    ]
    report("bench_cluster_search", lines=lines, figures={"seconds_and_cpu_s": times}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
