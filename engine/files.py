"""The one door to storage: files replaced all at once, arrays without pickles, locks between processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from engine.errors import RemoteError, not_written
from engine.storage.location import Location, RemotePath

_CANNOT_FLUSH = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))
_DAMAGE = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
    RuntimeError,  # said to be encrypted, or packed by an unknown method
    *(MemoryError, OverflowError),  # said to be larger than any memory
    *(SyntaxError, TokenError),  # NumPy reads old headers as Python
)


@contextmanager
def written_aside(path: Location) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there replaces ``path`` when the block ends.

    Of an object the temporary path is on this machine, and what was written there is uploaded.

    The folder is made if needed. File and folder entry are flushed to the disk before the block returns. If the block
    raises, the temporary file is removed and ``path`` stays as it was.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="vsc-engine-") as folder:
            aside = Path(folder) / path.name
            with writing(aside):
                yield aside
            path.upload(aside)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        with writing(path, aside):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            flush_to_disk(aside)
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


@contextmanager
def writing(path: Path, *others: Path) -> Iterator[None]:
    """Say that ``path`` cannot be written in each ``OSError`` of the block that names it, one of ``others`` or no file.

    That of a full disk names none.
    """
    try:
        yield
    except OSError as error:
        place = error.filename2 or error.filename
        if error.errno is None or place not in (None, *map(str, (path, *others))):
            raise
        raise not_written(error, path) from error


def flush_to_disk(path: Path) -> None:
    """Wait until the bytes of a file, or the entries of a folder, are on the disk.

    Some mounts (network shares, FUSE) cannot flush a folder; what is in it is then as safe as they make it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Location, *, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` against all other processes; it is made if needed, and stays.

    ``on_wait`` is called once if another process holds it, and then it is waited for; without ``on_wait`` this raises
    ``BlockingIOError`` instead.

    An object in place of a lock file is there while somebody holds it; a process that is killed leaves it. Nobody waits
    for one: ``RemoteError`` says who made it.
    """
    if isinstance(path, RemotePath):
        with _exclusive_object(path):
            yield
        return
    lock = FileLock(path)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        if on_wait is None:
            raise BlockingIOError(f"another process holds {path}") from None
        on_wait()
        held = lock.acquire()
    with held:
        yield


@contextmanager
def _exclusive_object(path: RemotePath) -> Iterator[None]:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    holder = f"process {os.getpid()} of {socket.gethostname()} since {now}"
    if not path.create(json.dumps({"holder": holder}).encode()):
        try:
            found = json.loads(path.read_bytes())["holder"]
        except (RemoteError, ValueError, TypeError, KeyError):
            found = "a process that does not say which"
        raise RemoteError(f"{path} is held by {found}; wait for it, or remove this object if that process is gone")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of the bytes of a file. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_arrays(path: Location) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file by name.

    Raises ``ValueError`` with one line that says why not: no such file, not an archive, damaged, or an array of Python
    objects, which only unpickling (running code out of the file) could read.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file")
    source = path if isinstance(path, Path) else path.open("rb")
    if not zipfile.is_zipfile(source):
        raise ValueError(f"{path} is not a NumPy .npz archive, or was cut short")
    arrays = {}
    try:
        with np.load(source, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = np.asarray(archive[name])
    except ValueError as error:
        if "Object arrays" in str(error):
            raise ValueError(
                f"{path}: array {name!r} holds Python objects, which only unpickling could read, and that may run any "
                "code; save it again with a plain dtype (strings as dtype 'U')"
            ) from error
        raise ValueError(f"{path} is damaged: {error}") from error
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return arrays


def save_arrays(path: Location, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` as an uncompressed ``.npz``; the same arrays give the same bytes."""
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
