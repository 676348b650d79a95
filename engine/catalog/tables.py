"""The two tables of a catalogue on disk, in LanceDB: videos, and the rows of their descriptors, not normalized.

A video is what the table of videos says, and that table is written last. Each time a video is described its rows get a
revision of their own, a number that rises and is never used again; one commit to the table of videos makes a revision
count or stop counting. So rows without a video are no damage: a writer that was killed left them (orphans), or they
are about to be committed or removed. Writers exclude each other elsewhere; readers need no lock.

Many rows have an approximate index. Bringing it up to date rewrites files, and LanceDB compares rows outside it slowly,
so that is done once for many rows: ``indexed.json`` says up to which revision all rows are in the index. The index is
asked about those alone, and whoever searches compares the recent rows by itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from engine.catalog.records import CatalogVideo
from engine.errors import BackendUnavailable, StoreError
from engine.files import written_aside
from engine.records import Descriptors, FloatArray
from engine.storage.location import Location, location
from engine.store.shards import Fingerprint

os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of nothing that a person could mend, such as empty partitions

try:
    import lancedb
    import pyarrow as pa
    import pyarrow.compute as pc
    from lancedb.index import IvfRq
except ImportError as _error:
    raise BackendUnavailable("a catalogue needs lancedb: pip install 'vsc-engine[catalog]'") from _error

logger = logging.getLogger(__name__)

_VIDEOS, _ROWS, _VECTOR = "videos", "rows", "descriptor"
_INDEXED, _CHECKSUM = "indexed.json", "entry_sha256"
_NUM_PROBES = 40
_ALL_PROBES = 1_000_000
_REFINE_FACTOR = 10
_QUERY_BLOCK = 256
# Rows that no index holds, before the index takes them: that rewrites up to a million rows, however few are new.
_MIN_RECENT_ROWS = 50_000
_RECENT_SHARE = 0.1
# An index keeps the partitions that it was trained with; of many more rows each would hold too many.
_MAX_GROWTH = 4
_MAX_SMALL_FRAGMENTS = 100
_MAX_LISTED = 1000
# Longer than a reader takes between looking at the newest version and having read it.
_KEPT_VERSIONS = timedelta(minutes=10)
_BROKEN = (RuntimeError, ValueError, OSError, pa.ArrowException)


@dataclass(frozen=True)
class Entry:
    """A video as the table holds it: with the revision of its rows, their checksum, and the state of its file.

    ``fingerprint`` is None for descriptors that came from a store or an ``.npz``.
    """

    video: CatalogVideo
    revision: int
    rows_sha256: str
    fingerprint: Fingerprint | None


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of one revision, in order: times float32 ``(N, 2)``, descriptors float32 ``(N, D)``."""

    timestamps: FloatArray
    descriptors: FloatArray


@dataclass(frozen=True)
class Version:
    """A state of the tables. ``videos`` rises with every change of them.

    ``indexed_through``: the highest revision up to which all rows are in the index; None where there is no index.
    """

    videos: int
    indexed_through: int | None


