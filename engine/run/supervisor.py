"""Worker processes of this machine: gives out jobs, replaces workers that die, tries their videos again.

A worker that does not answer any more is ended, and its videos are those of one that died (`engine.run.job_queue`). So
it goes with a video that takes longer than its limit, but for the others that its worker had: they just go back.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, Self, TypeVar

from engine.errors import EngineError
from engine.run.job_queue import JobQueue
from engine.run.messages import HEARTBEAT_S, Alive, Broken, Done, Job, LogLine, Message, Ready, Result
from engine.run.signals import sigterm_is_an_exception
from engine.timing import total_by_stage

logger = logging.getLogger(__name__)

MAX_SILENCE_S = 120.0
"""A worker that sends nothing for so long, not even that it lives, is ended."""

_SILENCE_WHILE_LOADING = 5  # times that: libraries that load engines may keep all threads waiting
_MAX_FAILED_STARTS = 3
_GRACE_S = 10.0
_PROCESSES = multiprocessing.get_context("spawn")  # a forked process does not survive the threads of native libraries

Settings = TypeVar("Settings")


@dataclass(eq=False)
class _Worker:
    """A worker process as seen from here."""

    place: int
    process: BaseProcess
    connection: Connection
    is_ready: bool = False
    silent_s: float = 0.0
    running: dict[str, Job] = field(default_factory=dict)
    running_s: dict[str, float] = field(default_factory=dict)

    @property
    def overdue(self) -> list[Job]:
        """The jobs that take longer than they may."""
        return [job for video_id, job in self.running.items() if self.running_s[video_id] > job.limit_s]

    def give(self, job: Job) -> None:
        self.running[job.media.video_id] = job
        self.running_s[job.media.video_id] = 0.0
        try:
            self.connection.send(job)
        except OSError:  # it died, which is found when the end of its pipe is read
            logger.debug("worker %d is gone", self.place)


class Supervisor(Generic[Settings]):
    """An `Executor` of worker processes on this machine, one for each of ``settings``.

    ``serve`` is what a worker is started with: its end of a pipe, and its settings. ``jobs_at_once``: of one worker.
    ``max_silence_s``: see `MAX_SILENCE_S`.
    """

    def __init__(
        self,
        serve: Callable[[Connection, Settings], None],
        settings: Sequence[Settings],
        *,
        jobs_at_once: int,
        max_silence_s: float = MAX_SILENCE_S,
    ) -> None:
        self._max_silence_s = max_silence_s
        self._tick_s = min(HEARTBEAT_S, max_silence_s / 2)
        self._serve = serve
        self._settings = settings
        self._jobs_at_once = jobs_at_once
        self._workers: list[_Worker] = []
        self._queue = JobQueue(())
        self._num_failed_starts = 0
        self._said: set[str] = set()
        self._stages_s: dict[BaseProcess, dict[str, float]] = {}
        self._resources = ExitStack()

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds per stage, added up over all workers, those that died included."""
        return total_by_stage(self._stages_s.values())

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(sigterm_is_an_exception())
            stack.callback(self._stop)
            for place in range(len(self._settings)):
                self._workers.append(self._start(place))
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """See `Executor.run`. Raises ``EngineError`` where workers cannot even start, and what a worker says that no
        worker could get past.
        """
        self._queue = JobQueue(jobs)
        since_s = time.monotonic()
        while self._queue or any(worker.running for worker in self._workers):
            for worker in self._workers:
                self._give(worker)
            ready = wait([worker.connection for worker in self._workers], timeout=self._tick_s)
            now_s = time.monotonic()
            # Time in which this process stood still, too, is not held against its workers.
            passed_s, since_s = min(now_s - since_s, 2 * self._tick_s), now_s
            for worker in list(self._workers):
                for video_id in worker.running_s:
                    worker.running_s[video_id] += passed_s
                if worker.connection not in ready:
                    worker.silent_s += passed_s
                    yield from self._end_if_stuck(worker)
                    continue
                worker.silent_s = 0.0
                try:
                    message: Message = worker.connection.recv()
                except (EOFError, OSError):
                    yield from self._replace(worker)
                else:
                    yield from self._take(worker, message)

    def _start(self, place: int) -> _Worker:
        connection, theirs = _PROCESSES.Pipe()
        process = _PROCESSES.Process(
            target=self._serve,
            args=(theirs, self._settings[place]),
            name=f"worker {place}",
            daemon=True,
        )
        # The child is born with these signals blocked: until it ignores them it could only die of them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(place, process, connection)

    def _stop(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            if not worker.is_ready:  # it holds nothing, and would first load its engines
                worker.process.kill()
        deadline_s = time.monotonic() + _GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, deadline_s - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(_GRACE_S)

    def _give(self, worker: _Worker) -> None:
        """Hand a worker as much as it can take."""
        if worker.is_ready:
            for job in self._queue.take(worker.running.values(), at_once=self._jobs_at_once):
                worker.give(job)

    def _take(self, worker: _Worker, message: Message) -> Iterator[tuple[Job, Result]]:
        match message:
            case Alive():
                yield from self._end_if_stuck(worker)
            case Ready():
                worker.is_ready, self._num_failed_starts = True, 0
            case Done(video_id, result, stages_s):
                job = worker.running.pop(video_id)
                del worker.running_s[video_id]
                self._stages_s[worker.process] = stages_s
                yield job, result
            case LogLine(level, text):
                if text not in self._said:  # several workers choose the same backend
                    logger.log(level, "%s", text)
                self._said.add(text)
            case Broken(error):
                raise error

    def _end_if_stuck(self, worker: _Worker) -> Iterator[tuple[Job, Result]]:
        """End a worker that is silent for too long, or has a video that takes too long."""
        may_be_silent_s = self._max_silence_s * (1 if worker.is_ready else _SILENCE_WHILE_LOADING)
        overdue = worker.overdue
        if worker.silent_s <= may_be_silent_s and not overdue:
            return
        worker.process.kill()
        if worker.silent_s > may_be_silent_s:
            yield from self._replace(worker, death=f"did not answer for {worker.silent_s:.0f} s, was ended")
            return
        others = [job for job in worker.running.values() if job not in overdue]
        for job in others:
            del worker.running[job.media.video_id]
        self._queue.put_back(others)
        limits = ", ".join(f"{job.limit_s:.0f} s" for job in overdue)
        yield from self._replace(worker, death=f"took longer than the limit of {limits}, was ended", stage="timeout")

    def _replace(
        self, worker: _Worker, *, death: str | None = None, stage: str = "worker"
    ) -> Iterator[tuple[Job, Result]]:
        """Start another worker in the place of one that died, and decide what becomes of its videos."""
        worker.process.join(_GRACE_S)
        death = death or _describe_exit(worker.process.exitcode)
        if not worker.is_ready:
            self._num_failed_starts += 1
            if self._num_failed_starts == _MAX_FAILED_STARTS:
                raise EngineError(f"a worker {death} while it loaded the engines, {_MAX_FAILED_STARTS} times in a row")
        logger.warning(
            "worker %d %s and is replaced; it was working on: %s",
            worker.place,
            death,
            ", ".join(sorted(worker.running)) or "nothing",
        )
        yield from self._queue.blame(worker.running.values(), death=death, stage=stage)
        worker.connection.close()
        self._workers[worker.place] = self._start(worker.place)


def _describe_exit(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with status {exit_code}"
