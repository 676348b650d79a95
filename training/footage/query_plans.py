"""Draws what synthetic queries show: which stretch of which video, how edited, when. It reads no pixels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from engine.errors import ConfigError
from engine.records import Match, Media
from engine.video.media import index_timeline
from training.footage.edits import EDITS, Edit, Strengths, draw_edits

QueryKind = Literal["full", "insert", "two", "plain"]
"""An edited copy alone, within unrelated footage, two copies one after the other, or unrelated footage only."""

MAX_FPS = 30
MIN_SOURCE_S = 2.0
COPIED_REFERENCES = 0.75
_COPY_KINDS: tuple[QueryKind, ...] = ("full", "full", "full", "insert", "insert", "two")
_COPY_S, _AROUND_S, _PLAIN_S = (4.0, 10.0), (2.0, 5.0), (6.0, 12.0)

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A video to take footage from: the seconds of it that may be used, and the frames per second to take."""

    video_id: str
    path: Path
    duration_s: float
    fps: Fraction


@dataclass(frozen=True)
class Footage:
    """A place in a source, in seconds since its start."""

    source: Source
    start_s: float


@dataclass(frozen=True)
class Segment:
    """One stretch of a query: unrelated footage as it is, or an edited copy.

    ``num_frames`` are frames of the query. ``distractors`` is the footage that the edits mix in, in order. Footage of
    another shape than the query it is fitted into the frame on black if ``is_letterboxed``, or else fills it.
    """

    footage: Footage
    num_frames: int
    is_copy: bool = False
    edits: tuple[Edit, ...] = ()
    distractors: tuple[Footage, ...] = ()
    is_letterboxed: bool = False

    @property
    def speed(self) -> float:
        """Seconds of the source that one second of the query shows."""
        return math.prod(edit.speed for edit in self.edits)


@dataclass(frozen=True)
class Difficulty:
    """How much copies are edited: fewest and most edits of one, both included, within 1 to 6, and their strengths."""

    num_edits: tuple[int, int] = (1, 3)
    strengths: Strengths = field(default_factory=dict)


@dataclass(frozen=True)
class QueryPlan:
    """One query to render: its segments follow each other at a constant frame rate."""

    query_id: str
    kind: QueryKind
    fps: Fraction
    segments: tuple[Segment, ...]


def true_matches(plan: QueryPlan) -> list[Match]:
    """What a perfect detector finds in the rendered query, in the order of the segments; the scores are 1."""
    matches = []
    num_frames = 0
    for segment in plan.segments:
        start_s, length_s = float(num_frames / plan.fps), float(segment.num_frames / plan.fps)
        num_frames += segment.num_frames
        if segment.is_copy and segment.num_frames:
            ref, ref_start_s = segment.footage.source, segment.footage.start_s
            ref_end_s = min(ref_start_s + segment.speed * length_s, ref.duration_s)
            matches.append(Match(plan.query_id, ref.video_id, start_s, start_s + length_s, ref_start_s, ref_end_s, 1.0))
    return matches


def probe_sources(media: Sequence[Media], *, max_source_s: float, max_fps: int = MAX_FPS) -> list[Source]:
    """Videos that last at least 2 s, of which up to ``max_source_s`` may be used, at ``max_fps`` or less.

    Raises ``ConfigError`` where there is none.
    """
    sources = []
    for item in media:
        timeline = index_timeline(item)
        shown_s = timeline.end_s - float(timeline.times_s[0])
        if shown_s >= MIN_SOURCE_S:
            fps = min(Fraction(len(timeline) / shown_s).limit_denominator(1001), Fraction(max_fps))
            sources.append(Source(item.video_id, item.local_path, min(timeline.end_s, max_source_s), fps))
    if not sources:
        raise ConfigError(f"no video of {len(media)} lasts {MIN_SOURCE_S:g} s or more; give longer ones")
    return sources


