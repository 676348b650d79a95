"""Descriptors on disk: the one door to all formats, and our own resumable store. Knows not how they are made.

A store is a folder of shards (`engine.shards`), whole videos each, and a ``manifest.json``. A shard appears all at once
or not at all, so that after any interruption what is there is whole. Reading asks for a complete manifest, and gives
the videos in the order of their ids, whatever the order of writing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.atomic import written_aside
from engine.challenge_npz import read_npz, write_npz
from engine.errors import StoreError
from engine.records import Descriptors, Failure, Role
from engine.shards import Fingerprint, StoredVideo, read_fingerprints, read_shard, write_shard

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
    """Writes a store, video by video. A context manager, made by `StoreWriter.open`.

    Leaving the context in any way writes the whole videos that are still buffered; only `finish` completes the store.
    """

    def __init__(self, folder: Path, *, identity: dict[str, Json], rows_per_shard: int, lock: int) -> None:
        self._folder = folder
        self._rows_per_shard = rows_per_shard
        self._lock = lock
        self._manifest = _claim(folder, identity)
        self._shards = {path: read_fingerprints(path) for path in sorted(folder.glob("shard-*.parquet"))}
        self._finished = {key: value for videos in self._shards.values() for key, value in videos.items()}
        self._buffer: dict[str, StoredVideo] = {}
        self._num_buffered_rows = 0

    @classmethod
    def open(cls, folder: Path, *, identity: Mapping[str, Json], rows_per_shard: int = 16_384) -> Self:
        """Start a store in a new or empty folder, or go on with one of the same ``identity``.

        ``identity``, which JSON can hold, is whatever decides the descriptors (engines, settings): results of different
        ones are never mixed. Raises ``StoreError`` for a folder with other things in it, another identity, a damaged
        shard, or while another process writes there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            return cls(folder, identity=json.loads(json.dumps(identity)), rows_per_shard=rows_per_shard, lock=lock)
        except BaseException:
            os.close(lock)
            raise

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
            self._announce_change(num_dims=self._manifest.num_dims)
            rest = [video for video in read_shard(path) if video.descriptors.video_id not in unwanted]
            if rest:
                write_shard(path, rest)
                self._shards[path] = _fingerprints(rest)
            else:
                path.unlink()
                del self._shards[path]
        for video_id in unwanted:
            del self._finished[video_id]

    def add(self, descriptors: Descriptors, fingerprint: Fingerprint) -> None:
        """Take one whole video; writes a shard when enough rows are buffered.

        Raises ``StoreError`` for a video that is there already, or descriptors of another dimension.
        """
        video_id, num_dims = descriptors.video_id, descriptors.descriptors.shape[1]
        if video_id in self._finished or video_id in self._buffer:
            raise StoreError(f"{self._folder} holds video {video_id!r} already; discard it first to replace it")
        if num_dims != (self._manifest.num_dims or num_dims):
            raise StoreError(
                f"{video_id!r} has descriptors of {num_dims} dimensions, those in {self._folder} have "
                f"{self._manifest.num_dims}"
            )
        self._announce_change(num_dims=num_dims)
        self._buffer[video_id] = StoredVideo(descriptors, fingerprint)
        self._num_buffered_rows += len(descriptors)
        if self._num_buffered_rows >= self._rows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write the buffered videos, so that they survive an interruption."""
        if not self._buffer:
            return
        videos = list(self._buffer.values())
        last = max((int(path.stem.removeprefix("shard-")) for path in self._shards), default=-1)
        path = self._folder / f"shard-{last + 1:05d}.parquet"
        write_shard(path, videos)
        self._shards[path] = _fingerprints(videos)
        self._finished.update(self._shards[path])
        self._buffer, self._num_buffered_rows = {}, 0

    def finish(self, *, failures: Sequence[Failure] = ()) -> None:
        """Write what is buffered and mark the store complete; ``failures`` are kept in its manifest."""
        self.flush()
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
        try:
            self.flush()
        finally:
            os.close(self._lock)

    def _announce_change(self, *, num_dims: int | None) -> None:
        """From here until `finish`, the store on disk says that it is not complete."""
        manifest = StoreManifest(complete=False, identity=self._manifest.identity, num_dims=num_dims)
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


def _lock(folder: Path) -> int:
    """Take the folder for writing until the returned file descriptor is closed."""
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError(f"another process is writing to {folder}; wait for it or choose another folder") from error
    except OSError:
        # Some network file systems have no locks; then it is up to the user to write with one process only.
        pass
    return handle


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
    for leftover in folder.glob(".*.aside"):
        leftover.unlink()
    return manifest


def _write_manifest(folder: Path, manifest: StoreManifest) -> None:
    with written_aside(folder / _MANIFEST) as aside:
        aside.write_text(json.dumps(manifest.model_dump(), default=str, indent=1) + "\n", encoding="utf-8")


def _fingerprints(videos: Iterable[StoredVideo]) -> dict[str, Fingerprint]:
    return {video.descriptors.video_id: video.fingerprint for video in videos}


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
            raise StoreError(f"{path} repeats videos of other shards: {repeated[:3]}; extract into a new folder")
        if len(videos) != num_videos or any(video.descriptors.shape[1] != manifest.num_dims for video in videos):
            raise StoreError(
                f"{path} does not fit the manifest: expected {num_videos} videos of {manifest.num_dims} dimensions; "
                "extract into a new folder"
            )
        found.update((video.video_id, video) for video in videos)
    return [found[video_id] for video_id in sorted(found)]
