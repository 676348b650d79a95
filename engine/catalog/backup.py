"""A whole catalogue copied, from a folder or an object store to either. The copy counts only when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from engine.catalog.manifest import MANIFEST_NAME, MILVUS_STATE
from engine.errors import RemoteError, StoreError, line_of
from engine.files import flush_to_disk
from engine.storage.location import Location

LOCK_NAME = ".lock"
"""Of the lock file, or object, of whoever writes to a catalogue."""


def copy_catalog(source: Location, target: Location, *, complete: Callable[[Path], None] | None = None) -> None:
    """Copy a catalogue that nobody writes to, without its lock and what a killed writer left.

    ``complete``: adds to a folder what lies elsewhere, before it counts.

    A folder appears when it is complete. Of objects the manifest is written last: until then they are no catalogue.
    Raises ``StoreError`` where ``target`` holds anything already, which could be mistaken for a part of the copy, and
    where a file cannot be copied; ``RemoteError`` where an object cannot be read or written.
    """
    if target.exists():
        raise StoreError(f"{target} exists already; choose a new place for the copy")
    try:
        if isinstance(target, Path):
            _copy_to_folder(source, target, complete=complete)
        else:
            for name, file in _files(source):
                with _on_this_machine(file) as path:
                    (target / name).upload(path)
    except RemoteError:
        raise
    except OSError as error:
        raise StoreError(f"the catalogue {source} was not copied to {target}: {line_of(error)}") from error


def _copy_to_folder(source: Location, target: Path, *, complete: Callable[[Path], None] | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.aside")
    try:
        for name, file in _files(source):
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file, Path):
                shutil.copy2(file, path)
            else:
                file.download(path)
            flush_to_disk(path)
        if complete is not None:
            complete(aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    flush_to_disk(target.parent)


@contextmanager
def _on_this_machine(file: Location) -> Iterator[Path]:
    """A file as it is, an object as a temporary file."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="vsc-engine-") as folder:
        path = Path(folder) / file.name
        file.download(path)
        yield path


def _files(folder: Location) -> Iterator[tuple[str, Location]]:
    """What is to be copied, by its place in the catalogue: the manifests last, those of shares before that of all."""
    if isinstance(folder, Path):
        found: dict[str, Location] = {
            path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()
        }
    else:
        found = {path.url.removeprefix(f"{folder.url.rstrip('/')}/"): path for path in folder.below()}

    def order(name: str) -> tuple[bool, int, str]:
        return PurePosixPath(name).name == MANIFEST_NAME, -name.count("/"), name

    for name in sorted(found, key=order):
        if PurePosixPath(name).name not in (LOCK_NAME, MILVUS_STATE) and not name.endswith(".aside"):
            yield name, found[name]
