"""Are pictures that say nothing taken for evidence: `python -m benchmarks.blank_evidence VAL --output DIR`.

Unrelated videos are given the same kind of opening, 8 s of black, white, blue, color bars, a fade from black to white
and back, a title card (other words on each) or the noise of an empty channel, and are put among the references of VAL:

- ``u_KIND``, a query: the opening, then 12 s of a plain query. ``r_KIND``, a reference: the opening, then 12 s of
  another reference, which it replaces.
- ``u_only_KIND``, a query: 12 s of nothing else.
- ``c_exact``: a reference, byte for byte. ``c_in6``: 6 s of another between unrelated footage.
- ``c_after_KIND``: the opening, and then 6 s of a reference. What lowers the score of blanks must not lose it.

Every unrelated pair, those of copies with other references too, should be below every copy, with score normalization
and without.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from benchmarks.builds import STORES, Build, BuildsOption, origins, parse_builds, run_build
from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import command_line, report
from benchmarks.val_hard import make_set, plain_queries
from engine.errors import ConfigError
from engine.records import CandidatePair, Media
from engine.store.tables import read_candidates
from engine.video.discovery import find_videos
from engine.video.media import index_timeline
from training.footage.clips import read_clip, write_clip
from training.footage.resizing import Frame, cover

SET = "blank-evidence"
FPS = Fraction(25)
SIZE = 384, 216
OPENING_S, FOOTAGE_S, COPIED_S, ONLY_S = 8, 12, 6, 12
COPY_STARTS_S = 2.0
COLORS = {"black": (0, 0, 0), "white": (255, 255, 255), "blue": (0, 0, 255)}
KINDS = (*COLORS, "bars", "fade", "title", "noise")
BARS = ((191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191))
"""Seven bars of 75%, without the lower part of a SMPTE card."""
WORDS = {"u": ("A Walk by", "the Water"), "r": ("CHAPTER", "SEVEN"), "c": ("Notes on", "Machines")}
MODES = {"normalized": True, "cosine": False}


def opening(kind: str, seconds: float, *, side: str) -> Iterator[Frame]:
    """Frames of `SIZE` that say nothing; the words of a title, and the noise, differ with ``side`` (u, r or c)."""
    num_frames, (width, height) = round(seconds * FPS), SIZE
    rng = np.random.default_rng(list(side.encode()))
    for index in range(num_frames):
        if kind == "bars":
            colors = np.array(BARS, np.uint8)[np.arange(width) * len(BARS) // width]
            yield np.ascontiguousarray(np.broadcast_to(colors, (height, width, 3)))
        elif kind == "fade":
            level = round(255 * (1 - abs(2 * index / max(1, num_frames - 1) - 1)))
            yield np.full((height, width, 3), level, np.uint8)
        elif kind == "title":
            yield _title(WORDS[side])
        elif kind == "noise":
            yield np.repeat(rng.integers(0, 256, (height, width, 1), np.uint8), 3, axis=2)
        else:
            yield np.full((height, width, 3), COLORS[kind], np.uint8)


def _title(words: Sequence[str]) -> Frame:
    width, height = SIZE
    card = np.zeros((height, width, 3), np.uint8)
    for line, text in enumerate(words):
        (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.2, 2)
        corner = (width - text_width) // 2, height // 2 - 10 + 50 * line
        cv2.putText(card, text, corner, cv2.FONT_HERSHEY_DUPLEX, 1.2, (235, 235, 235), 2, cv2.LINE_AA)
    return card


def footage(media: Media, seconds: float, *, start_s: float = 0.0) -> Iterator[Frame]:
    """Frames of a video at `FPS`, filling `SIZE`."""
    frames = read_clip(media.local_path, fps=FPS, start_s=start_s, short_side_px=SIZE[1])
    return (cover(frame, SIZE) for frame in islice(frames, round(seconds * FPS)))


def make_videos(source: DataSet, output: Path) -> None:
    """Write ``query/``, ``reference/`` and the ground truth of the copies.

    Raises ``ConfigError`` unless ``source`` has videos of 12 s enough: 16 references, and 8 queries without a copy.
    """
    references, plain = _long(find_videos([source.references])), _long(plain_queries(source))
    if len(references) < 2 * len(KINDS) + 2 or len(plain) <= len(KINDS):
        raise ConfigError(
            f"{source.name} has {len(references)} references and {len(plain)} plain queries of {FOOTAGE_S} s or more; "
            f"{2 * len(KINDS) + 2} and {len(KINDS) + 1} are needed"
        )
    queries, catalogue = output / "query", output / "reference"
    queries.mkdir()
    catalogue.mkdir()
    opened, copied = references[: len(KINDS)], references[len(KINDS) : 2 * len(KINDS)]
    exact, inside = references[2 * len(KINDS) : 2 * len(KINDS) + 2]
    replaced = {media.video_id for media in opened}
    for media in find_videos([source.references]):
        if media.video_id not in replaced:
            shutil.copyfile(media.local_path, catalogue / media.path.name)
    pairs = [("c_exact", exact.video_id), ("c_in6", inside.video_id)]
    shutil.copyfile(exact.local_path, queries / f"c_exact{exact.path.suffix}")
    around = plain[len(KINDS)]
    _write(
        queries / "c_in6.mp4",
        footage(around, 6),
        footage(inside, COPIED_S, start_s=COPY_STARTS_S),
        footage(around, 6, start_s=6),
    )
    for kind, base, unrelated, copy in zip(KINDS, opened, plain, copied, strict=False):
        _write(catalogue / f"r_{kind}.mp4", opening(kind, OPENING_S, side="r"), footage(base, FOOTAGE_S))
        _write(queries / f"u_{kind}.mp4", opening(kind, OPENING_S, side="u"), footage(unrelated, FOOTAGE_S))
        _write(queries / f"u_only_{kind}.mp4", opening(kind, ONLY_S, side="u"))
        shown = footage(copy, COPIED_S, start_s=COPY_STARTS_S)
        _write(queries / f"c_after_{kind}.mp4", opening(kind, OPENING_S, side="c"), shown)
        pairs.append((f"c_after_{kind}", copy.video_id))
    with (output / "matching_ground_truth.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("query_id", "ref_id"), *pairs])


def _long(videos: Sequence[Media]) -> list[Media]:
    return [media for media in videos if index_timeline(media).end_s >= FOOTAGE_S]


def _write(path: Path, *clips: Iterator[Frame]) -> None:
    write_clip(path, chain(*clips), fps=FPS)


@dataclass(frozen=True)
class Score:
    """A pair of videos, and its score in a build and a mode; None where the pair is not among the candidates."""

    build: str
    mode: str
    query_id: str
    ref_id: str
    score: float | None
    is_copy: bool = False


def scores_of(candidates: Sequence[CandidatePair], true_refs: dict[str, str], *, build: str, mode: str) -> list[Score]:
    """The scores of the copies, of ``u_`` queries with ``r_KIND``, and the best other pair of each of these queries."""
    found = {(item.query_id, item.ref_id): item.score for item in candidates}
    unrelated = [(f"{prefix}_{kind}", f"r_{kind}") for kind in KINDS for prefix in ("u", "u_only")]
    scores = []
    for named in (*true_refs.items(), *unrelated):
        scores.append(Score(build, mode, *named, found.get(named), is_copy=named not in unrelated))
        others = [score for pair, score in found.items() if pair[0] == named[0] and pair != named]
        scores.append(Score(build, mode, named[0], "any other", max(others, default=None)))
    return scores


def measure(builds: Sequence[Build], data: DataSet, true_refs: dict[str, str], runs: Path) -> list[Score]:
    """Run every build in both modes; the descriptors are the same in both."""
    scores = []
    for build in builds:
        described: dict[str, Path] = {}
        for mode, score_norm in MODES.items():
            output = runs / build.name / mode
            run_build(
                build,
                queries=data.queries,
                references=data.references,
                output=output,
                cache=runs,
                score_norm=score_norm,
                described=described,
            )
            described = {name: output / name for name in STORES}
            candidates = read_candidates(output / "candidates.csv")
            scores += scores_of(candidates, true_refs, build=build.name, mode=mode)
    return scores


def lowest_copy(scores: Sequence[Score]) -> float:
    """The lowest score of a copy; one that is no candidate is below everything."""
    copies = [item.score for item in scores if item.is_copy]
    return min(-np.inf if score is None else score for score in copies)


def too_high(scores: Sequence[Score]) -> list[Score]:
    """The unrelated pairs that are not below the lowest copy."""
    limit = lowest_copy(scores)
    return [item for item in scores if not item.is_copy and item.score is not None and item.score >= limit]


def table(scores: Sequence[Score]) -> list[str]:
    """A line for each pair, with a column for each mode and build; ``!``: an unrelated pair not below every copy."""
    columns = list(dict.fromkeys((item.mode, item.build) for item in scores))
    by_column = {column: [item for item in scores if (item.mode, item.build) == column] for column in columns}
    wrong = {item for column in columns for item in too_high(by_column[column])}
    width = 2 + max(len(f"{mode} {build}") for mode, build in columns)
    lines = [f"{'query':<18}{'reference':<14}" + "".join(f"{f'{mode} {build}':>{width}}" for mode, build in columns)]
    for row in zip(*by_column.values(), strict=True):
        texts = [("-" if item.score is None else f"{item.score:.4f}") + "! "[item not in wrong] for item in row]
        lines.append(
            f"{row[0].query_id:<18}{row[0].ref_id:<14}" + "".join(f"{text:>{width}}" for text in texts).rstrip()
        )
    for (mode, build), mine in by_column.items():
        num_unrelated = sum(not item.is_copy for item in mine)
        counted = f"{len(too_high(mine))} of {num_unrelated} unrelated pairs not below it"
        lines.append(f"{mode}, {build}: lowest copy {lowest_copy(mine):.4f}; {counted}")
    return lines


def main(
    val: Annotated[Path, typer.Argument(metavar="VAL", help="Folder of a set whose references and footage are used.")],
    output: Annotated[Path, typer.Option(help="Folder that gets the videos and the runs on them.")],
    builds: BuildsOption = None,
    results: Annotated[Path | None, typer.Option(help="Folder for the report, e.g. benchmarks/results.")] = None,
) -> None:
    """Make unrelated videos with blank openings, and report their scores beside those of copies.

    What is in the output folder is not made again.

    Example: python -m benchmarks.blank_evidence vsc-mini/val --output blank/ --build before=../old --build now=.
    """
    compared = parse_builds(builds)
    make_set(output / SET, partial(make_videos, find_data_set(val)))
    data = find_data_set(output / SET)
    with data.ground_truth.open(encoding="utf-8", newline="") as file:
        true_refs = {row["query_id"]: row["ref_id"] for row in csv.DictReader(file)}
    scores = measure(compared, data, true_refs, output / "runs")
    figures = {"scores": [asdict(item) for item in scores]}
    report("blank_evidence", lines=[*origins(compared), *table(scores)], figures=figures, output=results)


app = command_line(main)

if __name__ == "__main__":
    app()
