"""Brings videos into the tables of a catalogue, batch by batch, for the one writer; says what became of each."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engine.catalog.inputs import Inputs, check_utf8
from engine.catalog.records import AddReport, CatalogVideo
from engine.catalog.shares import Shares
from engine.catalog.tables import Entry, Tables
from engine.console import log_failure
from engine.errors import ConfigError
from engine.files import file_sha256
from engine.records import Descriptors, Failure, FloatArray, Media
from engine.storage.location import Location, RemotePath
from engine.store.shards import Fingerprint

Describe = Callable[[Sequence[Media]], Iterator[tuple[Media, Descriptors | Failure]]]

_ROWS_PER_COMMIT = 16_384
_SECONDS_PER_COMMIT = 10.0
_VIDEOS_AT_ONCE = 256


class Addition:
    """One `add`: takes what is not there yet, or changed, and commits it in batches. `finish` ends it.

    ``index_above``: as in `Shares.tend`. ``rows_per_commit``: a batch of so many rows is committed, or what there is
    after some seconds.
    """

    def __init__(self, shares: Shares, *, index_above: int, rows_per_commit: int | None = None) -> None:
        self._shares = shares
        self._index_above = index_above
        self._entries = shares.entries()
        self._rows_per_commit = rows_per_commit or _ROWS_PER_COMMIT
        self._waiting: list[tuple[Entry, Descriptors]] = []
        self._moved: list[Entry] = []
        self._last_commit_s = time.monotonic()
        self._kept: list[str] = []
        self._added: list[str] = []
        self._replaced: list[str] = []
        self._failures: list[Failure] = []

    def missing(self, inputs: Inputs) -> list[Media]:
        """The videos that must be described: those that are not there, and those whose file has other bytes now."""
        return [item for item in inputs.media if self._is_missing(item)]

    def _is_missing(self, item: Media) -> bool:
        try:
            path = _absolute(item.path)
        except ConfigError as error:
            self._fail(Failure(item.video_id, item.path, "add", str(error)))
            return False
        entry = self._entries.get(item.video_id)
        if entry is None:
            return True
        try:
            fingerprint = Fingerprint.of(path)
            if str(entry.video.path) == str(path) and entry.video.fingerprint == fingerprint:
                self._kept.append(item.video_id)
                return False
            sha256 = _sha256(path)
        except OSError:
            return True  # describing it will say why
        if sha256 and entry.video.sha256 == sha256:
            self._keep(entry, path=path, fingerprint=fingerprint)
            return False
        return self._may_replace(entry, path=path)

    def take_files(self, media: Sequence[Media], describe: Describe) -> Iterator[None]:
        """Describe and take videos; yields after each. A file that changes meanwhile is a failure."""
        before = {item.video_id: _fingerprint(item.path) for item in media}
        for item, result in describe(media):
            if isinstance(result, Failure):
                self._failures.append(result)
            else:
                self._take_file(item, result, fingerprint=before[item.video_id])
            yield

    def _take_file(self, item: Media, video: Descriptors, *, fingerprint: Fingerprint | None) -> None:
        sha256 = ""
        with suppress(OSError):
            sha256 = _sha256(item.path)
        if fingerprint is None or fingerprint != _fingerprint(item.path):
            reason = f"{item.path} changed while it was read; add it again when it is complete"
            self._fail(Failure(item.video_id, item.path, "read", reason))
        else:
            self._take_new(video, path=_absolute(item.path), sha256=sha256, fingerprint=fingerprint)

    def take_described(self, video: Descriptors, source: Location) -> None:
        """Take descriptors that were made before."""
        source, sha256 = _absolute(source), rows_sha256(video.timestamps, video.descriptors)
        entry = self._entries.get(video.video_id)
        if video.is_stopped:
            reason = f"{source} holds '{video.video_id}' as a query that an edit gate stopped, which is no reference"
            self._fail(Failure(video.video_id, source, "read", reason))
        elif entry is None or (entry.rows_sha256 != sha256 and self._may_replace(entry, path=source)):
            self._take_new(video, path=source, sha256=sha256, fingerprint=None)
        elif entry.rows_sha256 == sha256:
            self._kept.append(video.video_id)

    def take_copies(self, tables: Tables, entries: Sequence[Entry]) -> None:
        """Take videos of another catalogue with all that it knows of them."""
        for start in range(0, len(entries), _VIDEOS_AT_ONCE):
            wanted = [entry for entry in entries[start : start + _VIDEOS_AT_ONCE] if self._is_new(entry)]
            found = tables.read_rows([entry.revision for entry in wanted]) if wanted else {}
            for entry in wanted:
                rows, video = found.get(entry.revision), entry.video
                if rows is None or rows_sha256(rows.timestamps, rows.descriptors) != entry.rows_sha256:
                    reason = "its rows are damaged or missing in the catalogue that was named"
                    self._fail(Failure(video.video_id, video.path, "read", reason))
                else:
                    described = Descriptors(video.video_id, rows.timestamps, rows.descriptors)
                    self._take(described, video, rows_sha256=entry.rows_sha256)

    def _is_new(self, other: Entry) -> bool:
        entry = self._entries.get(other.video.video_id)
        if entry is not None and entry.rows_sha256 == other.rows_sha256:
            self._kept.append(other.video.video_id)
            return False
        return entry is None or self._may_replace(entry, path=other.video.path)

    def finish(self) -> AddReport:
        """Commit what waits; what became of everything."""
        self._commit()
        if self._moved:
            self._shares.put(self._moved)
        failures = sorted(self._failures, key=lambda failure: failure.video_id)
        added, replaced, kept = (tuple(sorted(ids)) for ids in (self._added, self._replaced, self._kept))
        return AddReport(added, replaced, kept, tuple(failures))

    def _may_replace(self, entry: Entry, *, path: Location) -> bool:
        if str(entry.video.path) == str(path):
            return True
        video_id = entry.video.video_id
        reason = (
            f"the id '{video_id}' is that of {entry.video.path} already, which has other contents; rename {path}, or "
            "remove the id first"
        )
        self._fail(Failure(video_id, path, "add", reason))
        return False

    def _fail(self, failure: Failure) -> None:
        log_failure(failure)
        self._failures.append(failure)

    def _keep(self, entry: Entry, *, path: Location, fingerprint: Fingerprint) -> None:
        """Keep a video whose bytes are known; where its file was moved or touched, the table learns of it."""
        self._moved.append(replace(entry, video=replace(entry.video, path=path, fingerprint=fingerprint)))
        self._kept.append(entry.video.video_id)

    def _take_new(self, video: Descriptors, *, path: Location, sha256: str, fingerprint: Fingerprint | None) -> None:
        known = CatalogVideo(
            video.video_id, path, sha256, video.duration_s, len(video), video.warnings, fingerprint, video.shot_ends_s
        )
        self._take(video, known, rows_sha256=rows_sha256(video.timestamps, video.descriptors))

    def _take(self, video: Descriptors, known: CatalogVideo, *, rows_sha256: str) -> None:
        self._waiting.append((Entry(known, self._shares.new_revision(), rows_sha256), video))
        num_waiting = sum(len(descriptors) for _, descriptors in self._waiting)
        if num_waiting >= self._rows_per_commit:
            self._commit()
            self._shares.tend(index_above=self._index_above)
        elif time.monotonic() - self._last_commit_s > _SECONDS_PER_COMMIT:
            self._commit()

    def _commit(self) -> None:
        if self._waiting:
            self._shares.commit(self._waiting)
            for entry, _ in self._waiting:
                video_id = entry.video.video_id
                (self._replaced if video_id in self._entries else self._added).append(video_id)
        self._waiting = []
        self._last_commit_s = time.monotonic()


def rows_sha256(timestamps: FloatArray, descriptors: FloatArray) -> str:
    """SHA-256 (hexadecimal) of the times, float32 ``(N, 2)``, and the descriptors, ``(N, D)``, of a video."""
    return hashlib.sha256(timestamps.tobytes() + descriptors.tobytes()).hexdigest()


def _sha256(path: Location) -> str:
    """Of the bytes of a file; empty for a remote one, whose version stands for them."""
    return file_sha256(path) if isinstance(path, Path) else ""


def _fingerprint(path: Location) -> Fingerprint | None:
    try:
        return Fingerprint.of(path)
    except OSError:
        return None


def _absolute(path: Location) -> Location:
    """The path from the root, because a catalogue is used from many folders. Raises ``ConfigError`` if not UTF-8."""
    if isinstance(path, RemotePath):
        return path
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links
    check_utf8(absolute)
    return absolute
