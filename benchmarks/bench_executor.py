"""Rows from worker processes to the disk: `python -m benchmarks.bench_executor`.

Workers that compute nothing send the rows of videos as fast as they are taken, the parent writes them into a store, and
everything is read back and compared before a time is reported. So this is the most that the way from a worker through
the pipe and the journal into shards can carry, in videos and megabytes a second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import OutputOption, command_line, report
from engine.errors import EngineError
from engine.records import Descriptors, Media
from engine.run.messages import Described, Done, Job, Link, Ready, die_with_parent
from engine.run.supervisor import Supervisor
from engine.store.shards import Fingerprint
from engine.store.store import StoreWriter, read_descriptors
from engine.video.sampling import slot_timestamps

NUM_DIMS = 512
LENGTHS_S = (35, 7200)  # the mean query of VSC2022, and a film


@dataclass(frozen=True)
class Rate:
    """Videos of one length through the given number of workers; ``cpu_s_per_video`` of the parent process."""

    length_s: int
    num_workers: int
    videos_per_s: float
    mb_per_s: float
    cpu_s_per_video: float


def rows_of(video_id: str, *, num_rows: int) -> Descriptors:
    """Rows that depend on the id, one a second."""
    rows = np.full((num_rows, NUM_DIMS), hash_of(video_id), dtype=np.float32)
    rows[:, 0] = np.arange(num_rows)
    return Descriptors(video_id, slot_timestamps(num_rows), rows)


def hash_of(video_id: str) -> float:
    """A number of the id that is the same in all processes."""
    return float(sum(video_id.encode()) % 997)


def serve_rows(connection: Connection, length_s: int) -> None:
    """Send ``length_s`` rows for each job."""
    die_with_parent()
    link = Link(connection)
    link.send(Ready())
    while (job := link.receive()) is not None:
        video_id = job.media.video_id
        link.send(Done(video_id, Described(rows_of(video_id, num_rows=length_s))))


def measure(*, length_s: int, num_videos: int, num_workers: int) -> Rate:
    """Write videos of one length into a store. Raises ``EngineError`` if one is not read back as it was sent."""
    jobs = [Job("describe", Media(f"V{number:06d}", Path("v.mp4"))) for number in range(num_videos)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (
            StoreWriter(folder, identity={}) as writer,
            Supervisor(serve_rows, [length_s] * num_workers, jobs_at_once=1) as workers,
        ):
            next(workers.run(jobs[:1]))  # the processes have started
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
            for job, result in workers.run(jobs):
                if isinstance(result, Described):
                    writer.add(result.descriptors, Fingerprint(0, 0))
                else:
                    raise EngineError(f"{job.media.video_id} gave {result}")
            writer.finish()
            seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        check(read_descriptors(folder), jobs, length_s=length_s)
    megabytes = num_videos * length_s * NUM_DIMS * 4 / 1e6
    return Rate(length_s, num_workers, num_videos / seconds, megabytes / seconds, cpu_s / num_videos)


def check(found: Sequence[Descriptors], jobs: Sequence[Job], *, length_s: int) -> None:
    """Raise ``EngineError`` unless every video is there with the rows that were sent."""
    if [video.video_id for video in found] != [job.media.video_id for job in jobs]:
        raise EngineError(f"{len(found)} of {len(jobs)} videos are in the store; no time is reported")
    for video in found:
        expected = rows_of(video.video_id, num_rows=length_s)
        if not np.array_equal(video.descriptors, expected.descriptors):
            raise EngineError(f"{video.video_id} was stored with other rows; no time is reported")


def main(
    rows: Annotated[int, typer.Option(min=1, help="Rows written for each length, all videos together.")] = 100_000,
    workers: Annotated[list[int], typer.Option(min=1, help="Numbers of worker processes.")] = [1, 2],  # noqa: B006
    output: OutputOption = None,
) -> None:
    """Measure how many videos a second the way from workers into a store carries.

    Example: python -m benchmarks.bench_executor --workers 1 --workers 2
    """
    rates = [
        measure(length_s=length_s, num_videos=max(3, rows // length_s), num_workers=num_workers)
        for length_s in LENGTHS_S
        for num_workers in workers
    ]
    lines = [f"{'seconds a video':>16}{'workers':>9}{'videos/s':>11}{'MB/s':>9}{'CPU ms a video':>16}"]
    for rate in rates:
        figures = f"{rate.videos_per_s:>11.1f}{rate.mb_per_s:>9.1f}{1000 * rate.cpu_s_per_video:>16.2f}"
        lines.append(f"{rate.length_s:>16}{rate.num_workers:>9}{figures}")
    report("bench_executor", lines=lines, figures={"rates": [asdict(rate) for rate in rates]}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
