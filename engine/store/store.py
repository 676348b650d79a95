"""Descriptors on disk: the one door to all formats, and our own resumable store.

A store is a folder of shards (`engine.store.shards`), whole videos each, and a ``manifest.json``. A shard appears all
at once or not at all, and a journal keeps what is not in one yet, so that after any interruption what is there is
whole. Reading asks for a complete manifest, and gives the videos in the order of their ids, whatever that of writing.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import StoreError
from engine.files import exclusive, written_aside
from engine.records import Descriptors, Failure, Role
from engine.storage.location import Location
from engine.store.challenge_npz import read_npz
from engine.store.input_shard import InputShard
from engine.store.journal import Journal
from engine.store.shards import Fingerprint, StoreDtype, StoredVideo, read_index, read_shard, write_shard

Json = Any

ROWS_PER_SHARD = 16_384
MANIFEST_NAME = "manifest.json"
_LOCK = ".lock"
_SHARDS = "shard-*.parquet"
_JOURNAL = "journal"
_FORMAT_BEFORE = "vsc-engine descriptors, version 1"
_ANEW = "extract into a new folder"


class ShardRecord(BaseModel):
    """What the manifest knows of a shard: its number of videos, and the CRC-32 of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_videos: int
    crc32: int


class KnownBad(BaseModel):
    """A file that gave no descriptors for a reason that lies in its content, and would give none again.

    ``reader``: what tried to read it, with versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size_bytes: int
    mtime_ns: int
    reader: str
    failure: Failure


class StoreManifest(BaseModel):
    """What a store is: what decided its descriptors, their dimension, and whether all videos are there.

    ``shards``, by file name; in stores of version 2 the number of videos alone. ``failures``: the videos that gave
    nothing the last time, those of ``known_bad`` among the inputs included. ``shard``: the share of the inputs that the
    store is for; None for all of them. ``dtype``: the type in which descriptors are kept. What older versions do not
    know is written only where it is not the default, so that they can read all other stores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vsc-engine descriptors, version 2", "vsc-engine descriptors, version 3"] = (
        "vsc-engine descriptors, version 3"
    )
    complete: bool
    identity: dict[str, Json]
    num_dims: int | None = None
    shards: dict[str, ShardRecord | int] = {}
    failures: tuple[Failure, ...] = ()
    known_bad: tuple[KnownBad, ...] = ()
    shard: InputShard | None = None
    dtype: StoreDtype = "float32"

    @property
    def origin(self) -> str:
        """The identity and the dtype as one word, which every shard and every record of the journal repeats."""
        facts = json.dumps(self.identity, sort_keys=True)
        if self.dtype != "float32":  # the word of stores from before it could be chosen stays what it is
            facts += self.dtype
        return hashlib.sha256(facts.encode()).hexdigest()