def plan_queries(
    references: Sequence[Source],
    *,
    distractors: Sequence[Source],
    num_copies: int,
    num_plain: int,
    seed: int,
    difficulty: Difficulty = Difficulty(),
    copied_share: float = COPIED_REFERENCES,
    max_plain_pieces: int = 1,
    letterboxed_share: float = 0.0,
) -> list[QueryPlan]:
    """Draw what every query shows. Each kind of edit occurs before any occurs again; ids do not tell copies apart.

    ``copied_share`` of the references are copied at all. A plain query shows 1 to ``max_plain_pieces`` sources. All
    copies, and ``letterboxed_share`` of unrelated footage, are fitted into the frame on black.
    """
    rng = np.random.default_rng(seed)
    num_copied = math.ceil(copied_share * len(references))
    copied = _deal(rng, [references[index] for index in rng.permutation(len(references))[:num_copied]])
    kinds, edit_kinds, unrelated = _deal(rng, _COPY_KINDS), _deal(rng, list(EDITS.values())), _deal(rng, distractors)
    draw_copy = partial(_draw_copy, rng, unrelated=unrelated, edit_kinds=edit_kinds, difficulty=difficulty)
    drafts = [_draft_copies(rng, next(kinds), copied, unrelated, draw_copy) for _ in range(num_copies)]
    plain = _deal(rng, distractors)
    drafts += [_draft_plain(rng, plain, max_pieces=max_plain_pieces) for _ in range(num_plain)]
    order = rng.permutation(len(drafts))
    letterbox = partial(_letterbox, np.random.default_rng([seed, 1]), share=letterboxed_share)
    return [
        dataclasses.replace(letterbox(drafts[index]), query_id=f"Q{number:06d}")
        for number, index in enumerate(order, start=1)
    ]


def _letterbox(rng: np.random.Generator, plan: QueryPlan, *, share: float) -> QueryPlan:
    """The plan with its copies, and a share of its other footage, letterboxed."""
    segments = (
        dataclasses.replace(segment, is_letterboxed=segment.is_copy or bool(rng.random() < share))
        for segment in plan.segments
    )
    return dataclasses.replace(plan, segments=tuple(segments))


def _deal(rng: np.random.Generator, cards: Sequence[T]) -> Iterator[T]:
    """All cards in random order, then again in another, without end."""
    while True:
        yield from (cards[index] for index in rng.permutation(len(cards)))


def _draft_copies(
    rng: np.random.Generator,
    kind: QueryKind,
    copied: Iterator[Source],
    unrelated: Iterator[Source],
    draw_copy: Callable[..., Segment],
) -> QueryPlan:
    source = next(copied)
    copy = draw_copy(source, fps=source.fps)
    segments = [copy]
    if kind == "insert":
        before, after = (_draw_unrelated(rng, next(unrelated), _AROUND_S, fps=source.fps) for _ in range(2))
        segments = [before, copy, after]
    elif kind == "two":
        segments.append(draw_copy(next(copied), fps=source.fps))
    return QueryPlan("", kind, source.fps, tuple(segments))


def _draft_plain(rng: np.random.Generator, sources: Iterator[Source], *, max_pieces: int) -> QueryPlan:
    num_pieces = int(rng.integers(1, max_pieces, endpoint=True))
    range_s = (_PLAIN_S[0] / num_pieces, _PLAIN_S[1] / num_pieces)
    pieces = [next(sources) for _ in range(num_pieces)]
    fps = pieces[0].fps
    return QueryPlan("", "plain", fps, tuple(_draw_unrelated(rng, source, range_s, fps=fps) for source in pieces))


def _draw_copy(
    rng: np.random.Generator,
    source: Source,
    *,
    unrelated: Iterator[Source],
    edit_kinds: Iterator[type[Edit]],
    difficulty: Difficulty,
    fps: Fraction,
) -> Segment:
    kind = next(edit_kinds)
    num_edits = int(rng.integers(*difficulty.num_edits, endpoint=True))
    edits = draw_edits(rng, num_edits=num_edits, kind=kind, strengths=difficulty.strengths)
    speed = math.prod(edit.speed for edit in edits)
    footage, num_frames = _draw_footage(rng, source, _COPY_S, fps=fps, speed=speed)
    mixed_in = [next(unrelated) for _ in range(sum(edit.num_distractors for edit in edits))]
    distractors = tuple(_draw_footage(rng, other, _COPY_S, fps=fps, speed=1.0)[0] for other in mixed_in)
    return Segment(footage, num_frames, is_copy=True, edits=edits, distractors=distractors)


def _draw_unrelated(
    rng: np.random.Generator, source: Source, range_s: tuple[float, float], *, fps: Fraction
) -> Segment:
    return Segment(*_draw_footage(rng, source, range_s, fps=fps, speed=1.0))


def _draw_footage(
    rng: np.random.Generator, source: Source, range_s: tuple[float, float], *, fps: Fraction, speed: float
) -> tuple[Footage, int]:
    """Where to start in the source and how many frames of the query to fill; at most the whole source."""
    num_frames = max(1, int(min(rng.uniform(*range_s), source.duration_s / speed) * fps))
    latest_s = max(0.0, source.duration_s - float(num_frames / fps) * speed)
    return Footage(source, round(float(rng.uniform(0, latest_s)), 3)), num_frames
