"""Processes that write to a catalogue, and may kill themselves between any two operations on its tables."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tests.forked import PROCESSES, Forked


@dataclass(frozen=True)
class Writer:
    """A process that was started; it says when it has opened the catalogue, and how many operations it took in all."""

    process: Forked
    said: Connection


def write(
    folder: Path, action: Literal["add", "remove"], arguments: Sequence[Path | str], *, kill_after: int | None = None
) -> Writer:
    """Start a process that adds files, or removes ids, and kills itself after so many operations."""
    said, theirs = PROCESSES.Pipe(duplex=False)
    process = Forked(_write, folder, action, [*arguments], kill_after, theirs)
    theirs.close()
    return Writer(process, said)


def _write(folder: Path, action: str, arguments: Sequence[Any], kill_after: int | None, said: Connection) -> None:
    from engine.catalog.catalog import Catalog

    num_done = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal num_done
            result = call(*arguments, **options)
            num_done += 1
            if num_done == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run

    for owner, name in _operations(folder):
        setattr(owner, name, counted(getattr(owner, name)))
    catalog = Catalog.open(folder)
    said.send("open")
    if action == "add":
        catalog.add(arguments, rows_per_commit=20)
    else:
        catalog.remove(arguments)
    said.send(num_done)


def _operations(folder: Path) -> list[tuple[type, str]]:
    """The calls that change what lies on the disk or in a server."""
    from lancedb.merge import LanceMergeInsertBuilder
    from lancedb.table import LanceTable

    from engine.catalog.manifest import read_manifest

    of_tables = [(LanceTable, "add"), (LanceTable, "delete"), (LanceTable, "optimize")]
    of_tables.append((LanceMergeInsertBuilder, "execute"))
    if not read_manifest(folder).milvus:
        return of_tables
    from pymilvus import MilvusClient

    return of_tables + [(MilvusClient, name) for name in ("alter_collection_properties", "delete", "upsert")]
