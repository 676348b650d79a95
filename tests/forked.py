"""Processes that are forked from one that has loaded the libraries, which would take each of them seconds.

They are processes like any other: they are killed, and run no code of the tests beyond the function they were given.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["engine.catalog.catalog", "engine.catalog.milvus_rows", "engine.serve.server"])


class Forked:
    """A process that calls a function of a module; with the methods of ``subprocess.Popen`` that tests need."""

    def __init__(self, function: Callable[..., object], *arguments: Any) -> None:
        self._process = PROCESSES.Process(target=_call, args=(dict(os.environ), function, arguments))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> int:
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"it did not end in {timeout_s} s"
        return self._process.exitcode


def _call(environment: dict[str, str], function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def run_command_line(arguments: list[str], stdout: Path, stderr: Path) -> None:
    """``vsc-engine`` with its output in files."""
    for number, path in ((1, stdout), (2, stderr)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    from engine.cli import main

    main(arguments)
