"""The rows of a catalogue in a collection of Milvus, which keeps them, and finds the nearest.

A row is an entity with its revision, number, times and descriptor; its key is made of revision and number, so that what
is sent twice is there once. The collection is read as it is at the moment of asking, after all that was written before,
so that rows which the table of videos speaks of are seen. It is made with an exact index (FLAT) for cosines, in place
of which Milvus may be told to use another.

The collection belongs to one folder. Both hold the same id; and each time somebody begins to write, a number that rises
goes into ``milvus.json`` in the folder, then into the collection's properties. If that of the collection is the higher
one, a copy of the folder was used to write, or this is an old one, and its table of videos speaks of other rows.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Self, TypeVar

import numpy as np

from engine.catalog.manifest import MANIFEST_NAME, MILVUS_STATE, MilvusRowsAt
from engine.catalog.rows import ALL_REVISIONS, Rows, by_revision
from engine.errors import BackendUnavailable, ConfigError, EngineError, RemoteError, StoreError
from engine.files import written_aside
from engine.records import Descriptors, FloatArray
from engine.storage.location import Location

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it tells of every connection that ends

try:
    import grpc
    from pymilvus import DataType, MilvusClient, MilvusException
    from pymilvus.client.types import LoadState
except ImportError as _error:
    raise BackendUnavailable("rows in Milvus need pymilvus: pip install 'vsc-engine[milvus]'") from _error

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with a traceback

_Item = TypeVar("_Item")

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 600.0

_TOKEN = "MILVUS_TOKEN"  # noqa: S105 - the name of the variable
_CATALOGUE, _WRITTEN_THROUGH = "vsc_engine.catalogue", "vsc_engine.written_through"
_VECTOR = "descriptor"
_OUTPUT = ["revision", "row", "start_s", "end_s", _VECTOR]
_NEWEST = {"consistency_level": "Strong", "timeout": REQUEST_TIMEOUT_S}
_QUERY_BLOCK = 256
# Servers take messages of 64 MiB, and as many entities in an answer.
_MESSAGE_BYTES = 16 << 20
_MAX_ENTITIES = 16_384
_MAX_LISTED = 1000
_MISSING = 100


class MilvusRows:
    """A `engine.catalog.rows.RowStore` in a collection of Milvus. Several threads may ask at once.

    Raises ``RemoteError`` for a server that does not answer, or not to this user, and ``StoreError`` for all else that
    is wrong there, with one line each.
    """

    def __init__(self, folder: Location, place: MilvusRowsAt, *, num_dims: int) -> None:
        """Connect. Nothing is asked yet."""
        self._folder = folder
        self._place = place
        self._num_dims = num_dims
        # A connection of its own: pymilvus shares one between clients of an address, be it with TLS or without, and
        # gRPC tries a server that was gone again only after a pause that all connections to it have in common.
        with self._one_line("reach", timeout_s=CONNECT_TIMEOUT_S):
            self._client = MilvusClient(
                place.uri,
                token=os.environ.get(_TOKEN, ""),
                timeout=CONNECT_TIMEOUT_S,
                dedicated=True,
                grpc_options={"grpc.use_local_subchannel_pool": 1},
            )
        weakref.finalize(self, self._client.close)

    @classmethod
    def create(cls, folder: Location, place: MilvusRowsAt, *, num_dims: int) -> Self:
        """Make the empty collection of `new_place`; what a killed `create` left is taken, if it is empty."""
        if not (folder / MILVUS_STATE).is_file():
            _write_state(folder, catalogue=_id(place), written_through=0)
        rows = cls(folder, place, num_dims=num_dims)
        with rows._one_line("make", timeout_s=LOAD_TIMEOUT_S):
            if not rows._client.has_collection(place.collection, timeout=REQUEST_TIMEOUT_S):
                rows._create_collection()
        rows._check()
        if rows.num_indexed():
            raise StoreError(
                f"the collection {place.collection} in Milvus at {place.uri} holds rows already, of a catalogue that "
                f"lost its catalog.json; restore that file in {folder}"
            )
        return rows

    @classmethod
    def open(cls, folder: Location, place: MilvusRowsAt, *, num_dims: int) -> Self:
        """Open what `create` made. Raises ``StoreError`` where it is missing, or another's."""
        rows = cls(folder, place, num_dims=num_dims)
        rows._check()
        return rows

    def refresh(self) -> int | None:
        """See `RowStore.refresh`: what is asked later is asked of the newest state, and finds all rows.

        The collection is loaded again where it is not loaded any more, as after the server was started anew.
        """
        with self._one_line("read", timeout_s=LOAD_TIMEOUT_S):
            state = self._client.get_load_state(self._place.collection, timeout=REQUEST_TIMEOUT_S)["state"]
            if state != LoadState.Loaded:
                self._client.load_collection(self._place.collection, timeout=LOAD_TIMEOUT_S)
        return ALL_REVISIONS

    def begin_writing(self) -> None:
        """See `RowStore.begin_writing`. Raises ``StoreError`` if a copy of this folder has written meanwhile."""
        self._check_writer(self._described())
        state = _read_state(self._folder)
        # Above what is there, whatever the clock says. In this order: a kill in between does not lock anybody out.
        number = max(int(state["written_through"]) + 1, time.time_ns())
        _write_state(self._folder, catalogue=state["catalogue"], written_through=number)
        with self._one_line("write"):
            self._client.alter_collection_properties(
                self._place.collection, {_WRITTEN_THROUGH: str(number)}, timeout=REQUEST_TIMEOUT_S
            )

    def add(self, described: Sequence[tuple[int, Descriptors]]) -> None:
        """See `RowStore.add`."""
        entities = (_entity(revision, row, video) for revision, video in described for row in range(len(video)))
        with self._one_line("write"):
            for block in _blocks(entities, size=self._entities_per_message):
                self._client.upsert(self._place.collection, block, timeout=REQUEST_TIMEOUT_S)

    def read(self, revisions: Collection[int] | None) -> dict[int, Rows]:
        """See `RowStore.read`."""
        found: list[tuple[Any, ...]] = []
        with self._one_line("read"):
            for condition in ["revision >= 0"] if revisions is None else map(_among, _blocks(revisions)):
                found += map(_arrays, self._entities(condition, _OUTPUT))
        if not found:
            return {}
        of_row, numbers, times, descriptors = map(np.concatenate, zip(*found, strict=True))
        return by_revision(of_row, numbers, times, descriptors)

    def nearest(self, queries: FloatArray, *, k: int, without: Collection[int]) -> set[int]:
        """See `RowStore.nearest`. How near to the nearest they are is up to the index that Milvus uses."""
        found: set[int] = set()
        condition = f"revision not in {sorted(without)}" if without else ""
        with self._one_line("search"):
            for start in range(0, len(queries), _QUERY_BLOCK):
                answers = self._client.search(
                    self._place.collection,
                    data=list(queries[start : start + _QUERY_BLOCK]),
                    anns_field=_VECTOR,
                    limit=k,
                    filter=condition,
                    output_fields=["revision"],
                    **_NEWEST,
                )
                found.update(int(hit["entity"]["revision"]) for answer in answers for hit in answer)
        return found

    def num_indexed(self) -> int:
        """See `RowStore.num_indexed`."""
        with self._one_line("read"):
            answer = self._client.query(self._place.collection, filter="", output_fields=["count(*)"], **_NEWEST)
            return int(answer[0]["count(*)"])

    def check_index(self) -> None:
        """See `RowStore.check_index`."""
        self.nearest(np.ones((1, self._num_dims), dtype=np.float32), k=1, without=())

    def orphans(self, known: Mapping[int, int]) -> dict[int, int]:
        """See `RowStore.orphans`. None are looked for where there are as many rows as are known of."""
        if self.num_indexed() == sum(known.values()):
            return {}
        counts: Counter[int] = Counter()
        with self._one_line("read"):
            for condition in _not_among(sorted(known)):
                for entities in self._entities(condition, ["revision"]):
                    counts.update(int(entity["revision"]) for entity in entities)
        return dict(counts)

    def delete(self, revisions: Collection[int]) -> None:
        """See `RowStore.delete`."""
        with self._one_line("write"):
            for block in _blocks(revisions):
                self._client.delete(self._place.collection, filter=_among(block), timeout=REQUEST_TIMEOUT_S)

    def tend(self, *, index_above: int, merge: bool) -> None:
        """Nothing is to be done: Milvus tends its collections itself."""

    def _create_collection(self) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=40)
        schema.add_field("revision", DataType.INT64)
        schema.add_field("row", DataType.INT32)
        schema.add_field("start_s", DataType.FLOAT)
        schema.add_field("end_s", DataType.FLOAT)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=self._num_dims)
        indices = MilvusClient.prepare_index_params()
        indices.add_index(_VECTOR, index_type="FLAT", metric_type="COSINE")
        indices.add_index("revision", index_type="INVERTED")
        self._client.create_collection(
            self._place.collection,
            schema=schema,
            index_params=indices,
            consistency_level="Strong",
            properties={_CATALOGUE: _id(self._place), _WRITTEN_THROUGH: "0"},
            timeout=LOAD_TIMEOUT_S,
        )

    def _check(self) -> None:
        """That the collection is that of this folder, can be searched, and is loaded."""
        collection, uri = self._place.collection, self._place.uri
        described = self._described()
        if described["properties"].get(_CATALOGUE) != _read_state(self._folder)["catalogue"]:
            raise StoreError(
                f"the collection {collection} in Milvus at {uri} is of another catalogue than {self._folder}; restore "
                f"{MANIFEST_NAME} and {MILVUS_STATE}"
            )
        self._check_writer(described)
        num_dims = {field["name"]: field["params"].get("dim") for field in described["fields"]}.get(_VECTOR)
        if num_dims is None or int(num_dims) != self._num_dims:
            raise StoreError(
                f"the collection {collection} in Milvus at {uri} has vectors of {num_dims} dimensions, the catalogue "
                f"{self._folder} of {self._num_dims}; restore it from a copy"
            )
        with self._one_line("read", timeout_s=LOAD_TIMEOUT_S):
            names = self._client.list_indexes(collection, field_name=_VECTOR)
            metrics = {self._client.describe_index(collection, name)["metric_type"] for name in names}
            if metrics != {"COSINE"}:
                raise StoreError(
                    f"the collection {collection} in Milvus at {uri} needs an index of {_VECTOR} with the metric "
                    f"COSINE, and has {', '.join(sorted(metrics)) or 'none'}; make one with the tools of Milvus"
                )
            self._client.load_collection(collection, timeout=LOAD_TIMEOUT_S)

    def _described(self) -> Mapping[str, Any]:
        with self._one_line("read"):
            found: Mapping[str, Any] = self._client.describe_collection(
                self._place.collection, timeout=REQUEST_TIMEOUT_S
            )
            return found

    def _check_writer(self, described: Mapping[str, Any]) -> None:
        """``described`` was asked for before the file is read, as the file is written first."""
        through = int(described["properties"].get(_WRITTEN_THROUGH, 0))
        if through > int(_read_state(self._folder)["written_through"]):
            raise StoreError(
                f"{self._folder} is an older copy of a catalogue: another one has written to its collection "
                f"{self._place.collection} in Milvus at {self._place.uri} since; use that, and `vsc-engine catalog "
                "backup` to copy it"
            )

    @property
    def _entities_per_message(self) -> int:
        return max(1, min(_MAX_ENTITIES, _MESSAGE_BYTES // (4 * self._num_dims + 100)))

    def _entities(self, condition: str, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """All entities that a condition holds for, in parts."""
        size = self._entities_per_message if _VECTOR in fields else _MAX_ENTITIES
        iterator = self._client.query_iterator(
            self._place.collection, batch_size=size, filter=condition, output_fields=list(fields), **_NEWEST
        )
        try:
            while entities := iterator.next():
                yield entities
        finally:
            iterator.close()

    @contextmanager
    def _one_line(self, doing: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Iterator[None]:
        """Errors of the server, and of the way to it, as one line."""
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            raise self._told(error, doing, timeout_s) from error

    def _told(self, error: BaseException, doing: str, timeout_s: float) -> EngineError:
        uri, collection = self._place.uri, self._place.collection
        status = _status(error)
        if status is grpc.StatusCode.UNAUTHENTICATED:
            wants = "does not accept the token in" if os.environ.get(_TOKEN) else "asks for a token; put it into"
            return RemoteError(
                f"Milvus at {uri} {wants} the environment variable {_TOKEN}: an API key, or USER:PASSWORD"
            )
        if status is grpc.StatusCode.PERMISSION_DENIED:
            return RemoteError(f"Milvus at {uri} does not let the user of {_TOKEN} {doing} the collection {collection}")
        if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            tried = "does not answer" if status is grpc.StatusCode.UNAVAILABLE else f"did not answer in {timeout_s:g} s"
            return RemoteError(f"Milvus at {uri} {tried}; is it running, and is that its address?")
        if getattr(error, "code", None) == _MISSING:
            return StoreError(
                f"Milvus at {uri} has no collection {collection}, where the rows of the catalogue {self._folder} lie; "
                "restore it there, or use a copy that `vsc-engine catalog backup` made"
            )
        reason = str(getattr(error, "message", "") or error).strip().partition("\n")[0]
        return StoreError(f"cannot {doing} the collection {collection} in Milvus at {uri}: {reason}")


_URI = re.compile(r"https?://[^/@?#\s]+(/[A-Za-z0-9_]+)?/?")


def new_place(uri: str, folder: Location) -> MilvusRowsAt:
    """A new collection for the catalogue in a folder; that of a `create` that was killed there is named again.

    Raises ``ConfigError`` for anything but ``http[s]://HOST[:PORT][/DATABASE]``.
    """
    if not _URI.fullmatch(uri):
        without_secret = re.sub(r"(?<=//)[^/]*(?=@)|(?<=\?).*", "...", uri, flags=re.DOTALL)
        raise ConfigError(
            f"got {without_secret!r} as the address of Milvus, expected http[s]://HOST:PORT[/DATABASE]; a token or "
            f"USER:PASSWORD belongs into the environment variable {_TOKEN}"
        )
    state = folder / MILVUS_STATE
    catalogue = str(_read_state(folder)["catalogue"]) if state.is_file() else uuid.uuid4().hex
    return MilvusRowsAt(uri=uri.rstrip("/"), collection=f"{_PREFIX}{catalogue}")


_PREFIX = "vsc_engine_"


def _id(place: MilvusRowsAt) -> str:
    return place.collection.removeprefix(_PREFIX)


def _read_state(folder: Location) -> dict[str, Any]:
    path = folder / MILVUS_STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return {"catalogue": str(state["catalogue"]), "written_through": int(state["written_through"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}; restore the folder from a copy") from error


def _write_state(folder: Location, *, catalogue: str, written_through: int) -> None:
    with written_aside(folder / MILVUS_STATE) as aside:
        aside.write_text(json.dumps({"catalogue": catalogue, "written_through": written_through}), encoding="utf-8")


def _status(error: BaseException | None) -> grpc.StatusCode | None:
    """What gRPC said, of an error of pymilvus: it may be behind others, and be its own cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
        if isinstance(code, grpc.StatusCode):
            return code
        error = error.__cause__ if error.__cause__ is not error else error.__context__
    return None


def _entity(revision: int, row: int, video: Descriptors) -> dict[str, Any]:
    start_s, end_s = video.timestamps[row].tolist()
    return {
        "id": f"{revision}-{row}",
        "revision": revision,
        "row": row,
        "start_s": start_s,
        "end_s": end_s,
        _VECTOR: video.descriptors[row],
    }


def _arrays(entities: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    """Revisions, numbers, times and descriptors of entities, in the order given."""
    return (
        np.array([entity["revision"] for entity in entities], dtype=np.int64),
        np.array([entity["row"] for entity in entities], dtype=np.int32),
        np.array([(entity["start_s"], entity["end_s"]) for entity in entities], dtype=np.float32),
        np.array([entity[_VECTOR] for entity in entities], dtype=np.float32),
    )


def _among(revisions: Collection[int]) -> str:
    return f"revision in {list(revisions)}"


def _not_among(known: Sequence[int]) -> Iterator[str]:
    """Conditions that together hold for all revisions but those ``known``, which rise; each names a part of them."""
    lower, parts = 0, list(_blocks(known)) or [[]]
    for number, part in enumerate(parts, start=1):
        upper = f" and revision <= {part[-1]}" if number < len(parts) else ""
        yield f"revision > {lower}{upper}" + (f" and revision not in {part}" if part else "")
        lower = part[-1] if part else 0


def _blocks(items: Iterable[_Item], *, size: int = _MAX_LISTED) -> Iterator[list[_Item]]:
    """``items``, ``size`` at a time."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block
