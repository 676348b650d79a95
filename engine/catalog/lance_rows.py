"""The rows of a catalogue in its folder, in LanceDB, with an approximate index where there are many.

Bringing the index up to date rewrites files, and LanceDB compares rows outside it slowly, so that is done once for many
rows: ``indexed.json`` says up to which revision all rows are in the index. The index is asked about those alone, and
whoever searches compares the recent rows by itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa

from engine.catalog.lance import (
    INDEX_BITS,
    KEPT_VERSIONS,
    among,
    index_config,
    key_config,
    made_table,
    opened_table,
    readable,
    writable,
)
from engine.catalog.rows import Rows, by_revision
from engine.errors import StoreError
from engine.files import written_aside
from engine.records import Descriptors, FloatArray
from engine.storage.location import Location

_ROWS, _VECTOR, _KEY = "rows", "descriptor", "revision"
_COLUMNS = (_KEY, "row", "start_s", "end_s")
_INDEXED = "indexed.json"
_MAX_PROBES, _MIN_PROBES = 40, 10
_ALL_PROBES = 1_000_000
_QUERY_BLOCK = 256
# Rows that no index holds, before the index takes them: that rewrites up to a million rows, however few are new.
_MIN_RECENT_ROWS = 50_000
_RECENT_SHARE = 0.1
# An index keeps the partitions that it was trained with; of many more rows each would hold too many.
_MAX_GROWTH = 4
_MAX_SMALL_FRAGMENTS = 100
_MAX_LISTED = 1000


class LanceRows:
    """A `engine.catalog.rows.RowStore` at the version that it was opened at or refreshed to."""

    def __init__(self, folder: Location, table: Any) -> None:
        self._folder = folder
        self._table = table
        self._num_probes = _MAX_PROBES

    @classmethod
    def create(cls, folder: Location, *, num_dims: int) -> Self:
        """Make an empty table; what a killed `create` left is taken. Raises ``StoreError`` where it holds anything."""
        return cls(folder, made_table(folder, _ROWS, _schema(num_dims)))

    @classmethod
    def open(cls, folder: Location, *, num_dims: int) -> Self:
        """Open what `create` made. Raises ``StoreError`` for a table that is missing, damaged or of other columns."""
        return cls(folder, opened_table(folder, _ROWS, _schema(num_dims)))

    def refresh(self) -> int | None:
        """See `RowStore.refresh`."""
        facts = self._read_indexed()  # first: the index holds all that it speaks of
        indexed_through = facts.get("indexed_through")
        with readable(self._folder, _ROWS):
            self._table.checkout_latest()
            self._num_probes = num_probes(self._table.count_rows(), num_trained=facts.get("num_trained"))
            has_index = indexed_through is not None and self._vector_indices()
        return indexed_through if has_index else None

    def begin_writing(self) -> None:
        """Nothing is to be done: what is in a folder belongs to one catalogue."""

    def add(self, described: Sequence[tuple[int, Descriptors]]) -> None:
        """See `RowStore.add`."""
        with writable(self._folder):
            self._table.add(_arrow_table(described, schema=self._table.schema))

    def read(self, revisions: Collection[int] | None) -> dict[int, Rows]:
        """See `RowStore.read`."""
        with readable(self._folder, _ROWS):
            query = self._table.search()
            if revisions is not None and len(revisions) <= _MAX_LISTED:
                query = query.where(among(revisions))
            elif revisions is not None:
                query = query.where(f"revision BETWEEN {min(revisions)} AND {max(revisions)}")
            table = query.to_arrow()
            if len(table) == 0:
                return {}
            of_row, number, start_s, end_s = (table[name].to_numpy() for name in _COLUMNS)
            flat = table[_VECTOR].combine_chunks().flatten().to_numpy()
        found = by_revision(of_row, number, np.stack([start_s, end_s], axis=1), flat.reshape(len(of_row), -1))
        wanted = None if revisions is None else set(revisions)
        return {revision: rows for revision, rows in found.items() if wanted is None or revision in wanted}

    def nearest(self, queries: FloatArray, *, k: int, without: Collection[int]) -> set[int]:
        """See `RowStore.nearest`. Only rows in the index are found."""
        found: set[int] = set()
        with readable(self._folder, _ROWS):
            for start in range(0, len(queries), _QUERY_BLOCK):
                query = self._table.search(queries[start : start + _QUERY_BLOCK], vector_column_name=_VECTOR)
                query = query.distance_type("cosine").nprobes(self._num_probes).limit(k)
                if without:
                    query = query.where(f"NOT ({among(without)})", prefilter=True)
                table = query.fast_search().select(["revision", "_distance"]).to_arrow()
                found.update(table["revision"].unique().to_pylist())
        return found

    def num_indexed(self) -> int:
        """See `RowStore.num_indexed`."""
        with readable(self._folder, _ROWS):
            return sum(int(index.num_indexed_rows or 0) for index in self._vector_indices())

    def check_index(self) -> None:
        """See `RowStore.check_index`: all of the index is read."""
        with readable(self._folder, _ROWS):
            vector = np.ones(self._num_dims(), dtype=np.float32)
            query = self._table.search(vector, vector_column_name=_VECTOR).distance_type("cosine")
            query.nprobes(_ALL_PROBES).limit(1).fast_search().select(["revision", "_distance"]).to_arrow()

    def orphans(self, known: Mapping[int, int]) -> dict[int, int]:
        """See `RowStore.orphans`. None are looked for, in all rows, where there are as many as are known of."""
        with readable(self._folder, _ROWS):
            if self._table.count_rows() == sum(known.values()):
                return {}
            counts = self._table.search().select(["revision"]).to_arrow()["revision"].value_counts().to_pylist()
        return {count["values"]: count["counts"] for count in counts if count["values"] not in known}

    def delete(self, revisions: Collection[int]) -> None:
        """See `RowStore.delete`."""
        with writable(self._folder):
            self._table.delete(among(revisions))

    def tend(self, *, index_above: int, merge: bool) -> None:
        """See `engine.catalog.tables.Tables.tend`."""
        indexed_through = self.refresh()
        with writable(self._folder):
            num_rows = self._table.count_rows()
            num_recent = self._table.count_rows(indexed_through and f"revision > {indexed_through}")
            max_recent = max(_MIN_RECENT_ROWS, min(index_above, int(num_rows * _RECENT_SHARE)))
            is_due = indexed_through is not None and num_recent > max_recent
            num_trained = 0 if indexed_through is None else self._num_trained(index_above)
            can_index = self._num_dims() % 8 == 0
            if can_index and num_rows > index_above and num_rows > num_trained * _MAX_GROWTH:
                self._table.create_index(_VECTOR, config=index_config())
                self._table.create_index(_KEY, config=key_config())
                num_trained, is_due = num_rows, False
                self._note_indexed(num_trained=num_trained)
            num_small = self._table.stats()["fragment_stats"]["num_small_fragments"]
            if merge or is_due or num_small > _MAX_SMALL_FRAGMENTS:
                self._table.optimize(cleanup_older_than=KEPT_VERSIONS)
                self._note_indexed(num_trained=num_trained)

    def _vector_indices(self) -> list[Any]:
        return [index for index in self._table.list_indices() if index.columns == [_VECTOR]]

    def _num_dims(self) -> int:
        return int(self._table.schema.field(_VECTOR).type.list_size)

    def _num_trained(self, index_above: int) -> int:
        """How many rows the index was trained with; 0 for one as they were made before, which is to be made anew."""
        facts = self._read_indexed()
        return facts.get("num_trained", index_above) if facts.get("num_bits") == INDEX_BITS else 0

    def _read_indexed(self) -> dict[str, int]:
        """What `_note_indexed` wrote; empty where there is no index. Older ones lack what came later."""
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

    def _note_indexed(self, *, num_trained: int) -> None:
        """Say which rows are in the index, and how many it was trained for: all are, or nothing is said."""
        indices = self._vector_indices()
        if indices and not any(index.num_unindexed_rows for index in indices):
            revisions = self._table.search().select(["revision"]).to_arrow()["revision"].to_numpy()
            through = int(revisions.max(initial=0))
            with written_aside(self._folder / _INDEXED) as aside:
                facts = {"indexed_through": through, "num_trained": num_trained, "num_bits": INDEX_BITS}
                aside.write_text(json.dumps(facts), encoding="utf-8")


def num_probes(num_rows: int, *, num_trained: int | None) -> int:
    """How many partitions of the index to search: of one that has grown fewer, for about as many rows."""
    share = 1.0 if num_trained is None or num_rows <= num_trained else num_trained / num_rows
    return max(_MIN_PROBES, round(_MAX_PROBES * share))


def _schema(num_dims: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("revision", pa.int64(), nullable=False),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("start_s", pa.float32(), nullable=False),
            pa.field("end_s", pa.float32(), nullable=False),
            pa.field(_VECTOR, pa.list_(pa.float32(), num_dims), nullable=False),
        ]
    )


def _arrow_table(described: Sequence[tuple[int, Descriptors]], *, schema: pa.Schema) -> pa.Table:
    videos = [video for _, video in described]
    times = np.concatenate([video.timestamps for video in videos])
    rows = np.concatenate([video.descriptors for video in videos])
    columns = {
        "revision": np.repeat([revision for revision, _ in described], [len(video) for video in videos]),
        "row": np.concatenate([np.arange(len(video), dtype=np.int32) for video in videos]),
        "start_s": times[:, 0],
        "end_s": times[:, 1],
        _VECTOR: pa.FixedSizeListArray.from_arrays(rows.ravel(), type=schema.field(_VECTOR).type),
    }
    return pa.table(columns, schema=schema)
