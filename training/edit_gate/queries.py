"""The queries that an edit gate learns from: labelled ones, ones that are made, and the frame features of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.console import progress
from engine.errors import ConfigError
from engine.records import Match, Media
from engine.video.discovery import find_videos
from engine.video.sampling import slot_timestamps
from training.edit_gate.config import EditScorePreset, LabelledQueries, Synthesis
from training.edit_gate.frame_features import FeatureExtractor
from training.edit_gate.trainer import LabelledVideo
from training.footage.query_plans import Difficulty
from training.footage.synthesizer import GROUND_TRUTH, QUERIES, synthesize
from training.ground_truth import read_segments


@dataclass(frozen=True)
class QuerySet:
    """A folder of query videos, the ground truth that says which of them hold a copy, and how often to show each."""

    videos: Path
    ground_truth: Path
    repeats: int = 1

    @classmethod
    def of(cls, queries: LabelledQueries, *, data: Path) -> QuerySet:
        """Those of a recipe whose folders lie in ``data``."""
        return cls(data / queries.videos, data / queries.ground_truth, queries.repeats)

    def copies(self) -> dict[str, list[Match]]:
        """The queries that hold a copy, by id, and where. Raises ``ConfigError`` as `read_segments` does."""
        found: dict[str, list[Match]] = {}
        for match in read_segments(self.ground_truth):
            found.setdefault(match.query_id, []).append(match)
        return found


def training_queries(recipe: EditScorePreset, *, data: Path, output: Path, num_workers: int) -> list[QuerySet]:
    """The labelled queries of a recipe and the synthesized ones, which are made in ``output`` if they are not there.

    Raises ``ConfigError`` where the recipe names none.
    """
    found = [QuerySet.of(queries, data=data) for queries in recipe.labelled]
    if not found and not recipe.synthesized:
        raise ConfigError(f"there is nothing to train on; name [[labelled]] or [[synthesized]] in {recipe.name!r}")
    known = tuple(found)
    for number, queries in enumerate(recipe.synthesized):
        folder = output / str(number)
        made = QuerySet(folder / QUERIES, folder / GROUND_TRUTH)
        found.append(made)
        if not made.ground_truth.is_file():
            _synthesize(
                _sources(data / queries.source, labelled=known),
                folder,
                num=queries.num_queries,
                seed=recipe.seed + number,
                synthesis=recipe.synthesis,
                num_workers=num_workers,
            )
    return found


def _sources(folder: Path, *, labelled: Sequence[QuerySet]) -> list[Media]:
    """The videos of a folder that hold no copy, as far as is known."""
    own = [known for known in labelled if known.videos.resolve() == folder.resolve()]
    copies = {query_id for known in own for query_id in known.copies()}
    return [item for item in find_videos([folder]) if item.video_id not in copies]


def _synthesize(
    sources: Sequence[Media], folder: Path, *, num: int, seed: int, synthesis: Synthesis, num_workers: int
) -> None:
    """Queries of which half hold a copy. The videos are copied and plain alike: no content may tell which is which.

    Nor may cuts, or black beside footage of another shape: a plain query shows several videos, as a query with a copy
    between other footage does, and some of them are letterboxed.
    """
    with progress(f"queries of {sources[0].path.parent.name}", num) as advance:
        synthesize(
            sources,
            folder,
            distractors=sources,
            num_copies=num // 2,
            num_plain=num - num // 2,
            seed=seed,
            difficulty=Difficulty(num_edits=synthesis.num_edits),
            copied_share=1.0,
            max_plain_pieces=synthesis.max_plain_pieces,
            letterboxed_share=synthesis.letterboxed_share,
            max_fps=synthesis.max_fps,
            num_workers=num_workers,
            advance=advance,
        )


def labelled_videos(queries: QuerySet, extractor: FeatureExtractor, *, num_workers: int) -> list[LabelledVideo]:
    """The features of the queries, and what the ground truth says of them.

    Raises ``ConfigError`` where it names a video that is not there.
    """
    media: list[Media] = find_videos([queries.videos])
    copies = queries.copies()
    absent = sorted(copies.keys() - {item.video_id for item in media})
    if absent:
        raise ConfigError(
            f"{queries.ground_truth} names {len(absent)} queries that {queries.videos} does not hold, such as "
            f"{absent[0]!r}"
        )
    with progress(f"features of {queries.videos.name}", len(media)) as advance:
        found = extractor.extract(media, num_workers=num_workers, advance=advance)
    return [
        LabelledVideo(
            features,
            is_copy=features.video_id in copies,
            copied_frames=copied_frames(len(features.rows), copies.get(features.video_id, ())),
            repeats=queries.repeats,
        )
        for features in found
    ]


def copied_frames(num_frames: int, matches: Sequence[Match]) -> NDArray[np.bool_]:
    """Which frames, one a second, show a copy, bool ``(num_frames,)``: those with the middle of their second in it."""
    middles_s = slot_timestamps(num_frames).mean(axis=1)
    copied = np.zeros(num_frames, dtype=bool)
    for match in matches:
        copied |= (match.query_start_s <= middles_s) & (middles_s < match.query_end_s)
    return copied


def split(
    videos: Sequence[LabelledVideo], *, share: float, seed: int
) -> tuple[list[LabelledVideo], list[LabelledVideo]]:
    """Videos to train on, and held-out ones, the same share of copies and of plain queries."""
    rng = np.random.default_rng(seed)
    shown: list[LabelledVideo] = []
    held_out: list[LabelledVideo] = []
    for is_copy in (True, False):
        kind = [video for video in videos if video.is_copy == is_copy]
        order = rng.permutation(len(kind))
        num_held_out = round(share * len(kind))
        held_out += [kind[index] for index in order[:num_held_out]]
        shown += [kind[index] for index in order[num_held_out:]]
    return shown, held_out
