"""The jobs that wait, and what becomes of those whose worker died. Knows no processes and no machines.

When a worker dies, any of the videos it was working on may be the cause. Each of them is tried once more, alone in a
worker; the one that ends a worker again is given up, and no other video loses its result.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from engine.records import Failure
from engine.run.messages import Job


class JobQueue:
    """Gives out jobs in their order; of those that are not given out yet, at most one is drawn from ``jobs``."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._deaths: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether there are jobs to give out."""
        return bool(self._suspects) or self._has_next()

    def take(self, running: Collection[Job], *, at_once: int) -> list[Job]:
        """What a worker is given that has ``running`` and may have ``at_once``: one suspect alone, or the next jobs."""
        if any(job.is_alone for job in running):
            return []
        if self._suspects and not running:
            return [replace(self._suspects.popleft(), is_alone=True)]
        taken: list[Job] = []
        while len(running) + len(taken) < at_once and self._has_next():
            taken.append(self._waiting.popleft())
        return taken

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Take back jobs that are not to blame for the end of their worker."""
        for job in jobs:
            (self._suspects if job.is_alone else self._waiting).appendleft(job)

    def blame(self, jobs: Iterable[Job], *, death: str, stage: str) -> Iterator[tuple[Job, Failure]]:
        """Take back jobs that may have ended their worker; yields those that are given up."""
        for job in jobs:
            video_id = job.media.video_id
            self._deaths[video_id] += 1
            if self._deaths[video_id] == 1:
                self._suspects.append(job)
                continue
            reason = f"its worker process {death}; it was tried twice, the second time alone"
            yield job, Failure(video_id, job.media.path, stage, reason)

    def _has_next(self) -> bool:
        if not self._waiting:
            self._waiting.extend(islice(self._jobs, 1))
        return bool(self._waiting)
