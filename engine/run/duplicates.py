"""Copies within one collection of videos: pairs, and clusters of which one video is worth keeping. Deletes nothing.

A video is described once, as a reference: rows of its whole frames serve as either side of a pair. Scenes, which would
also find a video that fills a part of another's picture, need a second description as a query, and are asked for.
Files of this machine with the same bytes are found by their hash, and described once; objects are not read for that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import FalseMatches, Preset
from engine.describe.engine import Engine
from engine.errors import ConfigError, MediaError, RemoteError
from engine.evaluate.calibration import Verdict, VerdictScores
from engine.files import file_sha256
from engine.records import CandidatePair, Descriptors, Failure, FloatArray, Match, Media, Role
from engine.run.extraction import DEFAULT_OPTIONS, ExtractionOptions, extract_to_store
from engine.run.pictures import look_at_best
from engine.run.plan import Workers
from engine.run.protocol import Progress, no_progress
from engine.search.candidates import find_candidates
from engine.search.comparison import prepare, ranked
from engine.search.localization import localize_candidates
from engine.storage.location import Location
from engine.store.store import read_descriptors
from engine.video.media import claimed_size


@dataclass(frozen=True)
class DuplicatePair:
    """Two videos of a collection, by id, ``first`` before ``second``, that a verdict speaks of.

    ``match``: their best segment, ``first`` as the query; None for the same bytes, which have no ``score`` either, and
    where none was localized.
    """

    first: str
    second: str
    verdict: Verdict
    score: float | None
    match: Match | None
    has_same_bytes: bool = False


@dataclass(frozen=True)
class Member:
    """A video of a cluster. ``size_px``: width and height, (0, 0) where the file can no longer be read."""

    video_id: str
    path: Location
    size_px: tuple[int, int]
    duration_s: float


@dataclass(frozen=True)
class Duplicates:
    """The copies within a collection.

    ``pairs``: of the same bytes, then the others, best first. ``clusters``: the largest first, in each the video worth
    keeping first. ``failures``, ``known_failures``: as in `engine.run.extraction.ExtractionSummary`.
    """

    num_videos: int
    pairs: tuple[DuplicatePair, ...]
    clusters: tuple[tuple[Member, ...], ...]
    failures: tuple[Failure, ...]
    known_failures: tuple[Failure, ...]


def find_duplicates(
    engine: Engine,
    media: Sequence[Media],
    *,
    output: Location,
    workers: Workers,
    options: ExtractionOptions = DEFAULT_OPTIONS,
    use_scenes: bool = False,
    progress: Progress = no_progress,
) -> Duplicates:
    """Find the copies among videos, whose ids are their paths; ``engine`` need not be entered.

    Descriptors are kept in stores in ``output``, as `engine.run.extraction.extract_to_store` keeps them, so that a job
    that was cut short goes on. Raises ``ConfigError`` for engines without a PCA, a norm set or a calibration, or with
    an edit gate that is on: it stops what was not edited, such as another encoding. Stores in an object store are read
    and written as `engine.store.staging.staged` says.
    """
    false_matches = engine.preset.false_matches
    if false_matches is None or engine.preset.gate.mode != "off" or not engine.use_pca:
        raise ConfigError(
            f"preset {engine.preset.name!r} gives no verdicts within a collection; expected engines with a PCA, "
            "[false_matches] in the preset, and its edit gate off"
        )
    norm_rows = engine.engines.norm_set()
    videos = once_each(media)
    groups = group_same_bytes(videos)
    described = [group[0] for group in groups]
    failures: dict[str, Failure] = {}
    known_failures: dict[str, Failure] = {}
    sides = []
    stores: list[tuple[Role, str]] = [("reference", "descriptors"), ("query", "descriptors_of_scenes")]
    for role, name in stores if use_scenes else stores[:1]:
        with progress(f"describe ({role})", len(described)) as advance:
            summary = extract_to_store(
                engine, described, role=role, output=output / name, workers=workers, options=options, on_done=advance
            )
        failures |= {item.video_id: item for item in summary.failures}
        known_failures |= {item.video_id: item for item in summary.known_failures}
        sides.append({item.video_id: item for item in read_descriptors(output / name, role=role)})
    names = [item.video_id for item in described if all(item.video_id in side for side in sides)]
    references, queries = ([side[name] for name in names] for side in (sides[0], sides[-1]))
    pairs = same_bytes_pairs(group for group in groups if group[0].video_id in sides[0])
    if len(names) > 1:
        paths = {item.video_id: item.path for item in described}
        pairs += find_pairs(
            queries, references, preset=engine.preset, false_matches=false_matches, norm_rows=norm_rows, paths=paths
        )
    ends_s = {video.video_id: video.duration_s for video in references}
    durations_s = {item.video_id: ends_s.get(group[0].video_id, 0.0) for group in groups for item in group}
    clusters = find_clusters(pairs, {item.video_id: item for item in videos}, durations_s)
    return Duplicates(
        len(videos),
        tuple(pairs),
        tuple(clusters),
        tuple(_of_all(failures, groups)),
        tuple(_of_all(known_failures, groups)),
    )


def _of_all(failures: Mapping[str, Failure], groups: Iterable[Sequence[Media]]) -> Iterator[Failure]:
    """The failures of described videos, and the same ones of all that have their bytes."""
    for group in groups:
        if group[0].video_id in failures:
            for item in group:
                yield replace(failures[group[0].video_id], video_id=item.video_id, path=item.path)


def once_each(media: Sequence[Media]) -> list[Media]:
    """Without further names of one file: links to it must not look like copies, of which one could be deleted."""
    files, others = _files_and_objects(media)
    found: dict[tuple[int, int], Media] = {}
    for path, item in sorted(files, key=lambda file: (file[0].is_symlink(), file[1].video_id)):
        try:
            status = path.stat()
        except OSError:
            others.append(item)  # describing it will say why
        else:
            found.setdefault((status.st_dev, status.st_ino), item)
    return sorted([*found.values(), *others], key=lambda item: item.video_id)


def _files_and_objects(media: Sequence[Media]) -> tuple[list[tuple[Path, Media]], list[Media]]:
    """Those on this machine, with their paths, and those elsewhere."""
    files = [(item.path, item) for item in media if isinstance(item.path, Path)]
    return files, [item for item in media if not isinstance(item.path, Path)]


def group_same_bytes(media: Sequence[Media]) -> list[list[Media]]:
    """Videos whose files have the same bytes, together; only files of one size are read. Order as given."""
    sizes: dict[int, list[tuple[Path, Media]]] = defaultdict(list)
    for path, item in _files_and_objects(media)[0]:
        with suppress(OSError):
            sizes[path.stat().st_size].append((path, item))
    digests: dict[str, str] = {}
    for path, item in (file for same in sizes.values() if len(same) > 1 for file in same):
        with suppress(OSError):
            digests[item.video_id] = file_sha256(path)
    groups: dict[tuple[str, bool], list[Media]] = {}
    for item in media:
        is_hashed = item.video_id in digests
        groups.setdefault((digests.get(item.video_id, item.video_id), is_hashed), []).append(item)
    return list(groups.values())


def find_pairs(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    preset: Preset,
    false_matches: FalseMatches,
    norm_rows: FloatArray,
    paths: Mapping[str, Location] | None = None,
) -> list[DuplicatePair]:
    """Pairs with a verdict of at least ``review``, best first; each once, none of a video with itself.

    ``queries`` and ``references``: the same videos in the same order, as the engines gave them. A pair is asked about
    both ways, and the higher score counts. ``false_matches``: the calibration of the preset. ``paths``: the files by
    video id, of which pictures are compared; None looks at none.
    """
    # Each video is compared twice with every other one: as query, and as reference.
    thresholds = VerdictScores.of(false_matches, num_references=2 * (len(references) - 1))
    sides = prepare(queries, references, preset=preset, norm_rows=norm_rows)
    candidates = [
        pair
        for one, other in _halves(range(len(references)))
        for pair in find_candidates(
            [sides[0][place] for place in one], [sides[1][place] for place in other], config=preset.search
        )
    ]
    matches = localize_candidates(*sides, candidates, config=preset.localization)
    candidates, matches = ranked(candidates, matches, preset=preset)
    if paths is not None:
        candidates, matches = look_at_best(candidates, matches, paths, paths, preset=preset)
    best_match: dict[tuple[str, str], Match] = {}
    for match in matches:
        best_match.setdefault((match.query_id, match.ref_id), match)
    found: dict[tuple[str, str], DuplicatePair] = {}
    for pair in sorted(candidates, key=lambda pair: pair.score, reverse=True):
        verdict = thresholds.verdict(pair.score)
        first, second = sorted((pair.query_id, pair.ref_id))
        if verdict != "no match" and (first, second) not in found:
            found[first, second] = _oriented(pair, verdict, best_match.get((pair.query_id, pair.ref_id)))
    return list(found.values())


def _halves(places: range) -> Iterator[tuple[range, range]]:
    """Parts that have nothing in common; each pair of places is in one of them, and once the other way round.

    Compared with themselves, videos would fill the list of best rows with rows of their own.
    """
    if len(places) > 1:
        one, other = places[: len(places) // 2], places[len(places) // 2 :]
        yield one, other
        yield other, one
        yield from _halves(one)
        yield from _halves(other)


def _oriented(pair: CandidatePair, verdict: Verdict, match: Match | None) -> DuplicatePair:
    if pair.query_id < pair.ref_id:
        return DuplicatePair(pair.query_id, pair.ref_id, verdict, pair.score, match)
    turned = match and Match(
        match.ref_id,
        match.query_id,
        match.ref_start_s,
        match.ref_end_s,
        match.query_start_s,
        match.query_end_s,
        match.score,
        speed=1 / match.speed if match.speed else None,
        mirrored=match.mirrored,
        num_inliers=match.num_inliers,
    )
    return DuplicatePair(pair.ref_id, pair.query_id, verdict, pair.score, turned)


def same_bytes_pairs(groups: Iterable[Sequence[Media]]) -> list[DuplicatePair]:
    """The first video of each group with each of the others; groups are in the order of ids."""
    return [
        DuplicatePair(group[0].video_id, other.video_id, "copy", None, None, has_same_bytes=True)
        for group in groups
        for other in group[1:]
    ]


def find_clusters(
    pairs: Iterable[DuplicatePair], media: Mapping[str, Media], durations_s: Mapping[str, float]
) -> list[tuple[Member, ...]]:
    """Videos that pairs with the verdict ``copy`` connect; the one worth keeping first, the largest cluster first.

    That is the one of most pixels, then the longest, then the first by path. ``durations_s`` by id.
    """
    cluster_of: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.verdict == "copy":
            one, other = (cluster_of.setdefault(name, {name}) for name in (pair.first, pair.second))
            if one is not other:
                one |= other
                cluster_of.update(dict.fromkeys(other, one))
    clusters = {id(names): names for names in cluster_of.values()}.values()
    members = [
        tuple(
            sorted(
                (Member(name, media[name].path, _size(media[name]), durations_s.get(name, 0.0)) for name in names),
                key=lambda member: (-member.size_px[0] * member.size_px[1], -member.duration_s, member.video_id),
            )
        )
        for names in clusters
    ]
    return sorted(members, key=lambda cluster: (-len(cluster), cluster[0].video_id))


def _size(media: Media) -> tuple[int, int]:
    try:
        return claimed_size(media)
    except (MediaError, RemoteError):
        return 0, 0
