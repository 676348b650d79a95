"""The tables of a catalogue: videos, in LanceDB, and the rows of their descriptors, not normalized, where they lie.

A video is what the table of videos says, and that table is written last. Each time a video is described its rows get a
revision of their own, a number that rises and is never used again; one commit to the table of videos makes a revision
count or stop counting. So rows without a video are no damage: a writer that was killed left them (orphans), or they
are about to be committed or removed. Writers exclude each other elsewhere; readers need no lock.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from engine.catalog.lance import KEPT_VERSIONS, among, made_table, opened_table, readable, writable
from engine.catalog.lance_rows import LanceRows
from engine.catalog.manifest import MilvusRowsAt
from engine.catalog.records import CatalogVideo
from engine.catalog.rows import ALL_REVISIONS, Rows, RowStore
from engine.errors import StoreError
from engine.records import Descriptors, FloatArray
from engine.storage.location import Location, location
from engine.store.shards import Fingerprint

_VIDEOS, _CHECKSUM = "videos", "entry_sha256"
_VIDEOS_AT_ONCE = 256
_SHOT_ENDS = pa.field("shot_ends_s", pa.list_(pa.float64()))
"""Of the table of videos; tables of older versions do not have it, and stay as they are."""


@dataclass(frozen=True)
class Entry:
    """A video as the table holds it: with the revision of its rows, and their checksum."""

    video: CatalogVideo
    revision: int
    rows_sha256: str


@dataclass(frozen=True)
class Version:
    """A state of the tables. ``videos`` rises with every change of them.

    ``indexed_through``: the highest revision up to which a search finds all rows; None where it finds none.
    """

    videos: int
    indexed_through: int | None


class Tables:
    """The tables of a folder, each at the version that it was opened at or refreshed to.

    ``milvus``: where the rows lie if not in the folder.
    """

    def __init__(self, folder: Location, videos: Any, rows: RowStore) -> None:
        self._folder = folder
        self._videos = videos
        self._rows = rows
        self._last_revision = 0
        self._read_entries: dict[str, Entry] = {}  # by checksum

    @classmethod
    def create(cls, folder: Location, *, num_dims: int, milvus: MilvusRowsAt | None = None) -> Self:
        """Make empty tables; what a killed `create` left is taken. Raises ``StoreError`` where they hold anything."""
        videos = made_table(folder, _VIDEOS, _videos_schema())
        if milvus is None:
            return cls(folder, videos, LanceRows.create(folder, num_dims=num_dims))
        from engine.catalog.milvus_rows import MilvusRows

        return cls(folder, videos, MilvusRows.create(folder, milvus, num_dims=num_dims))

    @classmethod
    def open(cls, folder: Location, *, num_dims: int, milvus: MilvusRowsAt | None = None) -> Self:
        """Open what `create` made. Raises ``StoreError`` for tables that are missing, damaged or of other columns."""
        videos = opened_table(folder, _VIDEOS, _videos_schema(), added=[_SHOT_ENDS.name])
        if milvus is None:
            return cls(folder, videos, LanceRows.open(folder, num_dims=num_dims))
        from engine.catalog.milvus_rows import MilvusRows

        return cls(folder, videos, MilvusRows.open(folder, milvus, num_dims=num_dims))

    def refresh(self) -> Version:
        """Go to the newest versions. Raises ``StoreError``, as all methods do, for damage and for a disk that fails."""
        # In this order: the rows hold all that the videos speak of, unless a newer version of the videos dropped it.
        with readable(self._folder, _VIDEOS):
            self._videos.checkout_latest()
            version = int(self._videos.version)
        indexed_through = self._rows.refresh()
        if indexed_through != ALL_REVISIONS:
            self._last_revision = max(self._last_revision, indexed_through or 0)
        return Version(version, indexed_through)

    def begin_writing(self) -> None:
        """For the one writer, before it changes anything. Raises ``StoreError`` where the rows have another writer."""
        self._rows.begin_writing()

    def new_revision(self) -> int:
        """A number above those of all videos and of the index, whatever the clock says. For the one writer.

        `refresh` and `entries` go before it.
        """
        self._last_revision = max(self._last_revision + 1, time.time_ns())
        return self._last_revision

    def entries(self) -> dict[str, Entry]:
        """All videos by id, sorted. Raises ``StoreError`` for a damaged table, and for an id that is there twice.

        Entries that the last call gave are not made again, so that few changes of many videos are soon read.
        """
        with readable(self._folder, _VIDEOS):
            table = self._videos.to_arrow()
            checksums = table[_CHECKSUM].to_pylist()
            new = pa.array([checksum not in self._read_entries for checksum in checksums], pa.bool_())
            made = {values[_CHECKSUM]: _entry(values) for values in table.filter(new).to_pylist()}
        self._read_entries = {checksum: made.get(checksum) or self._read_entries[checksum] for checksum in checksums}
        found = sorted(self._read_entries.values(), key=lambda entry: entry.video.video_id)
        entries = {entry.video.video_id: entry for entry in found}
        self._last_revision = max([self._last_revision, *(entry.revision for entry in found)])
        if len(entries) != len(checksums):
            raise StoreError(f"the table of videos of {self._folder} holds an id twice; restore it from a copy")
        return entries

    def damaged_entries(self) -> set[str]:
        """The ids of videos of which the table says other things than what was written, by a checksum of each."""
        with readable(self._folder, _VIDEOS):
            found = self._videos.to_arrow().to_pylist()
        return {values["video_id"] for values in found if _values_sha256(values) != values[_CHECKSUM]}

    def read_rows(self, revisions: Collection[int] | None = None) -> dict[int, Rows]:
        """The rows of some revisions, or of all; one without all its rows is left out. Raises ``StoreError``."""
        return self._rows.read(revisions)

    def nearest(self, queries: FloatArray, *, k: int, known: Collection[int]) -> set[int]:
        """The revisions, of those ``known``, with one of the ``k`` rows of highest cosine of any query row.

        ``queries``: float32 ``(Q, D)``. Only rows in the index are found, and approximately. Raises ``StoreError``.
        """
        known, orphans = set(known), set[int]()
        while True:
            found = self._rows.nearest(queries, k=k, without=orphans)
            unknown = found - known
            if not unknown:
                return found
            orphans |= unknown  # they took the places of rows that count

    def check_index(self) -> None:
        """Raise ``StoreError`` unless the index can be read. Its contents are not compared with anything."""
        self._rows.check_index()

    def num_indexed_rows(self) -> int:
        """Rows in the index, 0 where there is none."""
        return self._rows.num_indexed()

    def commit(self, described: Sequence[tuple[Entry, Descriptors]]) -> None:
        """Add videos with all their rows, in place of those with the same ids; readers see all of it or nothing."""
        self._rows.add([(entry.revision, video) for entry, video in described])
        self.put([entry for entry, _ in described])

    def put(self, entries: Sequence[Entry]) -> None:
        """Write entries, whose rows are there, in place of those with the same ids."""
        schema = self._videos.schema
        if _SHOT_ENDS.name not in schema.names:
            entries = [replace(entry, video=replace(entry.video, shot_ends_s=None)) for entry in entries]
        with writable(self._folder):
            table = pa.Table.from_pylist([_values(entry) for entry in entries], schema=schema)
            self._videos.merge_insert("video_id").when_matched_update_all().when_not_matched_insert_all().execute(table)

    def remove(self, revisions: Collection[int]) -> None:
        """Take videos away, all at once; their rows become orphans."""
        with writable(self._folder):
            self._videos.delete(among(revisions))

    def remove_orphans(self) -> None:
        """Delete rows that belong to no video. For the one writer: those of another would look the same."""
        orphans = self.orphans()
        if orphans:
            self._rows.delete(orphans)

    def orphans(self) -> dict[int, int]:
        """How many rows there are of each revision that belongs to no video."""
        with readable(self._folder, _VIDEOS):
            table = self._videos.search().select(["revision", "num_rows"]).to_arrow()
            known = dict(zip(table["revision"].to_pylist(), table["num_rows"].to_pylist(), strict=True))
        return self._rows.orphans(known)

    def tend(self, *, index_above: int, merge: bool = False) -> None:
        """Keep searches fast, for the one writer: index the rows if there are more than ``index_above``, and bring the
        index up to date and merge small files if that is due, or at once with ``merge``. Frees what nobody reads.
        """
        self._rows.tend(index_above=index_above, merge=merge)
        with writable(self._folder):
            self._videos.optimize(cleanup_older_than=KEPT_VERSIONS)

    def copy_rows(self, folder: Path, *, num_dims: int) -> None:
        """Write the rows of all videos into a folder that has none, in LanceDB.

        Raises ``StoreError`` where rows of a video are missing.
        """
        entries, copies = list(self.entries().values()), LanceRows.create(folder, num_dims=num_dims)
        for start in range(0, len(entries), _VIDEOS_AT_ONCE):
            some = entries[start : start + _VIDEOS_AT_ONCE]
            found = self.read_rows([entry.revision for entry in some])
            copies.add([(entry.revision, described(entry, found.get(entry.revision))) for entry in some])


def described(entry: Entry, rows: Rows | None) -> Descriptors:
    """A video with its rows, as the engines gave them. Raises ``StoreError`` where rows are missing."""
    video_id = entry.video.video_id
    if rows is None or len(rows.descriptors) != entry.video.num_rows:
        raise StoreError(f"rows of '{video_id}' are missing in the catalogue; remove it and add it again")
    return Descriptors(video_id, rows.timestamps, rows.descriptors, shot_ends_s=entry.video.shot_ends_s)


def _videos_schema() -> pa.Schema:
    return pa.schema(
        [
            pa.field("video_id", pa.string(), nullable=False),
            pa.field("revision", pa.int64(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("duration_s", pa.float64(), nullable=False),
            pa.field("num_rows", pa.int64(), nullable=False),
            pa.field("warnings", pa.list_(pa.string()), nullable=False),
            pa.field("rows_sha256", pa.string(), nullable=False),
            pa.field("size_bytes", pa.int64()),
            pa.field("mtime_ns", pa.int64()),
            pa.field(_CHECKSUM, pa.string(), nullable=False),
            _SHOT_ENDS,
        ]
    )


def _values(entry: Entry) -> dict[str, Any]:
    video, fingerprint = entry.video, entry.video.fingerprint
    values = {
        "video_id": video.video_id,
        "revision": entry.revision,
        "path": str(video.path),
        "sha256": video.sha256,
        "duration_s": video.duration_s,
        "num_rows": video.num_rows,
        "warnings": list(video.warnings),
        "rows_sha256": entry.rows_sha256,
        "size_bytes": fingerprint and fingerprint.size_bytes,
        "mtime_ns": fingerprint and fingerprint.mtime_ns,
        _SHOT_ENDS.name: None if video.shot_ends_s is None else list(video.shot_ends_s),
    }
    return {**values, _CHECKSUM: _values_sha256(values)}


def _values_sha256(values: Mapping[str, Any]) -> str:
    """Of all columns of an entry but the checksum itself, and but shot ends that are not known."""
    left_out = {_CHECKSUM} if values.get(_SHOT_ENDS.name) else {_CHECKSUM, _SHOT_ENDS.name}
    text = json.dumps({key: value for key, value in values.items() if key not in left_out}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(values: dict[str, Any]) -> Entry:
    size_bytes, mtime_ns, shot_ends_s = values["size_bytes"], values["mtime_ns"], values.get(_SHOT_ENDS.name)
    return Entry(
        CatalogVideo(
            video_id=values["video_id"],
            path=location(values["path"]),
            sha256=values["sha256"],
            duration_s=values["duration_s"],
            num_rows=values["num_rows"],
            warnings=tuple(values["warnings"]),
            fingerprint=None if size_bytes is None else Fingerprint(size_bytes, mtime_ns),
            shot_ends_s=None if shot_ends_s is None else tuple(shot_ends_s),
        ),
        revision=values["revision"],
        rows_sha256=values["rows_sha256"],
    )
