"""Seconds per stage of one run."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

Item = TypeVar("Item")


class StageTimes:
    """Wall-clock seconds that worker threads spent in each stage, added up over threads. Thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Add ``seconds`` to ``stage``."""
        with self._lock:
            self._seconds[stage] += seconds

    def as_dict(self) -> dict[str, float]:
        """Seconds by stage, in the order in which the stages were first left."""
        with self._lock:
            return dict(self._seconds)


def total_by_stage(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The seconds of several processes, added up by stage."""
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for stage, seconds in part.items():
            total[stage] += seconds
    return dict(total)


def stages_line(seconds: Mapping[str, float]) -> str:
    """Seconds by stage as one line for people."""
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    return f"seconds per stage, all workers: {stages or 'nothing to do'}"


class StageClock:
    """The stages of one video. Time inside a nested stage counts for that stage alone.

    ``now`` gives seconds, from any start. ``current`` names the running stage; after an exception it still names the
    stage that the exception left.
    """

    def __init__(self, times: StageTimes, *, now: Callable[[], float] = time.perf_counter) -> None:
        self._times = times
        self._now = now
        self._since_s = now()
        self.current = "open"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block for ``name``."""
        outer = self.current
        self._switch_to(name)
        yield
        self._switch_to(outer)

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items and count the time that producing them takes for ``name``."""
        iterator = iter(items)
        end = object()
        while True:
            with self.stage(name):
                item = next(iterator, end)
            if item is end:
                return
            yield cast(Item, item)

    def _switch_to(self, name: str) -> None:
        now_s = self._now()
        self._times.add(self.current, now_s - self._since_s)
        self._since_s, self.current = now_s, name
