"""Records as tables of Arrow and pandas, and tables of records as JSON lines and Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import BackendUnavailable, ConfigError, StoreError
from engine.records import CandidatePair, Descriptors, Match
from engine.storage.location import Location

_TYPES = {
    "str": pa.string(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "int | None": pa.int64(),
    "bool | None": pa.bool_(),
}


def to_arrow(records: Iterable[CandidatePair | Match | Descriptors], kind: type) -> pa.Table:
    """A table of candidates, matches or descriptors; ``kind`` is their class, which a table without rows needs, too.

    Candidates and matches have a row each, and the fields of the record as columns. Descriptors have one for each
    descriptor: ``video_id``, ``start_s``, ``end_s`` (float32 seconds), ``descriptor`` (a list of D float32),
    ``edit_score`` and ``gate`` of the video, and whether the row is ``blank``. Raises ``ConfigError`` for records of
    another class, and ``StoreError`` for descriptors of several dimensions.
    """
    rows = list(records)
    if kind not in (CandidatePair, Match, Descriptors):
        raise ConfigError(f"got the kind {kind!r}; expected CandidatePair, Match or Descriptors")
    other = next((row for row in rows if not isinstance(row, kind)), None)
    if other is not None:
        raise ConfigError(f"got a record of {type(other).__name__} among those of {kind.__name__}; expected one kind")
    if kind is Descriptors:
        return _descriptors([row for row in rows if isinstance(row, Descriptors)])
    schema = pa.schema([(field.name, _TYPES[str(field.type)]) for field in fields(kind)])
    return pa.Table.from_pylist([vars(row) for row in rows], schema=schema)


def to_pandas(records: Iterable[CandidatePair | Match | Descriptors], kind: type) -> Any:
    """The table of `to_arrow` as a ``pandas.DataFrame``; ``BackendUnavailable`` where pandas is not installed."""
    if importlib.util.find_spec("pandas") is None:
        raise BackendUnavailable("pandas is not installed; install it (`pip install pandas`), or use to_arrow")
    return to_arrow(records, kind).to_pandas()


def _descriptors(videos: Sequence[Descriptors]) -> pa.Table:
    num_dims = {video.descriptors.shape[1] for video in videos}
    if len(num_dims) > 1:
        raise StoreError(f"got descriptors of {sorted(num_dims)} dimensions; expected those of one preset")
    counts = [len(video) for video in videos]
    times = np.concatenate([np.empty((0, 2), np.float32), *(video.timestamps for video in videos)])
    values = np.concatenate([np.empty(0, np.float32), *(video.descriptors.ravel() for video in videos)])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values), num_dims.pop() if num_dims else 1)
    columns = {
        "video_id": pa.array(np.repeat(np.array([video.video_id for video in videos], object), counts), pa.string()),
        "start_s": pa.array(times[:, 0]),
        "end_s": pa.array(times[:, 1]),
        "descriptor": lists,
        "edit_score": pa.array([v.edit_score for v in videos for _ in range(len(v))], pa.float64()),
        "gate": pa.array([v.gate for v in videos for _ in range(len(v))], pa.string()),
        "blank": pa.array(
            [flag for v in videos for flag in ([None] * len(v) if v.blank is None else v.blank.tolist())], pa.bool_()
        ),
    }
    return pa.table(columns)


def write_parquet(path: Path, columns: Mapping[str, type], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to ``path``; ``columns``: name to ``str``, ``float``, ``int`` or ``bool``. None is null."""
    types = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema=schema)
    pq.write_table(table, path, write_page_checksum=True)


def read_parquet(path: Location) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a Parquet file, and its rows. Raises ``ValueError`` for a file that is missing or damaged."""
    try:
        with path.open("rb") as file:
            table = pq.read_table(file, page_checksum_verification=True)
        return table.column_names, table.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(str(error).splitlines()[0]) from error
