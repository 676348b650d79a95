"""Descriptors on disk: the one door to all formats, and our own resumable store. Knows not how they are made.

A store is a folder of shards (`engine.store.shards`), whole videos each, and a ``manifest.json``. A shard appears all
at once or not at all, so that after any interruption what is there is whole. Reading asks for a complete manifest, and
gives the videos in the order of their ids, whatever the order of writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import StoreError
from engine.files import exclusive, written_aside
from engine.records import Descriptors, Failure, Role
from engine.store.challenge_npz import read_npz, write_npz
from engine.store.shards import (
    Fingerprint,
    read_fingerprints,
    read_num_dims,
    read_shard,
    write_shard,
    writer_number,
)

__all__ = [
    "Fingerprint",
    "StoreManifest",
    "StoreWriter",
    "check_same_dimensions",
    "read_descriptors",
    "read_manifest",
    "read_npz",
    "write_npz",
]

Json = Any

_MANIFEST = "manifest.json"
_LOCK = ".lock"
_SHARDS = "shard-*.parquet"
_ANEW = "extract into a new folder"


class StoreManifest(BaseModel):
    """What a store is: what decided its descriptors, their dimension, and whether all videos are there.

    ``shards`` (number of videos by file name) and ``failures`` are filled in when it is complete.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vsc-engine descriptors, version 1"] = "vsc-engine descriptors, version 1"
    complete: bool
    identity: dict[str, Json]
    num_dims: int | None = None
    shards: dict[str, int] = {}
    failures: tuple[Failure, ...] = ()