class StoreWriter:
    """The one writer of a store: takes videos one by one, and each is on the disk when `add` returns.

    A context manager. ``finished``: the videos that are safely on disk, with the fingerprints of their files.
    ``known_bad``: files not worth another try, as `finish` was last told. Videos gather in a journal until they make a
    shard of ``rows_per_shard`` rows. What was added stays whatever happens; only `finish` completes the store. A new or
    empty folder starts a store; one of the same ``identity`` is gone on with. That is whatever decides the descriptors
    (engines, settings), as JSON can hold it: results of different ones are never mixed, and neither are those of
    different shares of the inputs (``shard``), nor rows of different ``dtype``: that of a new store is float32 unless
    another is given, and without one a store is gone on with in its own. Raises ``StoreError`` for a folder with other
    things in it, another identity, share or dtype, a damaged shard, or while another process writes there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        identity: Mapping[str, Json],
        shard: InputShard | None = None,
        dtype: StoreDtype | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._rows_per_shard = rows_per_shard
        self._shards: dict[Path, dict[str, Fingerprint]] = {}
        self.finished: dict[str, Fingerprint] = {}
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(folder / _LOCK))
            except BlockingIOError as error:
                raise StoreError(
                    f"another process is writing to {folder}; wait for it or choose another folder"
                ) from error
            self._manifest = _claim(folder, json.loads(json.dumps(identity)), shard=shard, dtype=dtype)
            self._num_dims = self._manifest.num_dims
            self._records = {key: value for key, value in self._manifest.shards.items() if (folder / key).exists()}
            self.known_bad = self._manifest.known_bad
            for path in sorted(folder.glob(_SHARDS)):
                self._take_in(path)
            self._journal = Journal(folder / _JOURNAL, origin=self._manifest.origin, dtype=self._manifest.dtype)
            stack.callback(self._journal.close)
            self._waiting = [video for video in self._journal.videos if video.descriptors.video_id not in self.finished]
            for video in self._waiting:
                self._check_num_dims(video.descriptors.descriptors.shape[1], source=f"'{video.descriptors.video_id}'")
            self._write_shard()
            self._resources = stack.pop_all()

    def add(self, descriptors: Descriptors, fingerprint: Fingerprint) -> None:
        """Take one whole video. Until `finish`, the store then says that it is not complete.

        Raises ``StoreError`` for a video that is there already, for another dimension than that of the others, and for
        values that the dtype of the store does not hold.
        """
        self._check_new(descriptors)
        self._announce_change()
        video = StoredVideo(descriptors, fingerprint)
        self._journal.append(video)
        self._take(video)

    def add_copies(self, videos: Iterable[StoredVideo]) -> None:
        """Take videos that are on the disk elsewhere: without a journal, and all in shards when this returns.

        Raises as `add` does.
        """
        for video in videos:
            self._check_new(video.descriptors)
            self._take(video)
        self._write_shard()

    def videos(self) -> Iterator[StoredVideo]:
        """Yield what was there when the store was opened, shard by shard."""
        for path in sorted(self._shards):
            yield from self._read_shard(path)

    def discard(self, video_ids: Iterable[str]) -> None:
        """Remove finished videos, because their source changed or is gone."""
        unwanted = set(video_ids).intersection(self.finished)
        if unwanted:
            self._write_shard()
        for path, videos in list(self._shards.items()):
            if unwanted.isdisjoint(videos):
                continue
            rest = [video for video in self._read_shard(path) if video.descriptors.video_id not in unwanted]
            self._records.pop(path.name, None)  # a kill may come between the new file and its record
            self._announce_change()
            if rest:
                self._keep_shard(path, rest)
                self._shards[path] = {key: value for key, value in videos.items() if key not in unwanted}
            else:
                path.unlink()
                del self._shards[path]
        for video_id in unwanted:
            del self.finished[video_id]

    def finish(self, *, failures: Sequence[Failure] = (), known_bad: Sequence[KnownBad] = ()) -> None:
        """Mark the store complete; ``failures`` and ``known_bad`` are kept in its manifest."""
        self._write_shard()
        _remove_leftovers(self._folder)
        self._set_manifest(
            self._manifest.model_copy(
                update={
                    "complete": True,
                    "format": StoreManifest.model_fields["format"].default,
                    "num_dims": self._num_dims,
                    "shards": {path.name: self._record(path) for path in sorted(self._shards)},
                    "failures": tuple(failures),
                    "known_bad": tuple(known_bad),
                }
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _check_new(self, descriptors: Descriptors) -> None:
        if descriptors.video_id in self.finished:
            raise StoreError(f"{self._folder} holds '{descriptors.video_id}' already; discard it first")
        self._check_num_dims(descriptors.descriptors.shape[1], source=f"'{descriptors.video_id}'")

    def _take(self, video: StoredVideo) -> None:
        self._waiting.append(video)
        self.finished[video.descriptors.video_id] = video.fingerprint
        if sum(len(item.descriptors) for item in self._waiting) >= self._rows_per_shard:
            self._write_shard()

    def _write_shard(self) -> None:
        """Make a shard of what waits in the journal, and empty that."""
        if self._waiting:
            self._announce_change()
            number = max((int(path.stem.split("-")[1]) + 1 for path in self._shards), default=0)
            path = self._folder / f"shard-{number:05d}.parquet"
            self._keep_shard(path, self._waiting)
            self._shards[path] = {video.descriptors.video_id: video.fingerprint for video in self._waiting}
            self.finished.update(self._shards[path])
            self._waiting = []
        self._journal.clear()

    def _keep_shard(self, path: Path, videos: Sequence[StoredVideo]) -> None:
        crc32 = write_shard(path, videos, origin=self._manifest.origin, dtype=self._manifest.dtype)
        self._records[path.name] = ShardRecord(num_videos=len(videos), crc32=crc32)

    def _read_shard(self, path: Path) -> list[StoredVideo]:
        return read_shard(path, origin=self._manifest.origin, crc32=_crc32(self._records.get(path.name)))

    def _record(self, path: Path) -> ShardRecord:
        """What is known of a shard; one of an older version, or of a writer that was killed, is read for it."""
        record = self._records.get(path.name)
        if isinstance(record, ShardRecord):
            return record
        self._read_shard(path)
        return ShardRecord(num_videos=len(self._shards[path]), crc32=zlib.crc32(path.read_bytes()))

    def _take_in(self, path: Path) -> None:
        num_dims, videos = read_index(path, origin=self._manifest.origin)
        repeated = self.finished.keys() & videos
        if repeated:
            raise StoreError(f"{path} repeats videos of other shards: {sorted(repeated)[:3]}; {_ANEW}")
        self._check_num_dims(num_dims, source=str(path))
        self._shards[path] = videos
        self.finished.update(videos)

    def _check_num_dims(self, num_dims: int, *, source: str) -> None:
        if self._num_dims not in (None, num_dims):
            raise StoreError(
                f"{source} has descriptors of {num_dims} dimensions, the other videos have {self._num_dims}; {_ANEW}"
            )
        self._num_dims = num_dims

    def _announce_change(self) -> None:
        changes = {"complete": False, "num_dims": self._num_dims, "shards": dict(self._records)}
        manifest = self._manifest.model_copy(update=changes)
        if manifest != self._manifest:
            self._set_manifest(manifest)

    def _set_manifest(self, manifest: StoreManifest) -> None:
        _write_manifest(self._folder, manifest)
        self._manifest = manifest


def read_manifest(folder: Location) -> StoreManifest:
    """Read the manifest of a store, complete or not. Raises ``StoreError`` where there is none that fits."""
    path = folder / MANIFEST_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("format") == _FORMAT_BEFORE:
            raise StoreError(
                f"{folder} was written by an older version of vsc-engine; describe its videos anew with "
                f"`vsc-engine extract VIDEOS --role {values['identity']['role']} --output NEW_FOLDER`"
            )
        return StoreManifest.model_validate(values)
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is not a descriptor store: it has no {MANIFEST_NAME}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise StoreError(f"{path} is not the manifest of a descriptor store this version can read: {reason}") from error


def read_descriptors(path: Location, *, role: Role | None = None) -> list[Descriptors]:
    """Read a complete store (a folder), ordered by video id, or the challenge's ``.npz`` (see `read_npz`).

    Raises ``StoreError`` for anything else: missing, unfinished, damaged, NaN or infinity, a video in two shards.
    """
    if path.is_dir():
        found = [video.descriptors for video in stored_videos(path)]
        return sorted(found, key=lambda descriptors: descriptors.video_id)
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
                f"descriptors differ in dimension: '{expected.video_id}' has {num_dims}, '{video.video_id}' has "
                f"{video.descriptors.shape[1]}; make all of them with the same engines"
            )


def identity_differences(stored: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """What two identities, as JSON has them, differ in, each with both values; nothing where they may be mixed."""
    return [
        f"{key} (stored {stored.get(key)!r}, now {now.get(key)!r})"
        for key in sorted({*stored, *now})
        if stored.get(key) != now.get(key)
    ]


def _claim(
    folder: Path, identity: dict[str, Json], *, shard: InputShard | None, dtype: StoreDtype | None
) -> StoreManifest:
    """Make ``folder`` a store of this identity, share of the inputs and dtype, or check that it is one."""
    if not (folder / MANIFEST_NAME).exists():
        if any(entry.name != _LOCK and entry.suffix != ".aside" for entry in folder.iterdir()):
            raise StoreError(f"{folder} holds other files; choose a new or empty folder for the descriptors")
        started = StoreManifest(complete=False, identity=identity, shard=shard, dtype=dtype or "float32")
        _write_manifest(folder, started)
    manifest = read_manifest(folder)
    differing = identity_differences(manifest.identity, identity)
    if differing:
        raise StoreError(
            f"{folder} holds descriptors of another origin, which cannot be mixed with new ones; different are "
            f"{', '.join(differing)}. Choose a new folder, or delete this one to start again"
        )
    if manifest.shard != shard:
        raise StoreError(
            f"{folder} holds {_share(manifest.shard)}, this run is for {_share(shard)}, and they are never mixed; "
            "choose another folder"
        )
    if dtype not in (None, manifest.dtype):
        raise StoreError(
            f"{folder} keeps descriptors as {manifest.dtype}, {dtype} was asked for, and they are never mixed; go on "
            f"with {manifest.dtype}, or choose another folder"
        )
    _remove_leftovers(folder)
    return manifest


def _share(shard: InputShard | None) -> str:
    return "all inputs" if shard is None else f"shard {shard} of vsc-engine {shard.version}"


def _crc32(record: ShardRecord | int | None) -> int | None:
    return record.crc32 if isinstance(record, ShardRecord) else None


def _remove_leftovers(folder: Path) -> None:
    """What killed writers left half-written."""
    for leftover in folder.glob(".*.aside"):
        leftover.unlink()


def dump_manifest(manifest: StoreManifest) -> str:
    """The text of ``manifest.json``."""
    defaults = {"shard": None, "dtype": "float32"}
    values = manifest.model_dump(exclude={name for name, value in defaults.items() if getattr(manifest, name) == value})
    return json.dumps(values, default=str, indent=1) + "\n"


def _write_manifest(folder: Path, manifest: StoreManifest) -> None:
    with written_aside(folder / MANIFEST_NAME) as aside:
        aside.write_text(dump_manifest(manifest), encoding="utf-8")


def read_complete_manifest(folder: Location) -> StoreManifest:
    """The manifest of a store whose extraction came to its end. Raises ``StoreError`` for any other."""
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise StoreError(
            f"{folder} is not complete: its extraction was interrupted or is still running; run the same command "
            "again, it goes on where it stopped"
        )
    return manifest


def stored_videos(folder: Location) -> Iterator[StoredVideo]:
    """Yield the videos of a complete store shard by shard; one shard is in memory at a time.

    Raises ``StoreError`` as `read_descriptors` does, for a damaged shard when its turn comes.
    """
    manifest = read_complete_manifest(folder)
    seen: set[str] = set()
    for name, record in manifest.shards.items():
        path = folder / name
        num_videos = record if isinstance(record, int) else record.num_videos
        videos = read_shard(path, origin=manifest.origin, crc32=_crc32(record))
        ids = [video.descriptors.video_id for video in videos]
        repeated = [video_id for video_id in ids if video_id in seen]
        if repeated:
            raise StoreError(f"{path} repeats videos of other shards: {repeated[:3]}; {_ANEW}")
        dims = {video.descriptors.descriptors.shape[1] for video in videos}
        if len(videos) != num_videos or dims != {manifest.num_dims}:
            raise StoreError(
                f"{path} does not fit the manifest: expected {num_videos} videos of {manifest.num_dims} dimensions; "
                f"{_ANEW}"
            )
        seen.update(ids)
        yield from videos
