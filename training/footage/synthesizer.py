"""Makes query videos with known copies out of reference and distractor videos. It knows nothing of finding them.

Everything is drawn first, as plans without pixels; rendering a plan reads and writes frame by frame. The same videos
and seed give the same files.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from engine.errors import MediaError
from engine.records import Media
from training.footage.clips import read_clip, write_clip
from training.footage.edits import Clip, apply_edits
from training.footage.query_plans import (
    COPIED_REFERENCES,
    MAX_FPS,
    Difficulty,
    Footage,
    QueryPlan,
    Segment,
    plan_queries,
    probe_sources,
    true_matches,
)
from training.footage.resizing import Frame, contain, cover, even, limit_short_side, resize, size_of
from training.processes import in_processes

QUERIES = "queries"
GROUND_TRUTH = "matching_ground_truth.csv"
PROVENANCE = "provenance.json"


def synthesize(
    references: Sequence[Media],
    output: Path,
    *,
    distractors: Sequence[Media],
    num_copies: int,
    num_plain: int,
    seed: int,
    difficulty: Difficulty = Difficulty(),  # noqa: B008 - a frozen value
    copied_share: float = COPIED_REFERENCES,
    max_plain_pieces: int = 1,
    letterboxed_share: float = 0.0,
    max_fps: int = MAX_FPS,
    short_side_px: int = 288,
    max_source_s: float = 60.0,
    num_workers: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> list[QueryPlan]:
    """Write ``num_copies`` queries with copies and ``num_plain`` without into ``output``, and what is true of them.

    ``queries/Q######.mp4`` (H.264, short side at most ``short_side_px``, at most ``max_fps``);
    ``matching_ground_truth.csv`` in the format of the Video Similarity Challenge 2022; ``provenance.json`` with
    sources, edits and strengths. Only ``copied_share`` of the references is copied; a plain query shows up to
    ``max_plain_pieces`` distractors one after the other, ``letterboxed_share`` of unrelated footage is fitted into the
    frame on black instead of filling it; of longer videos the first ``max_source_s`` seconds are used.
    ``advance`` is called after each query. References and distractors must not share content, or the ground truth is
    incomplete.

    Raises ``ConfigError`` where no reference or no distractor lasts 2 s, ``MediaError`` for one that cannot be read.
    """
    plans = plan_queries(
        probe_sources(references, max_source_s=max_source_s, max_fps=max_fps),
        distractors=probe_sources(distractors, max_source_s=max_source_s, max_fps=max_fps),
        num_copies=num_copies,
        num_plain=num_plain,
        seed=seed,
        difficulty=difficulty,
        copied_share=copied_share,
        max_plain_pieces=max_plain_pieces,
        letterboxed_share=letterboxed_share,
    )
    folder = output / QUERIES
    folder.mkdir(parents=True, exist_ok=True)
    render = partial(render_query, folder=folder, short_side_px=short_side_px)
    rendered = []
    for plan in in_processes(render, plans, num_workers=num_workers):
        rendered.append(plan)
        advance()
    write_ground_truth(output / GROUND_TRUTH, rendered)
    write_provenance(output / PROVENANCE, rendered, seed=seed)
    return rendered


def render_query(plan: QueryPlan, *, folder: Path, short_side_px: int) -> QueryPlan:
    """Write ``folder/<query id>.mp4``, and return the plan with the numbers of frames that the sources really gave.

    The frame has the size of the first copy; all else is fitted into it on black or fills it, as the plan says.
    """
    clips = [_edited(segment, fps=plan.fps, short_side_px=short_side_px) for segment in plan.segments]
    main = next((index for index, segment in enumerate(plan.segments) if segment.is_copy), 0)
    first = next(clips[main], None)
    if first is None:
        footage = plan.segments[main].footage
        raise MediaError(
            f"{footage.source.path} shows nothing at {footage.start_s} s, though it says that it lasts longer"
        )
    canvas = even(limit_short_side(size_of(first), short_side_px))
    clips[main] = chain([first], clips[main])
    counts = [0] * len(clips)

    def frames() -> Iterator[Frame]:
        for index, (segment, clip) in enumerate(zip(plan.segments, clips, strict=True)):
            fit = resize if index == main else contain if segment.is_letterboxed else cover
            for frame in clip:
                counts[index] += 1
                yield fit(frame, canvas)

    write_clip(folder / f"{plan.query_id}.mp4", frames(), fps=plan.fps)
    segments = zip(plan.segments, counts, strict=True)
    return dataclasses.replace(
        plan, segments=tuple(dataclasses.replace(segment, num_frames=count) for segment, count in segments)
    )


def _edited(segment: Segment, *, fps: Fraction, short_side_px: int) -> Clip:
    path, start_s = segment.footage.source.path, segment.footage.start_s
    frames = read_clip(path, fps=fps, start_s=start_s, short_side_px=short_side_px)
    distractors = [_looped(footage, fps=fps, short_side_px=short_side_px) for footage in segment.distractors]
    return islice(apply_edits(frames, segment.edits, distractors), segment.num_frames)


def _looped(footage: Footage, *, fps: Fraction, short_side_px: int) -> Clip:
    start_s = footage.start_s
    while True:
        yield from read_clip(footage.source.path, fps=fps, start_s=start_s, short_side_px=short_side_px)
        start_s = 0.0


def write_ground_truth(path: Path, plans: Sequence[QueryPlan]) -> None:
    """Write query_id, ref_id, query_start, query_end, ref_start, ref_end (seconds), the challenge's format."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end"])
        for match in (match for plan in plans for match in true_matches(plan)):
            times = (match.query_start_s, match.query_end_s, match.ref_start_s, match.ref_end_s)
            writer.writerow([match.query_id, match.ref_id, *(f"{time_s:.3f}" for time_s in times)])


def write_provenance(path: Path, plans: Sequence[QueryPlan], *, seed: int) -> None:
    """Write where every frame comes from and what was done to it, as JSON. A system under test must not read it."""
    queries = {plan.query_id: _provenance(plan) for plan in plans}
    path.write_text(json.dumps({"seed": seed, "queries": queries}, indent=1) + "\n", encoding="utf-8")


def _provenance(plan: QueryPlan) -> dict[str, Any]:
    segments = [
        {
            "source": segment.footage.source.video_id,
            "start_s": segment.footage.start_s,
            "num_frames": segment.num_frames,
            "is_copy": segment.is_copy,
            "edits": [{"name": edit.name, **dataclasses.asdict(edit)} for edit in segment.edits],
            "distractors": [
                {"source": footage.source.video_id, "start_s": footage.start_s} for footage in segment.distractors
            ],
        }
        for segment in plan.segments
    ]
    return {"kind": plan.kind, "fps": str(plan.fps), "segments": segments}
