"""The whole pipeline: `python -m benchmarks.bench_pipeline --engines DIR VIDEO...`, two comparisons, each in one run.

With ``--workers N`` or ``--gpus N``: as many workers against one (see `benchmarks.scaling`). Otherwise: gate first
against the reference's order.

The reference computes everything for every query and throws away what belongs to gated ones; the engine asks the gate
first. Both orders describe the same clips with the same engines, and their outputs must be equal before a time is
reported. With random weights the edit scores mean nothing, so the threshold is put where ``--gated-share`` of the clips
lie below it (77% of VSC2022's queries have no copy).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, report
from benchmarks.scaling import compare
from engine.config import ClipGate, Preset
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.gate_placeholder import placeholder
from engine.records import Descriptors, Failure, Media
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.discovery import find_videos
from engine.video.sampling import slot_timestamps


@dataclass(frozen=True)
class Pass:
    """One order over all clips."""

    results: list[Descriptors]
    total_s: float
    stages_s: dict[str, float]


def describe_all(engines: EnginesDirectory, preset: Preset, media: list[Media], *, num_threads: int) -> Pass:
    """Describe the clips as queries; loading the engines is not part of the time."""
    with Engine.open(engines, preset=preset, num_threads=num_threads) as engine:
        start_s = time.perf_counter()
        results = list(engine.describe_media(media, role="query"))
        total_s = time.perf_counter() - start_s
    failed = [result for result in results if isinstance(result, Failure)]
    if failed:
        raise ConfigError(f"{failed[0].path}: {failed[0].reason}")
    return Pass([result for result in results if isinstance(result, Descriptors)], total_s, engine.times.as_dict())


def with_threshold(preset: Preset, threshold: float) -> Preset:
    """The preset with another threshold of its gate; raises ``ConfigError`` if it has no gate."""
    if not isinstance(preset.gate, ClipGate):
        raise ConfigError(f"preset {preset.name!r} has no gate, so there is no order to compare")
    return preset.model_copy(update={"gate": preset.gate.model_copy(update={"score_threshold": threshold})})


def threshold_for(scores: list[float], *, gated_share: float) -> float:
    """A threshold below which ``gated_share`` of the scores lie (rounded to whole clips)."""
    num_gated = math.floor(gated_share * len(scores) + 0.5)
    bounds = [0.0, *sorted(scores), 1.0]
    return (bounds[num_gated] + bounds[num_gated + 1]) / 2


def largest_difference(one: list[Descriptors], other: list[Descriptors]) -> float:
    """Largest absolute difference of any descriptor value; raises ``AssertionError`` if shapes or times differ."""
    largest = 0.0
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine.timestamps, theirs.timestamps)
        assert (mine.video_id, mine.gate) == (theirs.video_id, theirs.gate)  # noqa: S101 - a benchmark proves first
        largest = max(largest, float(np.abs(mine.descriptors - theirs.descriptors).max()))
    return largest


def main(
    videos: VideosArgument,
    engines: EnginesOption,
    gated_share: Annotated[float, typer.Option(help="Share of the clips that the gate is to stop.")] = 0.77,
    threads: Annotated[int, typer.Option(help="Of both orders; 1 keeps the stages apart.")] = 1,
    workers: Annotated[int | None, typer.Option(help="Compare that many worker processes with one.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Compare that many GPUs with one.")] = None,
    output: OutputOption = None,
) -> None:
    """Prove equal outputs, then report what gate first and the reference's order took, or several workers and one.

    Example: python -m benchmarks.bench_pipeline clips/ --engines engines/ --workers 2
    """
    directory = EnginesDirectory.open(engines)
    media = find_videos(videos)
    if workers or gpus:
        lines, figures = compare(directory, media, num_workers=workers, num_gpus=gpus)
        report("bench_pipeline_workers", lines=lines, figures=figures, output=output)
        return
    lines, figures = compare_orders(directory, media, gated_share=gated_share, num_threads=threads)
    report("bench_pipeline", lines=lines, figures=figures, output=output)


def compare_orders(
    engines: EnginesDirectory, media: list[Media], *, gated_share: float, num_threads: int
) -> tuple[list[str], dict[str, Any]]:
    """Lines for people and figures of both orders. Raises ``AssertionError`` where their outputs differ."""
    preset = engines.manifest.preset
    describe_all(engines, with_threshold(preset, 1.0), media[:1], num_threads=1)  # warm-up
    everything = describe_all(engines, with_threshold(preset, 0.0), media, num_threads=num_threads)
    scores = [float(item.edit_score or 0.0) for item in everything.results]
    threshold = threshold_for(scores, gated_share=gated_share)
    gate_first = describe_all(engines, with_threshold(preset, threshold), media, num_threads=num_threads)
    expected = [
        placeholder(item.video_id, slot_timestamps(1), edit_score=score, num_dims=item.descriptors.shape[1])
        if score < threshold
        else item
        for item, score in zip(everything.results, scores, strict=True)
    ]
    difference = largest_difference(gate_first.results, expected)
    if difference > 0:
        raise AssertionError(f"the two orders differ by up to {difference}; no time is reported")
    return _lines_and_figures(everything, gate_first)


def _lines_and_figures(everything: Pass, gate_first: Pass) -> tuple[list[str], dict[str, Any]]:
    num_clips = len(everything.results)
    num_gated = sum(item.is_stopped for item in gate_first.results)
    stages = sorted({*everything.stages_s, *gate_first.stages_s})
    lines = [
        f"{num_clips} clips, {num_gated} of them gated; outputs of both orders are equal bit for bit",
        f"{'stage, seconds':<20}{'reference order':>18}{'gate first':>14}",
        *(
            f"{stage:<20}{everything.stages_s.get(stage, 0):>18.2f}{gate_first.stages_s.get(stage, 0):>14.2f}"
            for stage in stages
        ),
        f"{'total':<20}{everything.total_s:>18.2f}{gate_first.total_s:>14.2f}",
        f"ratio {everything.total_s / gate_first.total_s:.2f}",
    ]
    figures = {
        "num_clips": num_clips,
        "num_gated": num_gated,
        "reference_order": {"total_s": everything.total_s, "stages_s": everything.stages_s},
        "gate_first": {"total_s": gate_first.total_s, "stages_s": gate_first.stages_s},
        "ratio": everything.total_s / gate_first.total_s,
    }
    return lines, figures


app = command_line(main)

if __name__ == "__main__":
    app()