class Tables:
    """The tables in a folder, each at the version that it was opened at or refreshed to."""

    def __init__(self, folder: Location, videos: Any, rows: Any) -> None:
        self._folder = folder
        self._videos = videos
        self._rows = rows
        self._last_revision = 0
        self._read_entries: dict[str, Entry] = {}  # by checksum

    @classmethod
    def create(cls, folder: Location, *, num_dims: int) -> Self:
        """Make empty tables; what a killed `create` left is taken. Raises ``StoreError`` where they hold anything."""
        with _one_line(f"cannot make the tables of a catalogue in {folder}", advice="choose another folder"):
            database = _connected(folder)
            videos, rows = (
                database.create_table(name, schema=schema, exist_ok=True)
                for name, schema in ((_VIDEOS, _videos_schema()), (_ROWS, _rows_schema(num_dims)))
            )
            num_found = videos.count_rows() + rows.count_rows()
        if num_found:
            raise StoreError(f"{folder} holds the tables of a catalogue without its catalog.json; restore that file")
        return cls(folder, videos, rows)

    @classmethod
    def open(cls, folder: Location, *, num_dims: int) -> Self:
        """Open what `create` made. Raises ``StoreError`` for tables that are missing, damaged or of other columns."""
        schemas = {_VIDEOS: _videos_schema(), _ROWS: _rows_schema(num_dims)}
        tables = []
        for name, schema in schemas.items():
            with _readable(folder, name):
                table = _connected(folder).open_table(name)
                if table.schema != schema:
                    raise ValueError("it has other columns")
            tables.append(table)
        return cls(folder, *tables)

    def refresh(self) -> Version:
        """Go to the newest versions. Raises ``StoreError``, as all methods do, for damage and for a disk that fails."""
        # In this order: the rows hold all that the videos speak of, unless a newer version of the videos dropped it,
        # and the index all that the file speaks of.
        indexed_through = self._read_indexed().get("indexed_through")
        with self._readable(_VIDEOS):
            self._videos.checkout_latest()
            version = int(self._videos.version)
        with self._readable(_ROWS):
            self._rows.checkout_latest()
            if indexed_through is not None and not self._rows.list_indices():
                indexed_through = None
        self._last_revision = max(self._last_revision, indexed_through or 0)
        return Version(version, indexed_through)

    def _read_indexed(self) -> dict[str, int]:
        """What `_note_indexed` wrote; empty where there is no index. ``num_trained`` may be absent in older ones."""
        path = self._folder / _INDEXED
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            return {"indexed_through": int(facts["indexed_through"]), **{n: int(v) for n, v in facts.items()}}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged: {error}; delete it, and the next `vsc-engine catalog add` indexes the rows anew"
            ) from error

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
        with self._readable(_VIDEOS):
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
        with self._readable(_VIDEOS):
            found = self._videos.to_arrow().to_pylist()
        return {values["video_id"] for values in found if _values_sha256(values) != values[_CHECKSUM]}

    def read_rows(self, revisions: Collection[int] | None = None) -> dict[int, Rows]:
        """The rows of some revisions, or of all; one without rows is left out. Raises ``StoreError``."""
        with self._readable(_ROWS):
            query = self._rows.search()
            if revisions is not None and len(revisions) <= _MAX_LISTED:
                query = query.where(_among(revisions))
            elif revisions is not None:
                query = query.where(f"revision BETWEEN {min(revisions)} AND {max(revisions)}")
            table = query.to_arrow()
            columns = [table[name].to_numpy() for name in ("revision", "row", "start_s", "end_s")]
            flat = table[_VECTOR].combine_chunks().flatten().to_numpy()
        of_row, number, start_s, end_s = columns
        descriptors = flat.reshape(len(of_row), -1)
        order = np.lexsort((number, of_row))
        if not np.array_equal(order, np.arange(len(order))):
            of_row, number, start_s, end_s = (column[order] for column in columns)
            descriptors = descriptors[order]
        times = np.stack([start_s, end_s], axis=1)
        found, starts = np.unique(of_row, return_index=True)
        stops = [*starts[1:].tolist(), len(of_row)]
        rows, wanted = {}, None if revisions is None else set(revisions)
        for revision, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True):
            is_whole = np.array_equal(number[start:stop], np.arange(stop - start))  # none is missing or there twice
            if is_whole and (wanted is None or revision in wanted):
                rows[revision] = Rows(times[start:stop], descriptors[start:stop])
        return rows

    def nearest(self, queries: FloatArray, *, k: int, known: Collection[int]) -> set[int]:
        """The revisions, of those ``known``, with one of the ``k`` rows of highest cosine of any query row.

        ``queries``: float32 ``(Q, D)``. Only rows in the index are found, and approximately. Raises ``StoreError``.
        """
        known, orphans = set(known), set[int]()
        while True:
            found = self._nearest(queries, k=k, without=orphans)
            unknown = found - known
            if not unknown:
                return found
            orphans |= unknown  # they took the places of rows that count

    def _nearest(self, queries: FloatArray, *, k: int, without: Collection[int]) -> set[int]:
        found: set[int] = set()
        with self._readable(_ROWS):
            for start in range(0, len(queries), _QUERY_BLOCK):
                query = self._rows.search(queries[start : start + _QUERY_BLOCK], vector_column_name=_VECTOR)
                query = query.distance_type("cosine").nprobes(_NUM_PROBES).refine_factor(_REFINE_FACTOR).limit(k)
                if without:
                    query = query.where(f"NOT ({_among(without)})", prefilter=True)
                table = query.fast_search().select(["revision", "_distance"]).to_arrow()
                found.update(table["revision"].unique().to_pylist())
        return found

    def check_index(self) -> None:
        """Raise ``StoreError`` unless all of the index can be read. Its contents are not compared with anything."""
        with self._readable(_ROWS):
            vector = np.ones(self._rows.schema.field(_VECTOR).type.list_size, dtype=np.float32)
            query = self._rows.search(vector, vector_column_name=_VECTOR).distance_type("cosine")
            query.nprobes(_ALL_PROBES).limit(1).fast_search().select(["revision", "_distance"]).to_arrow()

    def num_indexed_rows(self) -> int:
        """Rows in the approximate index, 0 where there is none."""
        with self._readable(_ROWS):
            return sum(int(index.num_indexed_rows or 0) for index in self._rows.list_indices())

    def commit(self, described: Sequence[tuple[Entry, Descriptors]]) -> None:
        """Add videos with all their rows, in place of those with the same ids; readers see all of it or nothing."""
        with self._writable():
            self._rows.add(_rows_table(described, schema=self._rows.schema))
        self.put([entry for entry, _ in described])

    def put(self, entries: Sequence[Entry]) -> None:
        """Write entries, whose rows are there, in place of those with the same ids."""
        with self._writable():
            table = pa.Table.from_pylist([_values(entry) for entry in entries], schema=self._videos.schema)
            self._videos.merge_insert("video_id").when_matched_update_all().when_not_matched_insert_all().execute(table)

    def remove(self, revisions: Collection[int]) -> None:
        """Take videos away, all at once; their rows become orphans."""
        with self._writable():
            self._videos.delete(_among(revisions))

    def remove_orphans(self) -> None:
        """Delete rows that belong to no video. For the one writer: those of another would look the same."""
        with self._readable(_VIDEOS):
            num_known = pc.sum(self._videos.search().select(["num_rows"]).to_arrow()["num_rows"]).as_py() or 0
        with self._readable(_ROWS):
            num_rows = self._rows.count_rows()
        # The files say how many there are; which they are takes reading a column of all rows.
        orphans = self.orphans() if num_rows != num_known else {}
        if orphans:
            with self._writable():
                self._rows.delete(_among(orphans))

    def orphans(self) -> dict[int, int]:
        """How many rows there are of each revision that belongs to no video."""
        with self._readable(_ROWS):
            revisions = self._rows.search().select(["revision"]).to_arrow()["revision"]
        with self._readable(_VIDEOS):
            known = self._videos.search().select(["revision"]).to_arrow()["revision"]
        orphans = revisions.filter(pc.invert(pc.is_in(revisions, value_set=known)))
        return {count["values"]: count["counts"] for count in orphans.value_counts().to_pylist()}

    def tend(self, *, index_above: int, merge: bool = False) -> None:
        """Keep searches fast, for the one writer: index the rows if there are more than ``index_above``, and bring the
        index up to date and merge small files if that is due, or at once with ``merge``. Frees what nobody reads.

        IVF_RQ takes dimensions that 8 divides; others have no index.
        """
        indexed_through = self.refresh().indexed_through
        with self._writable():
            num_rows = self._rows.count_rows()
            num_recent = self._rows.count_rows(indexed_through and f"revision > {indexed_through}")
            max_recent = max(_MIN_RECENT_ROWS, min(index_above, int(num_rows * _RECENT_SHARE)))
            is_due = indexed_through is not None and num_recent > max_recent
            num_trained = 0 if indexed_through is None else self._read_indexed().get("num_trained", index_above)
            can_index = self._rows.schema.field(_VECTOR).type.list_size % 8 == 0
            if can_index and num_rows > index_above and num_rows > num_trained * _MAX_GROWTH:
                self._rows.create_index(_VECTOR, config=IvfRq(distance_type="cosine"))
                num_trained, is_due = num_rows, False
                self._note_indexed(num_trained=num_trained)
            num_small = self._rows.stats()["fragment_stats"]["num_small_fragments"]
            if merge or is_due or num_small > _MAX_SMALL_FRAGMENTS:
                self._rows.optimize(cleanup_older_than=_KEPT_VERSIONS)
                self._note_indexed(num_trained=num_trained)
            self._videos.optimize(cleanup_older_than=_KEPT_VERSIONS)

    def _note_indexed(self, *, num_trained: int) -> None:
        """Say which rows are in the index, and how many it was trained for: all are, or nothing is said."""
        indices = self._rows.list_indices()
        if indices and not any(index.num_unindexed_rows for index in indices):
            revisions = self._rows.search().select(["revision"]).to_arrow()["revision"].to_numpy()
            through = int(revisions.max(initial=0))
            with written_aside(self._folder / _INDEXED) as aside:
                facts = {"indexed_through": through, "num_trained": num_trained}
                aside.write_text(json.dumps(facts), encoding="utf-8")

    def _readable(self, table: str) -> AbstractContextManager[None]:
        return _readable(self._folder, table)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        with _one_line(
            f"cannot write the tables of the catalogue {self._folder}", advice="what was written before is whole"
        ):
            yield


