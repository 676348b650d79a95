"""Stores that were made apart, made one: those of many jobs, each of which described its share of the same inputs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from engine.errors import StoreError
from engine.records import Descriptors, Failure
from engine.storage.location import Location
from engine.store.input_shard import missing_shards
from engine.store.shards import StoredVideo, read_index
from engine.store.store import KnownBad, StoreManifest, StoreWriter, read_complete_manifest, stored_videos
from engine.store.tables import read_failures

FAILURES = "failures.csv"
_NUM_NAMED = 5

Stores = Mapping[Location, StoreManifest]


@dataclass(frozen=True)
class MergeSummary:
    """``num_videos`` of the merged store; ``num_repeated``: how many were in more than one of those that were merged.

    ``failures``, in the order of ids: of videos that none of the stores holds. ``missing``: the shares of the inputs,
    such as ``3/8``, that were not among the stores.
    """

    num_videos: int
    num_repeated: int
    failures: tuple[Failure, ...]
    missing: tuple[str, ...]


def merge_stores(paths: Sequence[Location], output: Path, *, allow_missing: bool = False) -> MergeSummary:
    """Write the videos of complete stores of one identity and dtype into the store ``output``; they are only read.

    A video that several hold is kept once. ``output`` counts as incomplete until all is there; after an interruption
    the same merge goes on. ``allow_missing``: go on where shares of the inputs are missing. Raises ``StoreError`` for
    stores of different identities, dtypes, counts of shares or versions, for a missing share and for one id with
    different contents, before anything is written; and as `read_descriptors` and `StoreWriter` do.
    """
    if any(path.resolve() == output.resolve() for path in paths):
        raise StoreError(f"{output} is one of the stores that are merged; name a new folder as the output")
    stores = {path: read_complete_manifest(path) for path in paths}
    _check_alike(stores)
    missing = missing_shards([manifest.shard for manifest in stores.values() if manifest.shard is not None])
    if missing and not allow_missing:
        raise StoreError(
            f"the stores of {_some(missing)} of the inputs are not among those to merge; extract and name them, or "
            "leave them out with --partial"
        )
    ids = {path: _video_ids(path, manifest) for path, manifest in stores.items()}
    counts = Counter(chain.from_iterable(ids.values()))
    repeated = {video_id for video_id, count in counts.items() if count > 1}
    of_stores = {path: stored_videos(path) for path, found in ids.items() if found & repeated}
    _check_equal(of_stores, video_ids=repeated)
    first = next(iter(stores.values()))
    with StoreWriter(output, identity=first.identity, dtype=first.dtype) as writer:
        kept = counts.keys() & writer.finished
        of_stores = {path: stored_videos(path) for path, found in ids.items() if found & kept}
        _check_equal({output: writer.videos(), **of_stores}, video_ids=kept)
        writer.add_copies(_new_videos(writer, paths))
        failures = _failures(stores, described=writer.finished.keys())
        writer.finish(failures=failures, known_bad=_known_bad(stores, described=writer.finished.keys()))
        num_videos = len(writer.finished)
    return MergeSummary(num_videos, len(repeated), tuple(failures), tuple(missing))


def _check_alike(stores: Stores) -> None:
    (first, expected), *others = stores.items()
    for path, manifest in others:
        found = manifest.identity
        differing = [
            f"{key} ({expected.identity.get(key)!r} in {first}, {found.get(key)!r} in {path})"
            for key in sorted({*expected.identity, *found})
            if expected.identity.get(key) != found.get(key)
        ]
        if differing:
            raise StoreError(
                f"{first} and {path} hold descriptors of different origin, which are never mixed; different are "
                f"{', '.join(differing)}"
            )
        if manifest.dtype != expected.dtype:
            raise StoreError(
                f"{first} keeps descriptors as {expected.dtype}, {path} as {manifest.dtype}, which are never mixed; "
                "extract one of them again, into a new folder"
            )
    shards = {path: manifest.shard for path, manifest in stores.items() if manifest.shard is not None}
    if not shards:
        return
    (first, of_first), *rest = shards.items()
    for path, shard in rest:
        if shard.count != of_first.count:
            raise StoreError(
                f"{first} is for shard {of_first} of the inputs, {path} for shard {shard}: the counts differ; merge "
                "shards of one count"
            )
        if shard.version != of_first.version:
            raise StoreError(
                f"{first} was written by vsc-engine {of_first.version}, {path} by {shard.version}; extract the shards "
                "of one of them again"
            )


def _video_ids(path: Location, manifest: StoreManifest) -> set[str]:
    return {video_id for name in manifest.shards for video_id in read_index(path / name, origin=manifest.origin)[1]}


def _check_equal(sources: Mapping[Location, Iterable[StoredVideo]], *, video_ids: Collection[str]) -> None:
    """Raise ``StoreError`` if two sources hold different contents under one of the ids."""
    seen: dict[str, tuple[str, Location]] = {}
    for path, videos in sources.items():
        for video in videos:
            video_id = video.descriptors.video_id
            if video_id not in video_ids:
                continue
            digest = _digest(video.descriptors)
            known, other = seen.setdefault(video_id, (digest, path))
            if digest != known:
                raise StoreError(
                    f"{other} and {path} hold different contents under the id '{video_id}'; extract the outdated one "
                    "again, or rename one of the videos"
                )


def _digest(video: Descriptors) -> str:
    blank = None if video.blank is None else video.blank.tolist()
    facts = json.dumps([video.descriptors.shape, video.edit_score, video.gate, video.warnings, blank])
    return hashlib.sha256(facts.encode() + video.timestamps.tobytes() + video.descriptors.tobytes()).hexdigest()


def _new_videos(writer: StoreWriter, paths: Iterable[Location]) -> Iterator[StoredVideo]:
    for path in paths:
        for video in stored_videos(path):
            if video.descriptors.video_id not in writer.finished:
                yield video


def _failures(stores: Stores, *, described: Collection[str]) -> list[Failure]:
    """What the stores and the tables beside them know of, which name the files that could not be found, too."""
    found: dict[str, Failure] = {}
    for path, manifest in stores.items():
        table = path / FAILURES
        listed = read_failures(table) if table.is_file() else []
        found |= {failure.video_id: failure for failure in [*listed, *manifest.failures]}
    return [found[video_id] for video_id in sorted(found.keys() - described)]


def _known_bad(stores: Stores, *, described: Collection[str]) -> list[KnownBad]:
    entries = {entry.sha256: entry for manifest in stores.values() for entry in manifest.known_bad}
    return [entries[key] for key in sorted(entries) if entries[key].failure.video_id not in described]


def _some(shards: Sequence[str]) -> str:
    named = ", ".join(shards[:_NUM_NAMED])
    more = len(shards) - _NUM_NAMED
    return f"shard {named}" + (f" and {more} more" if more > 0 else "")
