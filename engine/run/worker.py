"""One worker process: describes the videos it is given and sends their rows. It knows nothing of stores."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from engine.config import Preset
from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Failure, Media, Role
from engine.run.messages import Broken, Described, Done, Job, Link, LogLine, Probed, Ready, die_with_parent
from engine.video import DecoderName
from engine.video.media import claimed_duration_s


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker process needs to know.

    See `engine.run.plan.Workers`; ``gpu`` is None for a CPU.
    """

    engines: Path
    preset: Preset
    raw_embeddings: bool
    role: Role
    videos_at_once: int
    num_threads: int | None
    gpu: str | None = None
    log_level: int = logging.INFO
    decoder: DecoderName = "pyav"

    def open_engine(self) -> Engine:
        """Read the manifest of the engines; see `Engine.open`."""
        return Engine.open(
            self.engines,
            preset=self.preset,
            num_threads=self.num_threads,
            raw_embeddings=self.raw_embeddings,
            decoder=self.decoder,
        )


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """Be a worker until the pipe is closed. What a process is started with."""
    die_with_parent()
    if settings.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu
    link = Link(connection)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_LogThrough(link)], force=True)
    logging.getLogger("engine").setLevel(settings.log_level)
    try:
        with settings.open_engine() as engine:
            link.send(Ready())
            pool = ThreadPoolExecutor(settings.videos_at_once, thread_name_prefix="video")
            running: list[Future[None]] = []
            while (job := link.receive()) is not None:
                running = [future for future in running if not future.done()]
                running.append(pool.submit(_do, job, engine, role=settings.role, link=link))
            if not all(future.done() for future in running):  # nobody waits for these videos any more
                os._exit(0)
    except Exception as error:  # noqa: BLE001 - it is raised again in the supervisor
        link.send(Broken(portable(error)))


def serve_probes(connection: Connection, _settings: None) -> None:
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


def perform(job: Job, engine: Engine, *, role: Role) -> Done | Broken:
    """Do one job; whatever goes wrong is in the message."""
    try:
        result = _probe(job.media) if job.action == "probe" else _describe(job.media, engine, role=role)
    except Exception as error:  # noqa: BLE001 - it is raised again by the executor
        return Broken(portable(error))
    return Done(job.media.video_id, result, engine.times.as_dict())


def _do(job: Job, engine: Engine, *, role: Role, link: Link) -> None:
    link.send(perform(job, engine, role=role))


def _describe(media: Media, engine: Engine, *, role: Role) -> Described | Failure:
    result = engine.describe(media, role=role)
    if isinstance(result, Failure):
        return result
    video_id = result.video_id
    return Described(result, engine.decoder.refusal(video_id), engine.traffic.pop(video_id, None))


def _probe(media: Media) -> Probed:
    try:
        return Probed(claimed_duration_s(media))
    except Exception:  # noqa: BLE001 - whatever it is, describing the video will say it
        return Probed(0.0)


def portable(error: Exception) -> Exception:
    """An error as it can be sent and raised elsewhere; one that nobody expected becomes an ``EngineError``."""
    if isinstance(error, EngineError | OSError):
        return error
    logging.getLogger(__name__).debug("unexpected error in a worker", exc_info=error)
    return EngineError(f"a worker failed: {type(error).__name__}: {error}")
