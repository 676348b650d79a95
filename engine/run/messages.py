"""What passes between the supervisor and its worker processes, and the worker's end of the pipe. Does no work."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

from engine.records import Descriptors, Failure, Media
from engine.storage.ranged import Traffic

HEARTBEAT_S = 2.0
"""A worker says that it lives this often, whatever it is doing."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """Something to do with one video: read its length from its header, or describe it.

    ``is_alone``: the worker is given nothing else until it is done. ``limit_s``: seconds that it may take.
    """

    action: Literal["probe", "describe"]
    media: Media
    is_alone: bool = False
    limit_s: float = math.inf


@dataclass(frozen=True)
class Ready:
    """The engines are loaded."""


@dataclass(frozen=True)
class Alive:
    """The worker can still send."""


@dataclass(frozen=True)
class Probed:
    """The result of a ``probe``: seconds that the header claims, 0 if it cannot be read."""

    duration_s: float


@dataclass(frozen=True)
class Described:
    """The result of a ``describe`` that went well.

    ``refusal``: why the chosen decoder left the video to PyAV, None if it did not. ``traffic``: what was read of a
    remote video, None of one of this machine.
    """

    descriptors: Descriptors
    refusal: str | None = None
    traffic: Traffic | None = None


Result = Probed | Described | Failure


@dataclass(frozen=True)
class Done:
    """A job came to its end. ``stages_s``: seconds per stage of this process so far."""

    video_id: str
    result: Result
    stages_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LogLine:
    """A log record of the worker."""

    level: int
    text: str


@dataclass(frozen=True)
class Broken:
    """The worker cannot go on, for a reason that would stop any other too."""

    error: Exception


Message = Ready | Alive | Done | LogLine | Broken


def die_with_parent() -> None:
    """Make the end of the parent the end of this process, and leave Ctrl-C and SIGTERM to the parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before it could be asked for
        os._exit(1)


class Link:
    """The worker's end of the pipe; any thread may send. Nothing is sent to a supervisor that is gone.

    Sends `Alive` every `HEARTBEAT_S` from a thread of its own, as long as the process runs.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def send(self, message: Message) -> None:
        """Hand over one message."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                return

    def receive(self) -> Job | None:
        """The next job; None when the pipe is closed."""
        try:
            job: Job = self._connection.recv()
        except (EOFError, OSError):
            return None
        return job

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            self.send(Alive())
