"""An `Executor` on a Ray cluster: an actor for each GPU or group of cores of each node, engines opened once by each.

Ray does not try a call again whose actor died (``max_restarts`` and ``max_task_retries`` are 0, and stay so): this
process has every job that is not done, and gives it to another actor. So nothing is done twice unseen, and a video that
ends its actors is known and given up (`engine.run.job_queue`). Videos of a node that is lost are not to blame: they go
back to the queue. Nodes that join later are taken in.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.errors import EngineError
from engine.records import Failure, Media
from engine.run.job_queue import JobQueue
from engine.run.messages import Broken, Done, Job, Ready, Result
from engine.run.plan import ClusterWorkers
from engine.run.ray_connection import connect, last_line
from engine.run.remote_worker import Answer
from engine.run.signals import sigterm_is_an_exception
from engine.storage.location import Location
from engine.timing import total_by_stage

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 600.0
"""How long there may be no actor at all that works: nodes join, actors wait for cores, engines load."""

MAX_LOST_NODES = 3
"""A video that was on so many nodes when they were lost is taken for the cause."""

_MAX_FAILED_STARTS = 3
_TICK_S = 1.0
_SECONDS_PER_LOOK = 5.0  # at which nodes there are

Settings = TypeVar("Settings")


class Works(Protocol):
    """What an actor is made of: see `engine.run.remote_worker.RemoteWorker`."""

    def start(self) -> Answer:
        """`Ready`, or why not."""

    def do(self, job: Job) -> Answer:
        """`Done`, or why nothing can be."""


@dataclass(frozen=True)
class _Place:
    """What one actor gets of a node. ``number`` counts the actors of the node."""

    node_id: str
    node_name: str
    number: int
    num_threads: int
    num_gpus: int


@dataclass(eq=False)
class _Actor:
    """An actor as seen from here. ``starting`` is the call of `Works.start` until it has answered."""

    place: _Place
    handle: Any
    starting: ray.ObjectRef | None
    running: dict[ray.ObjectRef, Job] = field(default_factory=dict)
    running_s: dict[ray.ObjectRef, float] = field(default_factory=dict)

    @property
    def overdue(self) -> list[Job]:
        """The jobs that take longer than they may."""
        return [job for ref, job in self.running.items() if self.running_s[ref] > job.limit_s]

    def give(self, job: Job) -> None:
        ref = self.handle.do.remote(replace(job, media=Media(job.media.video_id, _absolute(job.media.path))))
        self.running[ref] = job
        self.running_s[ref] = 0.0


class RayExecutor(Generic[Settings]):
    """See the module. ``make`` is what an actor is made of, ``settings`` what it is told, given its threads.

    At most as many jobs are under way, and as many results in memory here, as all actors have threads. Raises
    ``EngineError`` on entering, within `engine.run.ray_connection.CONNECT_TIMEOUT_S` where nothing answers at the
    address.
    """

    def __init__(
        self,
        make: Callable[[Settings], Works],
        settings: Callable[[int], Settings],
        *,
        workers: ClusterWorkers,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._make = make
        self._settings = settings
        self._cluster = workers
        self._start_timeout_s = start_timeout_s
        self._actors: dict[_Place, _Actor] = {}
        self._queue = JobQueue(())
        self._lost: Counter[str] = Counter()
        self._stages_s: dict[_Actor, dict[str, float]] = {}
        self._said: set[str] = set()
        self._num_failed_starts = 0
        self._idle_s = 0.0
        self._looked_s = 0.0
        self._resources = ExitStack()

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds per stage, added up over all actors, those that died included."""
        return total_by_stage(self._stages_s.values())

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(sigterm_is_an_exception())
            if not ray.is_initialized():
                connect(self._cluster.address)
                stack.callback(ray.shutdown)
            stack.callback(self._stop)
            self._look_at_nodes()
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """See `Executor.run`. Raises ``EngineError`` where no actor works for `START_TIMEOUT_S`, and what an actor says
        that no other could get past.
        """
        self._queue = JobQueue(jobs)
        since_s = time.monotonic()
        while self._queue or any(actor.running for actor in self._actors.values()):
            if time.monotonic() - self._looked_s > _SECONDS_PER_LOOK:
                self._look_at_nodes()
            for actor in self._actors.values():
                if actor.starting is None:
                    for job in self._queue.take(actor.running.values(), at_once=actor.place.num_threads):
                        actor.give(job)
            answered = self._wait()
            now_s = time.monotonic()
            # Time in which this process stood still is not held against the actors.
            passed_s, since_s = min(now_s - since_s, 2 * _TICK_S), now_s
            for actor in list(self._actors.values()):
                for ref in actor.running_s:
                    actor.running_s[ref] += passed_s
                yield from self._take_from(actor, answered)
            self._check_that_any_works(passed_s)

    def _wait(self) -> set[ray.ObjectRef]:
        """The calls that came to an end; waits for one, but not for long."""
        calls = [ref for actor in self._actors.values() for ref in (actor.starting, *actor.running) if ref is not None]
        if not calls:
            time.sleep(_TICK_S)
            return set()
        first, rest = ray.wait(calls, num_returns=1, timeout=_TICK_S)
        more, _ = ray.wait(rest, num_returns=len(rest), timeout=0) if first and rest else ([], [])
        return {*first, *more}

    def _take_from(self, actor: _Actor, answered: set[ray.ObjectRef]) -> Iterator[tuple[Job, Result]]:
        lost: exceptions.RayError | None = None
        for ref in [ref for ref in (actor.starting, *actor.running) if ref in answered]:
            try:
                answer: Answer = ray.get(ref)
            except exceptions.RayTaskError as error:
                raise EngineError(f"on node {actor.place.node_name}: {last_line(error)}") from error
            except exceptions.RayError as error:
                lost = error  # what it answered before is taken all the same
            else:
                yield from self._take(actor, ref, answer)
        if lost is not None:
            yield from self._replace(actor, lost)
            return
        overdue = actor.overdue
        if overdue:
            death = f"took longer than the limit of {', '.join(f'{job.limit_s:.0f} s' for job in overdue)}, was ended"
            self._end(actor, death)
            self._queue.put_back(job for job in actor.running.values() if job not in overdue)
            self._actors[actor.place] = self._start(actor.place)
            yield from self._queue.blame(overdue, death=death, stage="timeout")

    def _take(self, actor: _Actor, ref: ray.ObjectRef, answer: Answer) -> Iterator[tuple[Job, Result]]:
        for line in answer.log:
            if line.text not in self._said:  # several actors choose the same backend
                logger.log(line.level, "%s", line.text)
            self._said.add(line.text)
        match answer.message:
            case Ready():
                actor.starting, self._num_failed_starts = None, 0
            case Done(_, result, stages_s):
                del actor.running_s[ref]
                self._stages_s[actor] = stages_s
                job = actor.running.pop(ref)
                yield job, _as_named_here(result, job) if isinstance(result, Failure) else result
            case Broken(error):
                raise error

    def _replace(self, actor: _Actor, error: exceptions.RayError) -> Iterator[tuple[Job, Result]]:
        """Decide what becomes of the videos of an actor that died, and start another unless its node is gone, too."""
        death = _death(error)
        if death is None:
            self._end(actor, "was lost with it")
            yield from self._take_back(actor.running.values())
            return
        if actor.starting is not None:
            self._num_failed_starts += 1
            if self._num_failed_starts == _MAX_FAILED_STARTS:
                raise EngineError(
                    f"a worker on node {actor.place.node_name} {death} while it loaded the engines, "
                    f"{_MAX_FAILED_STARTS} times in a row"
                )
        self._end(actor, death)
        self._actors[actor.place] = self._start(actor.place)
        yield from self._queue.blame(actor.running.values(), death=death, stage="worker")

    def _take_back(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Nothing speaks against the videos of a node that is gone, unless they are on lost ones again and again."""
        for job in jobs:
            video_id = job.media.video_id
            self._lost[video_id] += 1
            if self._lost[video_id] < MAX_LOST_NODES:
                self._queue.put_back([job])
            else:
                reason = f"the node that worked on it was lost, {MAX_LOST_NODES} times"
                yield job, Failure(video_id, job.media.path, "worker", reason)

    def _end(self, actor: _Actor, reason: str) -> None:
        """Make sure that an actor ends."""
        logger.warning(
            "a worker on node %s %s; it was working on: %s",
            actor.place.node_name,
            reason,
            ", ".join(sorted(job.media.video_id for job in actor.running.values())) or "nothing",
        )
        del self._actors[actor.place]
        ray.kill(actor.handle)

    def _look_at_nodes(self) -> None:
        """Start an actor in each place that has none."""
        self._looked_s = time.monotonic()
        for place in self._places():
            if place not in self._actors:
                self._actors[place] = self._start(place)

    def _places(self) -> list[_Place]:
        places = []
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            num_cpus, num_gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
            wanted = self._cluster.per_node or (num_gpus if self._cluster.on_gpus else 1)
            count = min(wanted, num_gpus if self._cluster.on_gpus else num_cpus)
            for number in range(count):
                places.append(
                    _Place(
                        node["NodeID"],
                        node["NodeManagerAddress"],
                        number,
                        num_threads=max(1, num_cpus // count),
                        num_gpus=1 if self._cluster.on_gpus else 0,
                    )
                )
        return places

    def _start(self, place: _Place) -> _Actor:
        options = {
            "num_cpus": place.num_threads,
            "num_gpus": place.num_gpus,
            "max_concurrency": place.num_threads,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node_id, soft=False),
        }
        handle = ray.remote(self._make).options(**options).remote(self._settings(place.num_threads))
        return _Actor(place, handle, handle.start.remote())

    def _check_that_any_works(self, passed_s: float) -> None:
        if any(actor.starting is None for actor in self._actors.values()):
            self._idle_s = 0.0
            return
        self._idle_s += passed_s
        if self._idle_s > self._start_timeout_s:
            what = "GPU" if self._cluster.on_gpus else "CPU"
            total, free = (found.get(what, 0) for found in (ray.cluster_resources(), ray.available_resources()))
            raise EngineError(
                f"no worker could start on the Ray cluster for {self._idle_s:.0f} s: of the {total:.0f} {what}s of its "
                f"nodes {free:.0f} are free; free or add some, and run the command again"
            )

    def _stop(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._actors = {}


def _absolute(path: Location) -> Location:
    """An actor has another current folder."""
    if not isinstance(path, Path):
        return path
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links


def _as_named_here(failure: Failure, job: Job) -> Failure:
    path = job.media.path
    return replace(failure, path=path, reason=failure.reason.replace(str(_absolute(path)), str(path)))


def _death(error: exceptions.RayError) -> str | None:
    """What happened to an actor, for people; None if its node is gone or cannot be reached."""
    text = str(error)
    if not isinstance(error, exceptions.ActorDiedError) or error.preempted or "node has died" in text:
        return None
    if "running low on memory" in text:
        return "was ended because its node ran out of memory"
    if "creation task" in text:
        return f"could not be made ({last_line(error)})"
    return "ended unexpectedly"
