"""Two Ray nodes against one process with two workers: `python -m benchmarks.bench_cluster VIDEO...`.

Both nodes are on this machine, with one core each, as the workers have; so this is what Ray itself costs, without a
network. The rows of both are compared, bit for bit, before a time is reported. Runs alternate, because other work on
the machine comes and goes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import ray
import typer
from ray.cluster_utils import Cluster

from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, report
from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Descriptors, Failure, Media
from engine.run.extraction import describe_in_workers
from engine.run.plan import ClusterWorkers, Workers
from engine.video.discovery import find_videos

OBJECT_STORE_BYTES = 100 * 2**20
LOCAL = Workers(count=2, videos_at_once=1, num_threads=1)


@dataclass(frozen=True)
class Run:
    """One way through all videos.

    ``first_s``: until the first video was there, with workers and engines started; ``videos_per_s``: of those after it.
    ``cpu_s``: of this process, the workers or the nodes with all their processes, from start to end.
    """

    first_s: float
    videos_per_s: float
    cpu_s: float


def describe(engine: Engine, media: list[Media], workers: Workers | ClusterWorkers) -> tuple[Run, list[Descriptors]]:
    """Describe all videos. Raises ``EngineError`` if one fails."""
    measure = _cpu_s if isinstance(workers, ClusterWorkers) else _own_cpu_s
    start_cpu_s = measure()
    start_s = first_s = time.perf_counter()
    found: list[Descriptors] = []
    for item, result in describe_in_workers(engine, media, role="reference", workers=workers):
        if isinstance(result, Failure):
            raise EngineError(f"{item.path} cannot be described: {result.reason}")
        if not found:
            first_s = time.perf_counter()
        found.append(result)
        last_s = time.perf_counter()
    run = Run(first_s - start_s, (len(found) - 1) / (last_s - first_s), measure() - start_cpu_s)
    return run, sorted(found, key=lambda descriptors: descriptors.video_id)


def _own_cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended, as local workers have."""
    return sum(os.times()[:4])


def _cpu_s() -> float:
    """The same with all processes below this one that still run, and what ended below them."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    seconds, waiting = _own_cpu_s(), [os.getpid()]
    while waiting:
        try:
            tasks = [*Path(f"/proc/{waiting.pop()}/task").glob("*/children")]
            found = [int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split()]
            for pid in found:
                values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
                seconds += sum(map(int, values[11:15])) / ticks_per_s
        except OSError:  # it ended meanwhile, and its parent has its seconds
            continue
        waiting += found
    return seconds


def check_equal(found: list[Descriptors], expected: list[Descriptors]) -> None:
    """Raise ``EngineError`` unless both hold the same videos with the same bits."""
    same = [item.video_id for item in found] == [item.video_id for item in expected] and all(
        one.descriptors.tobytes() == other.descriptors.tobytes()
        and one.timestamps.tobytes() == other.timestamps.tobytes()
        for one, other in zip(found, expected, strict=True)
    )
    if not same:
        raise EngineError("the cluster gave other rows than one process; no time is reported")


@contextmanager
def two_nodes() -> Iterator[ClusterWorkers]:
    """A cluster of two nodes with a core each, to which this process is connected."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling, and its default is 15
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield ClusterWorkers(cluster.address, per_node=1, on_gpus=False)
    finally:
        ray.shutdown()
        cluster.shutdown()


def main(
    videos: VideosArgument,
    engines: EnginesOption,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 5,
    output: OutputOption = None,
) -> None:
    """Compare videos a second on two local Ray nodes and in one process with two workers.

    Example: python -m benchmarks.bench_cluster val/queries --engines engines/
    """
    media = find_videos(videos)
    engine = Engine.open(engines)
    runs: dict[str, list[Run]] = {"two workers": [], "two nodes": []}
    loads = []
    with two_nodes() as nodes:
        for _ in range(rounds):
            loads.append(os.getloadavg()[0])
            local, expected = describe(engine, media, LOCAL)
            remote, found = describe(engine, media, nodes)
            check_equal(found, expected)
            runs["two workers"].append(local)
            runs["two nodes"].append(remote)
    lines = [
        f"{len(media)} videos, {rounds} runs of each, alternating; the rows are equal; load {min(loads):.1f} to "
        f"{max(loads):.1f}",
        f"{'':<14}{'videos/s, median':>18}{'of all runs':>18}{'s to the first':>16}{'CPU s a video':>16}",
    ]
    for name, found_runs in runs.items():
        rates = [run.videos_per_s for run in found_runs]
        first_s = statistics.median(run.first_s for run in found_runs)
        spread = f"{min(rates):.2f} to {max(rates):.2f}"
        cpu_s = statistics.median(run.cpu_s for run in found_runs) / len(media)
        lines.append(f"{name:<14}{statistics.median(rates):>18.2f}{spread:>18}{first_s:>16.1f}{cpu_s:>16.3f}")
    pairs = [*zip(runs["two workers"], runs["two nodes"], strict=True)]
    overheads = {
        "time": [local.videos_per_s / remote.videos_per_s - 1 for local, remote in pairs],
        "CPU seconds": [remote.cpu_s / local.cpu_s - 1 for local, remote in pairs],
    }
    for what, shares in overheads.items():
        middle, least, most = (100 * number for number in (statistics.median(shares), min(shares), max(shares)))
        lines.append(f"more {what} on the nodes: {middle:.1f}% in the median of the pairs ({least:.1f} to {most:.1f})")
    figures = {
        "num_videos": len(media),
        "runs": {name: [asdict(run) for run in found_runs] for name, found_runs in runs.items()},
        "overheads": overheads,
        "loads": loads,
    }
    report("bench_cluster", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
