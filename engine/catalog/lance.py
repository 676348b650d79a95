"""LanceDB, as the tables of a catalogue use it: how it is opened, and its errors as one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.errors import DISK_FULL, BackendUnavailable, RemoteError, StoreError
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
_GOOGLE = ("gs", "gcs")
# How errors of its clients of object stores read, of which there are two kinds, and what they hold.
_OF_STORES = ("Error performing ", "RetryError(")
_OF_CREDENTIALS = ("token request", "TokenRequest")
_CODES = re.compile(r"<Code>(\w+)</Code>|status(?: code)?: (\d{3})")
_OF_SYSTEM = re.compile(r"\(os error (\d+)\)")
_MISSING = "404"
_BROKEN = (RuntimeError, ValueError, OSError, pa.ArrowException)


def connected(folder: Location) -> Any:
    """The database of a folder, or of an object store, whose credentials LanceDB finds where its tools do."""
    if isinstance(folder, Path):
        return lancedb.connect(folder)
    options = _of_google() if folder.scheme in _GOOGLE else _of_others()
    url = f"gs://{folder.url.partition('://')[2]}" if folder.scheme in _GOOGLE else str(folder)
    return lancedb.connect(url, storage_options=options)


def _of_google() -> dict[str, str]:
    """The server in place of Google's that gcsfs finds in the environment; it is asked without a login."""
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if endpoint in ("", "default"):
        return {}
    endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
    # To ask it not to sign (google_skip_signature) is not enough: writing asks for credentials nevertheless.
    no_account = {"client_email": "", "private_key": "", "private_key_id": ""}
    account = {"gcs_base_url": endpoint, "disable_oauth": True, **no_account}
    return {"google_service_account_key": json.dumps(account), "allow_http": str(endpoint.startswith("http://"))}


def _of_others() -> dict[str, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://"))} if endpoint else {}


def opened_table(folder: Location, name: str, schema: pa.Schema, *, added: Collection[str] = ()) -> Any:
    """Open a table. Raises ``StoreError`` for one that is missing, damaged or of other columns.

    One that an older version made may lack the columns ``added``. As all that follows, it raises ``RemoteError`` for an
    object store that does not answer, or not to this user.
    """
    with readable(folder, name):
        table = connected(folder).open_table(name)
        missing = {name for name in added if name not in table.schema.names}
        if table.schema != pa.schema(field for field in schema if field.name not in missing):
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
    name = f"the table {folder / table}.lance"
    advice = f"restore the folder {folder} from a copy, or make a new catalogue"
    return one_line(f"{name} is damaged", advice=advice, refused=f"{name} cannot be read")


def writable(folder: Location) -> AbstractContextManager[None]:
    """Errors of writing tables as one line."""
    return one_line(f"cannot write the tables of the catalogue {folder}", advice="what was written before is whole")


@contextmanager
def one_line(what: str, *, advice: str, refused: str | None = None) -> Iterator[None]:
    """Errors of LanceDB as a ``StoreError`` of one line, without the places in its source.

    Those of an object store, which are no damage, are a ``RemoteError`` that begins with ``refused``, or with ``what``.
    """
    try:
        yield
    except Exception as error:
        # The class of what went wrong inside its Rust code has a name, but no module to import it from.
        if not isinstance(error, _BROKEN) and type(error).__name__ != "RustPanic":
            raise
        refusal = _refusal(str(error))
        if refusal is not None:
            raise RemoteError(f"{refused or what}: {refusal}") from error
        reason = str(error).splitlines()[0].partition(", /")[0].removeprefix("lance error: ")
        number = _OF_SYSTEM.search(reason)
        if number is not None and int(number[1]) in DISK_FULL:
            reason = f"{os.strerror(int(number[1]))}; make room there"
        raise StoreError(f"{what}: {reason}; {advice}") from error


def _refusal(said: str) -> str | None:
    """Why an object store gave nothing, by an error of LanceDB's; None for all else, and for an object that is gone."""
    if not any(sign in said for sign in _OF_STORES):
        return None
    if any(sign in said for sign in _OF_CREDENTIALS):
        return "no credentials were found; set GOOGLE_APPLICATION_CREDENTIALS"
    codes = sorted((code for pair in _CODES.findall(said) for code in pair if code), key=str.isdecimal)  # words first
    if not codes:
        return "the store does not answer; try again"
    from engine.storage.objects import reason_of

    reason = next(filter(None, map(reason_of, codes)), None)
    return reason or (None if _MISSING in codes else f"the store answered {codes[0]}; try again")


def among(revisions: Collection[int]) -> str:
    """The condition that a row, or a video, is of one of some revisions."""
    return f"revision IN ({', '.join(map(str, revisions))})"
