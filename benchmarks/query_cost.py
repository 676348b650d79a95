"""What describing a query costs: `python -m benchmarks.query_cost VIDEO... [--every N] [--output benchmarks/results]`.

Every video is described as a query with the switches of the rows of `benchmarks.ablation`, one after the other, so that
what else the machine does weighs on all alike. Search and what follows it are left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ablation import Row, planned_rows
from benchmarks.harness import OutputOption, VideosArgument, command_line, report
from engine.build.cache import user_engines
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.records import Failure, Media
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.discovery import find_videos


@dataclass
class Cost:
    """Of all videos together: rows that are kept, and CPU seconds of this process."""

    row: str
    num_rows: int = 0
    cpu_s: float = 0.0


def describing_rows(engines: EnginesDirectory) -> list[Row]:
    """The rows of the ablation that describe a query in other ways; the first takes its whole frames alone."""
    is_ensemble = len(engines.manifest.preset.models) > 1
    frames, *others = planned_rows(engines, one_model=engines if is_ensemble else None)
    same = ("+ score normalization", "+ segments", "+ second model")
    return [replace(frames, name="whole frames"), *(row for row in others if row.name not in same)]


def measure(rows: Sequence[Row], media: Sequence[Media]) -> list[Cost]:
    """The cost of each configuration. Raises ``ConfigError`` for a video that gives no result."""
    costs = [Cost(row.name) for row in rows]
    with ExitStack() as stack:
        engines = [stack.enter_context(Engine.open(row.engines, preset=row.preset, num_threads=1)) for row in rows]
        for item in media:
            for cost, engine in zip(costs, engines, strict=True):
                start_s = time.process_time()
                result = engine.describe(item, role="query")
                cost.cpu_s += time.process_time() - start_s
                if isinstance(result, Failure):
                    raise ConfigError(f"{item.path}: {result.reason}")
                cost.num_rows += len(result)
    return costs


def table(costs: Sequence[Cost]) -> list[str]:
    """A heading, and a line for each configuration with its ratio to the first."""
    lines = [f"{'row':<24}{'rows':>8}{'ratio':>8}{'CPU s':>9}{'ratio':>8}"]
    for cost in costs:
        shares = cost.num_rows / costs[0].num_rows, cost.cpu_s / costs[0].cpu_s
        lines.append(f"{cost.row:<24}{cost.num_rows:>8}{shares[0]:>8.2f}{cost.cpu_s:>9.2f}{shares[1]:>8.2f}")
    return lines


def main(
    videos: VideosArgument,
    engines: Annotated[Path | None, typer.Option(help="Engines directory; default: preset lite.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every N-th video.")] = 1,
    output: OutputOption = None,
) -> None:
    """Measure rows and CPU seconds of queries with each part of the method.

    Example: python -m benchmarks.query_cost val-hard/queries --every 8
    """
    opened = user_engines("lite") if engines is None else EnginesDirectory.open(engines)
    media = find_videos(videos)[::every]
    costs = measure(describing_rows(opened), media)
    lines = [f"{len(media)} videos, one thread", *table(costs)]
    report("query_cost", lines=lines, figures={"costs": [asdict(cost) for cost in costs]}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
