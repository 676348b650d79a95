"""LanceDB, as the tables of a catalogue use it: how it is opened, and its errors as one line."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.errors import BackendUnavailable, StoreError
from engine.storage.location import Location

os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of nothing that a person could mend, such as empty partitions

try:
    import lancedb
    import pyarrow as pa
    from lancedb.index import BTree, IvfRq
except ImportError as _error:
    raise BackendUnavailable("a catalogue needs lancedb: pip install 'vsc-engine[catalog]'") from _error

KEPT_VERSIONS = timedelta(minutes=10)
"""Longer than a reader takes between looking at the newest version and having read it."""

INDEX_BITS = 4
"""Of a dimension. With fewer, rows would have to be read to tell the nearest, which takes longer than all else."""

_ROWS_PER_PARTITION = 2048
_BROKEN = (RuntimeError, ValueError, OSError, pa.ArrowException)


def connected(folder: Location) -> Any:
    """The database of a folder, or of an object store, whose credentials LanceDB finds where its tools do."""
    if isinstance(folder, Path):
        return lancedb.connect(folder)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://"))} if endpoint else {}
    return lancedb.connect(str(folder), storage_options=options)


def opened_table(folder: Location, name: str, schema: pa.Schema) -> Any:
    """Open a table. Raises ``StoreError`` for one that is missing, damaged or of other columns."""
    with readable(folder, name):
        table = connected(folder).open_table(name)
        if table.schema != schema:
            raise ValueError("it has other columns")
    return table


def made_table(folder: Location, name: str, schema: pa.Schema) -> Any:
    """Make an empty table; what a killed writer left is taken. Raises ``StoreError`` for one that holds anything."""
    with one_line(f"cannot make the tables of a catalogue in {folder}", advice="choose another folder"):
        table = connected(folder).create_table(name, schema=schema, exist_ok=True)
        num_found = table.count_rows()
    if num_found:
        raise StoreError(f"{folder} holds the tables of a catalogue without its catalog.json; restore that file")
    return table


def index_config() -> Any:
    """What makes an approximate index for cosines. It takes dimensions that 8 divides."""
    return IvfRq(distance_type="cosine", num_bits=INDEX_BITS, target_partition_size=_ROWS_PER_PARTITION)


def key_config() -> Any:
    """What makes an index that finds rows by a whole number, without reading that of every row."""
    return BTree()


def readable(folder: Location, table: str) -> AbstractContextManager[None]:
    """Errors of reading a table as one line."""
    advice = f"restore the folder {folder} from a copy, or make a new catalogue"
    return one_line(f"the table {folder / table}.lance is damaged", advice=advice)


def writable(folder: Location) -> AbstractContextManager[None]:
    """Errors of writing tables as one line."""
    return one_line(f"cannot write the tables of the catalogue {folder}", advice="what was written before is whole")


@contextmanager
def one_line(what: str, *, advice: str) -> Iterator[None]:
    """Errors of LanceDB as a ``StoreError`` of one line, without the places in its source."""
    try:
        yield
    except Exception as error:
        # The class of what went wrong inside its Rust code has a name, but no module to import it from.
        if not isinstance(error, _BROKEN) and type(error).__name__ != "RustPanic":
            raise
        reason = str(error).splitlines()[0].partition(", /")[0].removeprefix("lance error: ")
        raise StoreError(f"{what}: {reason}; {advice}") from error


def among(revisions: Collection[int]) -> str:
    """The condition that a row, or a video, is of one of some revisions."""
    return f"revision IN ({', '.join(map(str, revisions))})"