class StoreWriter:
    """Keeps a store while `ShardWriter`s, here or in other processes, write its shards.

    A context manager, made by `StoreWriter.open`. Whole shards stay whatever happens; only `finish` completes it.
    """

    def __init__(self, folder: Path, *, identity: dict[str, Json], lock: ExitStack) -> None:
        self._folder = folder
        self._manifest = _claim(folder, identity)
        self._shards: dict[Path, dict[str, Fingerprint]] = {}
        self._finished: dict[str, Fingerprint] = {}
        self._take_in(sorted(folder.glob(_SHARDS)))
        self._num_writers = max((writer_number(path) + 1 for path in self._shards), default=0)
        self._lock = lock.pop_all()

    @classmethod
    def open(cls, folder: Path, *, identity: Mapping[str, Json]) -> Self:
        """Start a store in a new or empty folder, or go on with one of the same ``identity``.

        ``identity``, which JSON can hold, is whatever decides the descriptors (engines, settings): results of different
        ones are never mixed. Raises ``StoreError`` for a folder with other things in it, another identity, a damaged
        shard, or while another process writes there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as lock:
            try:
                lock.enter_context(exclusive(folder / _LOCK))
            except BlockingIOError as error:
                raise StoreError(
                    f"another process is writing to {folder}; wait for it or choose another folder"
                ) from error
            return cls(folder, identity=json.loads(json.dumps(identity)), lock=lock)

    @property
    def finished(self) -> Mapping[str, Fingerprint]:
        """The videos that are safely on disk, with the fingerprints of their sources: a live view."""
        return MappingProxyType(self._finished)

    def discard(self, video_ids: Iterable[str]) -> None:
        """Remove finished videos, because their source changed or is gone."""
        unwanted = set(video_ids).intersection(self._finished)
        for path, videos in list(self._shards.items()):
            if unwanted.isdisjoint(videos):
                continue
            self._announce_change()
            rest = [video for video in read_shard(path) if video.descriptors.video_id not in unwanted]
            if rest:
                write_shard(path, rest)
                self._shards[path] = {key: value for key, value in videos.items() if key not in unwanted}
            else:
                path.unlink()
                del self._shards[path]
        for video_id in unwanted:
            del self._finished[video_id]

    def new_writer(self) -> int:
        """A number for a new `ShardWriter`. From here until `finish`, the store says that it is not complete."""
        self._announce_change()
        self._num_writers += 1
        return self._num_writers - 1

    def adopt(self) -> Mapping[str, Fingerprint]:
        """Take in the shards that were written since, and return `finished`.

        Raises ``StoreError`` for a shard with a video that is there already, or with another dimension.
        """
        self._take_in(sorted(set(self._folder.glob(_SHARDS)) - self._shards.keys()))
        return self.finished

    def finish(self, *, failures: Sequence[Failure] = ()) -> None:
        """Adopt what was written and mark the store complete; ``failures`` are kept in its manifest."""
        self.adopt()
        _remove_leftovers(self._folder)
        self._set_manifest(
            self._manifest.model_copy(
                update={
                    "complete": True,
                    "shards": {path.name: len(videos) for path, videos in sorted(self._shards.items())},
                    "failures": tuple(failures),
                }
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def _take_in(self, paths: Sequence[Path]) -> None:
        for path in paths:
            videos = read_fingerprints(path)
            repeated = self._finished.keys() & videos
            if repeated:
                raise StoreError(f"{path} repeats videos of other shards: {sorted(repeated)[:3]}; {_ANEW}")
            num_dims = read_num_dims(path)
            if num_dims != (self._manifest.num_dims or num_dims):
                raise StoreError(
                    f"{path} has descriptors of {num_dims} dimensions, the other shards have "
                    f"{self._manifest.num_dims}; {_ANEW}"
                )
            self._manifest = self._manifest.model_copy(update={"num_dims": num_dims})
            self._shards[path] = videos
            self._finished.update(videos)

    def _announce_change(self) -> None:
        manifest = StoreManifest(complete=False, identity=self._manifest.identity, num_dims=self._manifest.num_dims)
        if manifest != self._manifest:
            self._set_manifest(manifest)

    def _set_manifest(self, manifest: StoreManifest) -> None:
        _write_manifest(self._folder, manifest)
        self._manifest = manifest


def read_manifest(folder: Path) -> StoreManifest:
    """Read the manifest of a store, complete or not. Raises ``StoreError`` where there is none that fits."""
    path = folder / _MANIFEST
    try:
        return StoreManifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is not a descriptor store: it has no {_MANIFEST}") from error
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise StoreError(f"{path} is not the manifest of a descriptor store this version can read: {reason}") from error


def read_descriptors(path: Path, *, role: Role | None = None) -> list[Descriptors]:
    """Read a complete store (a folder), ordered by video id, or the challenge's ``.npz`` (see `read_npz`).

    Raises ``StoreError`` for anything else: missing, unfinished, damaged, NaN or infinity, a video in two shards.
    """
    if path.is_dir():
        return _read_store(path)
    if path.suffix == ".npz":
        return read_npz(path, role=role)
    raise StoreError(f"expected a descriptor store (a folder) or an .npz file, got {path}, which is neither")


def check_same_dimensions(queries: Sequence[Descriptors], references: Sequence[Descriptors]) -> None:
    """Raise ``StoreError`` unless there are videos on both sides and all descriptors have one dimension."""
    for role, videos in (("query", queries), ("reference", references)):
        if not videos:
            raise StoreError(f"there are no {role} descriptors to compare")
    expected = queries[0]
    num_dims = expected.descriptors.shape[1]
    for video in chain(queries, references):
        if video.descriptors.shape[1] != num_dims:
            raise StoreError(
                f"descriptors differ in dimension: {expected.video_id!r} has {num_dims}, {video.video_id!r} has "
                f"{video.descriptors.shape[1]}; make all of them with the same engines"
            )


def _claim(folder: Path, identity: dict[str, Json]) -> StoreManifest:
    """Make ``folder`` a store of this identity, or check that it is one."""
    if not (folder / _MANIFEST).exists():
        if any(entry.name != _LOCK and entry.suffix != ".aside" for entry in folder.iterdir()):
            raise StoreError(f"{folder} holds other files; choose a new or empty folder for the descriptors")
        _write_manifest(folder, StoreManifest(complete=False, identity=identity))
    manifest = read_manifest(folder)
    differing = [
        f"{key} (stored {manifest.identity.get(key)!r}, now {identity.get(key)!r})"
        for key in sorted({*manifest.identity, *identity})
        if manifest.identity.get(key) != identity.get(key)
    ]
    if differing:
        raise StoreError(
            f"{folder} holds descriptors of another origin, which cannot be mixed with new ones; different are "
            f"{', '.join(differing)}. Choose a new folder, or delete this one to start again"
        )
    _remove_leftovers(folder)
    return manifest


def _remove_leftovers(folder: Path) -> None:
    """What killed writers left half-written."""
    for leftover in folder.glob(".*.aside"):
        leftover.unlink()


def _write_manifest(folder: Path, manifest: StoreManifest) -> None:
    with written_aside(folder / _MANIFEST) as aside:
        aside.write_text(json.dumps(manifest.model_dump(), default=str, indent=1) + "\n", encoding="utf-8")


def _read_store(folder: Path) -> list[Descriptors]:
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise StoreError(
            f"{folder} is not complete: its extraction was interrupted or is still running; run the same command "
            "again, it goes on where it stopped"
        )
    found: dict[str, Descriptors] = {}
    for name, num_videos in manifest.shards.items():
        path = folder / name
        videos = [video.descriptors for video in read_shard(path)]
        repeated = [video.video_id for video in videos if video.video_id in found]
        if repeated:
            raise StoreError(f"{path} repeats videos of other shards: {repeated[:3]}; {_ANEW}")
        if len(videos) != num_videos or any(video.descriptors.shape[1] != manifest.num_dims for video in videos):
            raise StoreError(
                f"{path} does not fit the manifest: expected {num_videos} videos of {manifest.num_dims} dimensions; "
                f"{_ANEW}"
            )
        found.update((video.video_id, video) for video in videos)
    return [found[video_id] for video_id in sorted(found)]
