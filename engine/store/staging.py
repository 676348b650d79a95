"""A store in an object store: written in the cache of this machine, and given back whole.

What is in the object store does not change until everything is there: shards are uploaded under names that hold their
checksums, so that none is ever replaced, and the manifest last. So a reader finds the store of before or that of after.
Shards that no manifest speaks of any more are removed by the next writer but one, for whoever still reads them.

One writer at a time: each is given the manifest as it was, and takes its place only if nobody has changed it meanwhile.
S3 and what keeps to its conditional writes decides that by itself; other stores are asked just before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import RemoteMissingError, StoreError
from engine.files import exclusive, writing, written_aside
from engine.storage.location import Location, RemotePath
from engine.store.store import MANIFEST_NAME, ShardRecord, StoreManifest, dump_manifest, read_manifest

logger = logging.getLogger(__name__)

_DIGITS = 16
_BASE = "base.json"
_UPLOADED = re.compile(r"shard-\d+-[0-9a-f]{8}\.parquet")
"""Names as `_remote_name` makes them: without a manifest, what a first upload left that was cut short."""


@contextmanager
def staged(folder: Location, *, cache: Callable[[], Path]) -> Iterator[Path]:
    """The folder to write a store in: ``folder``, or for one in an object store a copy of it below ``cache()``.

    The copy is uploaded when the block ends well, and then removed. After an error or a kill it stays, with all that
    was described, and the next writer on this machine goes on with it, if the store is still as it was. Raises
    ``RemoteError`` where the store cannot be read or written, and ``StoreError`` where another process of this machine
    writes it, or it changed meanwhile.
    """
    if isinstance(folder, Path):
        yield folder
        return
    staging = staging_folder(folder, cache=cache)
    staging.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(staging / ".lock"):
            base = _fetch(folder, staging)
            yield staging / "store"
            _give_back(staging / "store", folder, base=base)
            for path in (staging / "store", staging / _BASE):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except StoreError as error:
        raise StoreError(str(error).replace(str(staging / "store"), str(folder))) from error
    except BlockingIOError as error:
        raise StoreError(f"another process is writing to {folder}; wait for it or choose another folder") from error


def staging_folder(place: RemotePath, *, cache: Callable[[], Path]) -> Path:
    """The folder below ``cache()`` in which what is to be written to a URL is made; nothing makes it here."""
    return cache() / "stores" / hashlib.sha256(place.url.rstrip("/").encode()).hexdigest()[:_DIGITS]


def _fetch(folder: RemotePath, staging: Path) -> bytes | None:
    """Bring the copy to the state of the store, unless it is one of that state already; returns its manifest."""
    base: bytes | None = None
    try:
        base = (folder / MANIFEST_NAME).read_bytes()
    except RemoteMissingError:
        names = (path.url.removeprefix(f"{folder.url.rstrip('/')}/") for path in folder.below())
        if not all(map(_UPLOADED.fullmatch, names)):
            raise StoreError(
                f"{folder} holds other objects; choose a new or empty prefix for the descriptors"
            ) from None
    state, copy = {"manifest": base and base.decode(errors="replace")}, staging / "store"
    note = staging / _BASE
    if copy.is_dir() and note.is_file() and json.loads(note.read_text(encoding="utf-8")) == state:
        logger.info("%s: goes on with what was described before, in %s", folder, copy)
        return base
    shutil.rmtree(copy, ignore_errors=True)
    note.unlink(missing_ok=True)
    copy.mkdir()
    if base is not None:
        for name in read_manifest(folder).shards:
            with writing(copy / name):
                (copy / name).write_bytes((folder / name).read_bytes())
        with writing(copy / MANIFEST_NAME):
            (copy / MANIFEST_NAME).write_bytes(base)
    with written_aside(note) as aside:
        aside.write_text(json.dumps(state), encoding="utf-8")
    return base


def _give_back(copy: Path, folder: RemotePath, *, base: bytes | None) -> None:
    manifest = read_manifest(copy)
    names = {name: _remote_name(name, record) for name, record in manifest.shards.items()}
    there = {path.name for path in folder.below()}
    for name, remote_name in names.items():
        if remote_name not in there:
            (folder / remote_name).upload(copy / name)
    shards = {names[name]: record for name, record in manifest.shards.items()}
    content = dump_manifest(manifest.model_copy(update={"shards": shards})).encode()
    if content != base and not (folder / MANIFEST_NAME).replace(content, expected=base):
        raise StoreError(
            f"{folder} was changed by another process meanwhile; run the same command again: it describes "
            "anew what is not there by then"
        )
    before = set(StoreManifest.model_validate_json(base).shards) if base else set()
    for name in there - before - set(names.values()):
        if name.startswith("shard-") and name.endswith(".parquet"):
            (folder / name).unlink(missing_ok=True)


def _remote_name(name: str, record: ShardRecord | int) -> str:
    if isinstance(record, int):
        raise StoreError(f"{name} has no checksum: the store is not complete")
    return f"{'-'.join(Path(name).stem.split('-')[:2])}-{record.crc32:08x}.parquet"
