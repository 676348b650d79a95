"""One worker process: describes the videos it is given and writes them into shards of its own.

When the other end of its pipe is closed it writes what it holds and ends. It knows nothing of other workers, of the
order of videos, and of what becomes of failures.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from engine.config import Preset
from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Failure, Media, Role
from engine.run.messages import (
    Broken,
    Described,
    Done,
    Job,
    Link,
    LogLine,
    Probed,
    Ready,
    Saved,
    SaveRequest,
    die_with_parent,
)
from engine.store.shards import Fingerprint, ShardWriter
from engine.video import DecoderName
from engine.video.media import claimed_duration_s


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker process needs to know.

    ``folder``: that of the store. ``videos_at_once``: threads that decode. ``num_threads``: those of an engine on a
    CPU, None for all cores. ``gpu``: the only one that it sees, as in ``CUDA_VISIBLE_DEVICES``; None for a CPU.
    """

    engines: Path
    preset: Preset
    raw_embeddings: bool
    role: Role
    folder: Path
    videos_at_once: int
    num_threads: int | None
    gpu: str | None = None
    log_level: int = logging.INFO
    decoder: DecoderName = "pyav"


def serve(connection: Connection, settings: WorkerSettings, number: int) -> None:
    """Be a worker until the pipe is closed; ``number`` is that of its `ShardWriter`. What a process is started with."""
    die_with_parent()
    if settings.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu
    link = Link(connection)
    logging.basicConfig(level=logging.WARNING, handlers=[_LogThrough(link)], force=True)
    logging.getLogger("engine").setLevel(settings.log_level)
    try:
        with Engine.open(
            settings.engines,
            preset=settings.preset,
            num_threads=settings.num_threads,
            raw_embeddings=settings.raw_embeddings,
            decoder=settings.decoder,
        ) as engine:
            link.send(Ready())
            _Worker(engine, settings, link, number=number).serve()
    except Exception as error:  # noqa: BLE001 - it is raised again in the supervisor
        link.send(Broken(_portable(error)))


def serve_probes(connection: Connection, _settings: None, _number: int) -> None:
    """Be a worker without engines, for ``probe`` alone."""
    die_with_parent()
    link = Link(connection)
    link.send(Ready())
    while isinstance(job := link.receive(), Job):
        link.send(Done(job.media.video_id, _probe(job.media)))


class _LogThrough(logging.Handler):
    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        self._link.send(LogLine(record.levelno, self.format(record)))


class _Worker:
    """The loop of a worker with its engine open."""

    def __init__(self, engine: Engine, settings: WorkerSettings, link: Link, *, number: int) -> None:
        self._engine = engine
        self._role = settings.role
        self._link = link
        self._pool = ThreadPoolExecutor(settings.videos_at_once, thread_name_prefix="video")
        self._shards = ShardWriter(settings.folder, number=number)
        self._lock = threading.RLock()
        self._num_running = 0

    def serve(self) -> None:
        while (request := self._link.receive()) is not None:
            if isinstance(request, SaveRequest):
                self._save()
            else:
                with self._lock:
                    self._num_running += 1
                self._pool.submit(self._do, request)
        with self._lock:
            self._shards.flush()
            if self._num_running:  # nobody waits for these videos any more
                os._exit(0)

    def _do(self, job: Job) -> None:
        try:
            if job.action == "probe":
                self._finish(job, _probe(job.media))
            else:
                self._describe(job)
        except Exception as error:  # noqa: BLE001 - a full disk, for example; it is raised again in the supervisor
            self._link.send(Broken(_portable(error)))

    def _describe(self, job: Job) -> None:
        try:
            fingerprint = Fingerprint.of(job.media.path)
        except OSError as error:
            self._finish(
                job, Failure(job.media.video_id, job.media.path, "open", f"{job.media.path}: {error.strerror}")
            )
            return
        result = self._engine.describe(job.media, role=self._role)
        if isinstance(result, Failure):
            self._finish(job, result)
            return
        with self._lock:
            refusal = self._engine.decoder.refusals.get(result.video_id)
            self._finish(job, Described(result.warnings, refusal))
            self._shards.add(result, fingerprint)
            is_due = job.is_alone or self._shards.is_due
        if is_due:
            self._save()

    def _finish(self, job: Job, result: Probed | Described | Failure) -> None:
        with self._lock:
            self._num_running -= 1
            self._link.send(Done(job.media.video_id, result, self._engine.times.as_dict()))

    def _save(self) -> None:
        with self._lock:
            self._shards.flush()
            self._link.send(Saved())


def _probe(media: Media) -> Probed:
    try:
        return Probed(claimed_duration_s(media))
    except Exception:  # noqa: BLE001 - whatever it is, describing the video will say it
        return Probed(0.0)


def _portable(error: Exception) -> Exception:
    if isinstance(error, EngineError | OSError):
        return error
    logging.getLogger(__name__).debug("unexpected error in a worker", exc_info=error)
    return EngineError(f"a worker failed: {type(error).__name__}: {error}")
