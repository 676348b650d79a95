"""Calls functions in a process of its own, which ends when one takes too long. Knows nothing of what they do.

Native libraries may hang or crash on a file; where no worker process reads it, that would end the whole program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Self, TypeVar

Result = TypeVar("Result")

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from engine.isolation import serve; serve()"


class CallEndedError(Exception):
    """A call ended its process, or took longer than its limit; the text says which, in one line."""


class IsolatedProcess:
    """A process for calls, started by the first, and anew by the next one after a call that ended it.

    A context manager; leaving it ends the process. Threads wait for each other's calls.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def call(self, function: Callable[..., Result], *arguments: object, limit_s: float) -> Result:
        """What a function of a module returns for ``arguments``; all of that is sent through a pipe.

        Raises what the function raises, and ``CallEndedError``.
        """
        with self._lock:
            connection = self._started()
            try:
                connection.send((function, arguments, limit_s))
                is_result, value = connection.recv()
            except (EOFError, OSError) as error:
                raise CallEndedError(self._reason(limit_s)) from error
            except BaseException:
                self._end()  # what it answers would be taken for the answer to the next call
                raise
        if not is_result:
            raise value
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Connection:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        self._end()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        return self._connection

    def _reason(self, limit_s: float) -> str:
        """Why the process ended: it has closed its end of the pipe."""
        process = self._process
        status = None if process is None else process.wait()
        self._end()
        if status == -signal.SIGALRM:
            return f"took longer than the limit of {limit_s:.0f} s"
        if status is not None and status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return f"its process ended with status {status}"

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None


class ThisProcess:
    """Stands for an `IsolatedProcess` where what calls is isolated itself; there is no limit."""

    def call(self, function: Callable[..., Result], *arguments: object, limit_s: float) -> Result:  # noqa: ARG002
        """What the function returns or raises."""
        return function(*arguments)

    def close(self) -> None:
        """There is nothing to end."""


def serve() -> None:
    """Do calls until the pipe is closed. What the process is started with; its last argument is the pipe.

    The kernel ends a call at its limit, whether or not the parent is still there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, and the pipe then closes
    with Connection(int(sys.argv[2])) as connection:
        while True:
            try:
                function, arguments, limit_s = connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            try:
                answer = True, function(*arguments)
            except Exception as error:  # noqa: BLE001 - it is raised again by the caller
                answer = False, error
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
