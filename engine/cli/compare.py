"""``vsc-engine compare``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import (
    EXIT_OF_VERDICT,
    EXIT_SOME_FAILED,
    AllowHttpOption,
    AllowPrivateOption,
    DecoderOption,
    EnginesOption,
    EnginesPresetOption,
    NormSetOption,
    open_engines,
    page_to_write,
    print_json,
    web_access,
)
from engine.console import say

if TYPE_CHECKING:
    from engine.records import Descriptors, Match
    from engine.run.pair import PairAnswer
    from engine.storage.location import Location


def compare(
    query: Annotated[str, typer.Argument(help="The video that may show footage of the other.", metavar="A")],
    reference: Annotated[str, typer.Argument(help="The video that may have been copied.", metavar="B")],
    preset: EnginesPresetOption = None,
    engines: EnginesOption = None,
    norm_set: NormSetOption = None,
    decoder: DecoderOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also print the segments of a pair whose verdict is `no match`.")
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            help="HTML page of the segments that are told of, with pictures, to write.", callback=page_to_write
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 0 for a copy, 10 for a review, 11 for no match.")
    ] = False,
    allow_http: AllowHttpOption = False,
    allow_private_addresses: AllowPrivateOption = False,
) -> None:
    """Compare two files; prints a JSON object: verdict, score, thresholds, segments, best first.

    The verdict is `copy`, `review` or `no match`. Of two videos that share nothing, one pair in a hundred may be called
    a copy, and one in twenty be a case for review.

    An excerpt of either in the other is found whichever comes first. Only A is split into scenes: a video that fills a
    part of the picture (a screen in a screen, two side by side) is found in A, not in B. Scores of A B and B A
    therefore differ; where you do not know which is the copy, ask both ways.

    Example: vsc-engine compare upload.mp4 film.mp4 --report page.html --exit-code
    """
    from engine.config import load_preset
    from engine.describe.engine import Engine
    from engine.errors import ConfigError, MediaError
    from engine.run.pair import compare_files
    from engine.storage.location import location
    from engine.store.norm_set import read_norm_set
    from engine.video.discovery import one_video

    web = web_access(allow_http=allow_http, allow_private=allow_private_addresses)
    first, second = (one_video(location(path, web=web)).path for path in (query, reference))
    opened = open_engines(engines, preset_name=preset)
    identity = opened.manifest.identity
    norm_rows = opened.norm_set() if norm_set is None else read_norm_set(location(norm_set), engines=identity)
    start_s = time.perf_counter()
    with Engine.open(opened, preset=None if preset is None else load_preset(preset), decoder=decoder) as engine:
        try:
            answer = compare_files(engine, first, second, norm_rows=norm_rows)
        except MediaError as error:
            say(f"failed: {error}")
            print_json({"query": {"path": str(first)}, "reference": {"path": str(second)}, "error": str(error)})
            raise typer.Exit(EXIT_SOME_FAILED) from error
    say(_line(answer, query=first, reference=second))
    seconds = round(time.perf_counter() - start_s, 3)
    print_json({**_document(answer, query=first, reference=second, every=every), "seconds": seconds})
    if report is not None:
        _write_report(location(report), answer, query=first, reference=second, every=every)
    if exit_code:
        if answer.verdict is None:
            raise ConfigError(f"preset {engine.preset.name!r} is not calibrated, so that there is no verdict")
        raise typer.Exit(EXIT_OF_VERDICT[answer.verdict])


def _line(answer: PairAnswer, *, query: Location, reference: Location) -> str:
    verdict = answer.verdict or f"score {answer.score:.3f}"
    if answer.has_same_bytes:
        return f"{verdict}: {query} and {reference} have the same bytes"
    if answer.verdict == "no match" or not answer.matches:
        return f"{verdict}: {query} and {reference}"
    best, others = answer.matches[0], len(answer.matches) - 1
    traits = _traits(best) + (f", and {others} more segments" if others > 1 else ", and one more segment" * others)
    return (
        f"{verdict}: {_clock(best.query_start_s)}-{_clock(best.query_end_s)} of {query} show "
        f"{_clock(best.ref_start_s)}-{_clock(best.ref_end_s)} of {reference}{traits}"
    )


def _traits(match: Match) -> str:
    speed = "" if match.speed is None or match.speed == 1 else f", at {match.speed:g} times its speed"
    return speed + (", mirrored" if match.mirrored else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _told(answer: PairAnswer, *, every: bool) -> Sequence[Match]:
    return answer.matches if every or answer.verdict != "no match" else ()


def _write_report(output: Location, answer: PairAnswer, *, query: Location, reference: Location, every: bool) -> None:
    from engine.evidence.report import write_report

    ids = answer.query.video_id, answer.reference.video_id
    write_report(
        output,
        _told(answer, every=every),
        {ids[0]: query},
        {ids[1]: reference},
        verdicts={ids: answer.verdict or ""},
        query_rows={ids[0]: answer.query},
        ref_rows={ids[1]: answer.reference},
    )


def _document(answer: PairAnswer, *, query: Location, reference: Location, every: bool) -> dict[str, Any]:
    return {
        "verdict": answer.verdict,
        "score": answer.score,
        "thresholds": None if answer.thresholds is None else asdict(answer.thresholds),
        "num_references": 1,
        "same_bytes": answer.has_same_bytes,
        "query": _side(answer.query, query),
        "reference": _side(answer.reference, reference),
        "matches": [_segment(match) for match in _told(answer, every=every)],
    }


def _segment(match: Match) -> dict[str, Any]:
    return {key: value for key, value in asdict(match).items() if key not in {"query_id", "ref_id"}}


def _side(video: Descriptors, path: Location) -> dict[str, Any]:
    duration_s = video.duration_s
    return {"path": str(path), "num_rows": len(video), "duration_s": duration_s, "warnings": video.warnings}
