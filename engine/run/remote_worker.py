"""A worker on another machine: opens the engines that lie there, then does what it is called for. Knows no Ray.

Nothing runs through a pipe: each answer brings along what was logged since the one before.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from threading import Lock

from engine.errors import ConfigError, EngineError
from engine.files import file_sha256
from engine.records import Role
from engine.run.messages import Broken, Done, Job, LogLine, Ready
from engine.run.worker import WorkerSettings, perform, portable
from engine.runtime.manifest import MANIFEST_NAME
from engine.version import __version__


@dataclass(frozen=True)
class RemoteSettings:
    """What a worker is told, and what must be the same on its machine as on that which asks for the work.

    ``manifest_sha256``: of the manifest of the engines, which has the hashes of all their files.
    """

    worker: WorkerSettings
    manifest_sha256: str
    version: str = __version__

    @classmethod
    def of(cls, worker: WorkerSettings) -> RemoteSettings:
        """With the hash of the engines of this machine. Raises ``OSError``."""
        return cls(worker, file_sha256(worker.engines / MANIFEST_NAME))

    def with_threads(self, num_threads: int) -> RemoteSettings:
        """With so many videos at once, and so many threads of an engine."""
        return replace(self, worker=replace(self.worker, videos_at_once=num_threads, num_threads=num_threads))


@dataclass(frozen=True)
class Answer:
    """What a worker replies to a call: a message, and the lines that were logged since the answer before."""

    message: Ready | Done | Broken
    log: tuple[LogLine, ...] = ()


class RemoteWorker:
    """One engine; `start` once, then `do` from several threads."""

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._log = _Kept()
        self._resources = ExitStack()

    def start(self) -> Answer:
        """Open the engines, which must be those of the machine that asks."""
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[self._log], force=True)
        logging.getLogger("engine").setLevel(self._settings.worker.log_level)
        try:
            self._check()
            self._engine = self._resources.enter_context(self._settings.worker.open_engine())
        except Exception as error:  # noqa: BLE001 - it is raised again by the executor
            return Answer(Broken(_located(portable(error))), self._log.taken())
        return Answer(Ready(), self._log.taken())

    def do(self, job: Job) -> Answer:
        """Do one job."""
        role: Role = self._settings.worker.role
        message = perform(job, self._engine, role=role)
        if isinstance(message, Broken):
            message = Broken(_located(message.error))
        return Answer(message, self._log.taken())

    def _check(self) -> None:
        if self._settings.version != __version__:
            raise ConfigError(
                f"vsc-engine {__version__} is installed here, {self._settings.version} where the command runs; install "
                "one version on all nodes"
            )
        folder = self._settings.worker.engines
        manifest = folder / MANIFEST_NAME
        if not manifest.is_file():
            raise ConfigError(
                f"there are no engines at {folder}; name a folder on storage that all nodes share, or with the same "
                "content on each (--engines)"
            )
        found = file_sha256(manifest)
        if found != self._settings.manifest_sha256:
            raise ConfigError(
                f"the engines at {folder} are others than those where the command runs (SHA-256 of the manifest "
                f"{found[:12]} and {self._settings.manifest_sha256[:12]}); copy one folder to all nodes"
            )


def _located(error: Exception) -> EngineError:
    return EngineError(f"on node {socket.gethostname()}: {error}")


class _Kept(logging.Handler):
    """Log records as lines, until somebody takes them."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[LogLine] = []
        self._lines_lock = Lock()

    def emit(self, record: logging.LogRecord) -> None:
        line = LogLine(record.levelno, self.format(record))
        with self._lines_lock:
            self._lines.append(line)

    def taken(self) -> tuple[LogLine, ...]:
        with self._lines_lock:
            lines, self._lines = self._lines, []
        return tuple(lines)
