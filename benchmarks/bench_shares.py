"""A catalogue in one folder and in shares, in one run: `python -m benchmarks.bench_shares --rows 100000`.

The videos and uploads are those of `benchmarks.bench_catalog`. Each share holds its rows in memory: searches are exact;
the answers of all catalogues are compared before anything is timed. Uploads go to all of them in turn. With
``--nodes`` the shares are also searched on the nodes of a local Ray cluster.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.bench_catalog import ROWS_PER_UPLOAD, ROWS_PER_VIDEO, described, grow, upload_rows
from benchmarks.harness import OutputOption, command_line, report
from benchmarks.ray_nodes import local_nodes, tree_cpu_s
from engine.catalog.catalog import Catalog
from engine.errors import EngineError


@dataclass(frozen=True)
class Result:
    """Over the uploads: median seconds, and mean CPU seconds of all processes. ``bytes_per_row``: on disk."""

    num_shares: int
    where: str
    p50_s: float
    mean_cpu_s: float
    bytes_per_row: float


def main(
    rows: Annotated[int, typer.Option(min=ROWS_PER_VIDEO, help="Rows of the catalogue.")] = 100_000,
    shares: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated; default: 1, 2, 4.")] = None,
    uploads: Annotated[int, typer.Option(min=1, help="Uploads that are matched in each catalogue.")] = 30,
    nodes: Annotated[int, typer.Option(min=0, help="Nodes of a Ray cluster, with a core each; 0 for none.")] = 0,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder for the catalogues; they are removed at the end.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Compare the answers of catalogues with different numbers of shares, and time them.

    Example: python -m benchmarks.bench_shares --rows 100000 --shares 1 --shares 2 --shares 4
    """
    num_videos = rows // ROWS_PER_VIDEO
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=scratch))
        cluster = stack.enter_context(local_nodes(nodes, store_bytes=2**28)) if nodes else None
        opened: dict[tuple[int, str], Catalog] = {}
        for num_shares in shares or [1, 2, 4]:
            made = Catalog.create(Path(folder) / str(num_shares), num_shares=num_shares)
            made = opened[num_shares, "this process"] = Catalog.open(made.folder, index_above=rows)
            for _ in grow(made, first=0, end=num_videos, scratch=Path(folder)):
                pass
            if cluster is not None:
                opened[num_shares, f"{nodes} nodes"] = Catalog.open(made.folder, cluster=cluster)
        num_dims = made.manifest.num_dims
        numbers = np.random.default_rng(3).integers(num_videos, size=uploads).tolist()
        queries = [described("upload", upload_rows(number, num_dims=num_dims)) for number in numbers]
        for query in queries[:5]:
            answers = {key: catalog.match_descriptors(query) for key, catalog in opened.items()}
            first, *others = ((it.candidates, it.matches, it.thresholds, it.verdict) for it in answers.values())
            if any(other != first for other in others):
                raise EngineError("the answers of the catalogues differ")
        times: dict[tuple[int, str], list[tuple[float, float]]] = {key: [] for key in opened}
        for query in queries:
            for key, catalog in opened.items():
                start_s, start_cpu_s = time.perf_counter(), tree_cpu_s()
                catalog.match_descriptors(query)
                times[key].append((time.perf_counter() - start_s, tree_cpu_s() - start_cpu_s))
        results = []
        for (num_shares, where), catalog in opened.items():
            seconds, cpu_s = np.array(times[num_shares, where]).T
            results.append(
                Result(
                    num_shares, where, float(np.median(seconds)), float(cpu_s.mean()), catalog.info().size_bytes / rows
                )
            )
    lines = [
        f"{rows} rows in videos of {ROWS_PER_VIDEO}, {uploads} uploads of {ROWS_PER_UPLOAD} rows, equal answers; "
        f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}, load {os.getloadavg()[0]:.0f}",
        f"{'shares':>7}  {'where':<13}{'p50, s':>8}{'CPU, s':>8}{'bytes/row':>11}",
        *(
            f"{it.num_shares:>7}  {it.where:<13}{it.p50_s:>8.3f}{it.mean_cpu_s:>8.3f}{it.bytes_per_row:>11.0f}"
            for it in results
        ),
    ]
    report("bench_shares", lines=lines, figures={"results": [asdict(result) for result in results]}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