def _connected(folder: Location) -> Any:
    """The database of a folder, or of an object store, whose credentials LanceDB finds where its tools do."""
    if isinstance(folder, Path):
        return lancedb.connect(folder)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://"))} if endpoint else {}
    return lancedb.connect(str(folder), storage_options=options)


def _readable(folder: Location, table: str) -> AbstractContextManager[None]:
    advice = f"restore the folder {folder} from a copy, or make a new catalogue"
    return _one_line(f"the table {folder / table}.lance is damaged", advice=advice)


@contextmanager
def _one_line(what: str, *, advice: str) -> Iterator[None]:
    """Errors of LanceDB as a ``StoreError`` of one line, without the places in its source."""
    try:
        yield
    except Exception as error:
        # The class of what went wrong inside its Rust code has a name, but no module to import it from.
        if not isinstance(error, _BROKEN) and type(error).__name__ != "RustPanic":
            raise
        reason = str(error).splitlines()[0].partition(", /")[0].removeprefix("lance error: ")
        raise StoreError(f"{what}: {reason}; {advice}") from error


def _among(revisions: Iterable[int]) -> str:
    return f"revision IN ({', '.join(map(str, revisions))})"


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
        ]
    )


def _rows_schema(num_dims: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("revision", pa.int64(), nullable=False),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("start_s", pa.float32(), nullable=False),
            pa.field("end_s", pa.float32(), nullable=False),
            pa.field(_VECTOR, pa.list_(pa.float32(), num_dims), nullable=False),
        ]
    )


