"""``vsc-engine run``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import (
    VIDEO_TIMEOUT_S,
    AllowHttpOption,
    AllowPrivateOption,
    DecoderOption,
    EnginesOption,
    EnginesPresetOption,
    FpsOption,
    GateOption,
    GpusOption,
    MaxPixelsOption,
    RecursiveOption,
    RetryFailedOption,
    SamplingOption,
    ScenesOption,
    VideoTimeoutOption,
    WorkersOption,
    chosen_preset,
    finish,
    folder_to_write,
    goes_on,
    open_engines,
    page_to_write,
    web_access,
)
from engine.console import progress, say

if TYPE_CHECKING:
    from engine.evaluate.figures import Figures
    from engine.storage.location import Location

_TOLD = ("copy", "review")


def run(
    queries: Annotated[str, typer.Option(help="Folder or URL of query videos, or @FILE with a path a line.")],
    references: Annotated[str, typer.Option(help="The same for reference videos.")],
    output: Annotated[
        str,
        typer.Option(
            help="Folder or URL for everything; a run in it that was cut short goes on.", callback=folder_to_write
        ),
    ],
    norm_set: Annotated[
        str | None, typer.Option(help="Folder of videos unrelated to both. Default: what came with the engines.")
    ] = None,
    ground_truth: Annotated[str | None, typer.Option(help="Ground-truth CSV: adds uAP and the segment metric.")] = None,
    preset: EnginesPresetOption = None,
    engines: EnginesOption = None,
    fps: FpsOption = None,
    sampling: SamplingOption = None,
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    scenes: ScenesOption = True,
    gate: GateOption = None,
    decoder: DecoderOption = None,
    recursive: RecursiveOption = True,
    max_pixels: MaxPixelsOption = None,
    report: Annotated[
        str | None, typer.Option(help="HTML page of the matches to write, with pictures.", callback=page_to_write)
    ] = None,
    score_norm: Annotated[bool, typer.Option("--score-norm/--no-score-norm", help="Normalize scores.")] = True,
    video_timeout: VideoTimeoutOption = VIDEO_TIMEOUT_S,
    retry_failed: RetryFailedOption = False,
    allow_http: AllowHttpOption = False,
    allow_private_addresses: AllowPrivateOption = False,
) -> None:
    """Do the whole protocol: videos to candidates, matches and, with ground truth, uAP.

    Pictures of the best pairs of each query are compared; what agrees (`num_inliers` in `matches.csv`) raises scores.

    Example: vsc-engine run --queries uploads/ --references catalogue/ --output out/
    """
    from engine.config import load_preset
    from engine.evaluate.figures import candidate_figures, match_figures
    from engine.evaluate.ids import in_ids_of, unmatched_lines
    from engine.run.extraction import ExtractionOptions
    from engine.run.machine import is_installed
    from engine.run.protocol import RunSettings, run_protocol
    from engine.storage.location import location
    from engine.store.tables import read_ground_truth

    truth = None if ground_truth is None else read_ground_truth(location(ground_truth))
    folder = location(output)
    opened = open_engines(engines, preset_name=preset)
    asked = opened.manifest.preset if preset is None else load_preset(preset)
    settings = RunSettings(
        queries=location(queries),
        references=location(references),
        norm_set=None if norm_set is None else location(norm_set),
        output=folder,
        engines=opened,
        preset=chosen_preset(asked, fps=fps, sampling=sampling, scenes=scenes, gate=gate, max_pixels=max_pixels),
        use_score_norm=score_norm,
        num_workers=workers,
        num_gpus=gpus,
        decoder=decoder,
        is_recursive=recursive,
        options=ExtractionOptions(video_timeout_s=video_timeout, retry_failed=retry_failed),
        report=None if report is None else location(report),
        web=web_access(allow_http=allow_http, allow_private=allow_private_addresses),
    )
    with goes_on():
        result = run_protocol(settings, progress=progress)
    figures: Figures = {"uap": None, "segment_ap": None}
    if truth is not None:
        known = in_ids_of(truth, query_ids=result.query_ids, ref_ids=result.ref_ids)
        for line in unmatched_lines(known, query_ids=result.query_ids, ref_ids=result.ref_ids, among="the videos"):
            say(line)
        plot = folder / "precision_recall.png" if is_installed("matplotlib") else None
        figures |= candidate_figures(result.candidates, known, plot=plot)
        if known.matches is not None:
            figures |= match_figures(result.matches, known)
    if result.verdicts:
        say(_summary(result.verdicts, num_queries=len(result.query_ids), output=folder))
    figures |= {
        "num_queries": len(result.query_ids),
        "num_references": len(result.ref_ids),
        "num_candidates": len(result.candidates),
        "num_matches": len(result.matches),
        "output": output,
    }
    finish(
        result.failures,
        known_failures=result.known_failures,
        failures_csv=folder / "failures.csv",
        result=figures,
    )


def _summary(verdicts: Mapping[tuple[str, str], str], *, num_queries: int, output: Location) -> str:
    """How many queries hold a copy, and how many somebody should look at, by their strongest verdict."""
    copies, reviews = ({query_id for (query_id, _), word in verdicts.items() if word == wanted} for wanted in _TOLD)
    counts = f"with a copy: {len(copies)}, to review: {len(reviews - copies)}"
    return f"queries: {num_queries}, {counts}; see {output / 'matches.csv'}"
