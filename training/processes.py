"""Maps a function over items in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def in_processes(function: Callable[[T], Any], items: Sequence[T], *, num_workers: int) -> Iterator[Any]:
    """Results in the order of the items, computed in ``num_workers`` processes (1: in this one)."""
    if num_workers == 1:
        yield from map(function, items)
        return
    # Not forked: libraries that hold threads, such as OpenCV, do not survive it.
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, items)