def _values(entry: Entry) -> dict[str, Any]:
    video, fingerprint = entry.video, entry.fingerprint
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
    }
    return {**values, _CHECKSUM: _values_sha256(values)}


def _values_sha256(values: Mapping[str, Any]) -> str:
    """Of all columns of an entry but the checksum itself."""
    text = json.dumps({key: value for key, value in values.items() if key != _CHECKSUM}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(values: dict[str, Any]) -> Entry:
    size_bytes, mtime_ns = values["size_bytes"], values["mtime_ns"]
    return Entry(
        CatalogVideo(
            video_id=values["video_id"],
            path=location(values["path"]),
            sha256=values["sha256"],
            duration_s=values["duration_s"],
            num_rows=values["num_rows"],
            warnings=tuple(values["warnings"]),
        ),
        revision=values["revision"],
        rows_sha256=values["rows_sha256"],
        fingerprint=None if size_bytes is None else Fingerprint(size_bytes, mtime_ns),
    )


def _rows_table(described: Sequence[tuple[Entry, Descriptors]], *, schema: pa.Schema) -> pa.Table:
    videos = [descriptors for _, descriptors in described]
    times = np.concatenate([video.timestamps for video in videos])
    rows = np.concatenate([video.descriptors for video in videos])
    columns = {
        "revision": np.repeat([entry.revision for entry, _ in described], [len(video) for video in videos]),
        "row": np.concatenate([np.arange(len(video), dtype=np.int32) for video in videos]),
        "start_s": times[:, 0],
        "end_s": times[:, 1],
        _VECTOR: pa.FixedSizeListArray.from_arrays(rows.ravel(), type=schema.field(_VECTOR).type),
    }
    return pa.table(columns, schema=schema)
