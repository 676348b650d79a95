"""A catalogue by its number of rows, in one run: `python -m benchmarks.bench_catalog --rows 10000 --rows 100000`.

Rows are simulated: a video has a subject that it shares with others, a look of its own, and shots. An upload is 40 rows
of one video, each moved until its cosine with the original is 0.7, as strong edits do. What is reported: seconds to
add, how often the right video comes first, and seconds of a match without decoding and describing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import OutputOption, command_line, report
from engine.catalog.catalog import Catalog
from engine.console import say
from engine.projection import l2_normalize
from engine.records import Descriptors, FloatArray
from engine.store.challenge_npz import write_npz

ROWS_PER_VIDEO = 100
ROWS_PER_SHOT = 5
ROWS_PER_UPLOAD = 40
ROWS_PER_ADD = 50_000
NUM_SINGLE_ADDS = 5
NUM_SUBJECTS = 1000
COPY_COSINE = 0.7


@dataclass(frozen=True)
class Result:
    """One size: seconds to add a million rows (as they were added on the way to it) and one video more, of the first
    match (which loads the rows that are held in memory) and of those that follow, with the median of CPU seconds."""

    num_rows: int
    num_indexed_rows: int
    add_1m_s: float
    one_video_s: float
    first_match_s: float
    p50_s: float
    p95_s: float
    p50_cpu_s: float
    num_uploads: int
    num_right_first: int
    bytes_per_row: float


def video_rows(number: int, *, num_dims: int) -> FloatArray:
    """The rows of a simulated video, unit length, float32 ``(ROWS_PER_VIDEO, num_dims)``."""
    rng = np.random.default_rng([1, number])
    subject = np.random.default_rng([0, int(rng.integers(NUM_SUBJECTS))]).standard_normal(num_dims, dtype=np.float32)
    look = rng.standard_normal(num_dims, dtype=np.float32)
    shots = rng.standard_normal((ROWS_PER_VIDEO // ROWS_PER_SHOT, num_dims), dtype=np.float32)
    frames = rng.standard_normal((ROWS_PER_VIDEO, num_dims), dtype=np.float32)
    return l2_normalize(0.8 * subject + 0.5 * look + 0.8 * shots.repeat(ROWS_PER_SHOT, axis=0) + 0.3 * frames)


def upload_rows(number: int, *, num_dims: int) -> FloatArray:
    """`ROWS_PER_UPLOAD` rows of a simulated video, edited: the cosine of each with its original is `COPY_COSINE`."""
    rng = np.random.default_rng([2, number])
    start = rng.integers(ROWS_PER_VIDEO - ROWS_PER_UPLOAD)
    rows = video_rows(number, num_dims=num_dims)[start : start + ROWS_PER_UPLOAD]
    noise = rng.standard_normal(rows.shape, dtype=np.float32)
    noise = l2_normalize(noise - np.vecdot(noise, rows)[:, None] * rows)
    edited: FloatArray = (COPY_COSINE * rows + np.sqrt(1 - COPY_COSINE**2) * noise).astype(np.float32)
    return edited


def described(video_id: str, rows: FloatArray) -> Descriptors:
    """Rows as a video with one row a second."""
    start_s = np.arange(len(rows), dtype=np.float32)
    return Descriptors(video_id, np.stack([start_s, start_s + 1], axis=1), rows)


def grow(
    catalog: Catalog, *, first: int, end: int, scratch: Path, step: int = ROWS_PER_ADD // ROWS_PER_VIDEO
) -> Iterator[float]:
    """Add the videos ``first`` to ``end``, ``step`` at a time; yields the seconds of each add."""
    for start in range(first, end, step):
        numbers = range(start, min(start + step, end))
        num_dims = catalog.manifest.num_dims
        source = scratch / f"{start}.npz"
        write_npz(source, [described(f"V{number:07d}", video_rows(number, num_dims=num_dims)) for number in numbers])
        start_s = time.perf_counter()
        catalog.add([source])
        yield time.perf_counter() - start_s
        source.unlink()


def measure(catalog: Catalog, *, num_videos: int, num_uploads: int, add_1m_s: float, one_video_s: float) -> Result:
    """Match uploads of videos all over the catalogue."""
    seconds, cpu_s, num_right = [], [], 0
    rng = np.random.default_rng(3)
    for place, number in enumerate(rng.integers(num_videos, size=num_uploads + 1).tolist()):
        query = described("upload", upload_rows(number, num_dims=catalog.manifest.num_dims))
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        answer = catalog.match_descriptors(query)
        seconds.append(time.perf_counter() - start_s)
        cpu_s.append(time.process_time() - start_cpu_s)
        num_right += place > 0 and answer.candidates[0].ref_id == f"V{number:07d}"
    info = catalog.info()
    first_s, *rest = seconds
    return Result(
        num_rows=info.num_rows,
        num_indexed_rows=info.num_indexed_rows,
        add_1m_s=add_1m_s,
        one_video_s=one_video_s,
        first_match_s=first_s,
        p50_s=float(np.percentile(rest, 50)),
        p95_s=float(np.percentile(rest, 95)),
        p50_cpu_s=float(np.percentile(cpu_s[1:], 50)),
        num_uploads=num_uploads,
        num_right_first=num_right,
        bytes_per_row=info.size_bytes / info.num_rows,
    )


HEADER = (
    f"{'rows':>9}{'indexed':>9}{'add 1M, s':>11}{'one, s':>9}{'first, s':>10}{'p50, s':>9}{'p95, s':>9}{'CPU, s':>9}"
    f"{'right':>8}{'bytes/row':>11}"
)


def row_line(it: Result) -> str:
    """One size as a line under `HEADER`."""
    return (
        f"{it.num_rows:>9}{it.num_indexed_rows:>9}{it.add_1m_s:>11.1f}{it.one_video_s:>9.2f}{it.first_match_s:>10.2f}"
        f"{it.p50_s:>9.3f}{it.p95_s:>9.3f}{it.p50_cpu_s:>9.3f}{it.num_right_first / it.num_uploads:>8.1%}"
        f"{it.bytes_per_row:>11.0f}"
    )


def main(
    rows: Annotated[
        list[int] | None, typer.Option(min=ROWS_PER_VIDEO, help="May be repeated; default: 10000, 100000.")
    ] = None,
    uploads: Annotated[int, typer.Option(min=1, help="Uploads that are matched at each size.")] = 100,
    rows_per_add: Annotated[
        int, typer.Option(min=ROWS_PER_VIDEO, help="Rows that are added at a time.")
    ] = ROWS_PER_ADD,
    folder: Annotated[
        Path | None,
        typer.Option(help="Catalogue to make, or to go on with, and to keep; default: one that is removed."),
    ] = None,
    shares: Annotated[int, typer.Option(min=1, help="Of a catalogue that is made.")] = 1,
    output: OutputOption = None,
) -> None:
    """Grow a catalogue of simulated videos, and match uploads at each size.

    Example: python -m benchmarks.bench_catalog --rows 10000 --rows 100000 --rows 1000000
    """
    results, step = [], rows_per_add // ROWS_PER_VIDEO
    with tempfile.TemporaryDirectory() as scratch:
        path = folder or Path(scratch) / "catalogue"
        with Catalog.open(path) if path.exists() else Catalog.create(path, num_shares=shares) as catalog:
            num_videos = catalog.info().num_videos
            for size in sorted(rows or (10_000, 100_000)):
                wanted = size // ROWS_PER_VIDEO
                say(f"{num_videos * ROWS_PER_VIDEO} rows; growing to {size}")
                add_s = sum(grow(catalog, first=num_videos, end=wanted, step=step, scratch=Path(scratch)))
                num_added = max(1, wanted - num_videos) * ROWS_PER_VIDEO
                one_video_s = [
                    second
                    for number in range(wanted, wanted + NUM_SINGLE_ADDS)
                    for second in grow(catalog, first=number, end=number + 1, step=1, scratch=Path(scratch))
                ]
                num_videos = wanted + NUM_SINGLE_ADDS
                results.append(
                    measure(
                        catalog,
                        num_videos=num_videos,
                        num_uploads=uploads,
                        add_1m_s=1e6 * add_s / num_added,
                        one_video_s=float(np.median(one_video_s)),
                    )
                )
                say(row_line(results[-1]))
    lines = [
        f"videos of {ROWS_PER_VIDEO} rows, added {rows_per_add} rows at a time; {uploads} uploads of {ROWS_PER_UPLOAD} "
        f"rows with a cosine of {COPY_COSINE}; {catalog.manifest.num_shares} shares; "
        f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}",
        HEADER,
        *map(row_line, results),
    ]
    figures = {"rows_per_upload": ROWS_PER_UPLOAD, "results": [asdict(result) for result in results]}
    report("bench_catalog", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
