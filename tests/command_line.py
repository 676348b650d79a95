"""Runs ``vsc-engine``, in the process of the tests unless it has to be one of its own.

A process of its own pays seconds for libraries that the process of the tests has loaded. Tests of what belongs to a
process (its environment, signals, what it imports, how it ends) ask for one, and so does one test of every command.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import IO, Any

from engine import console
from engine.cli import main


def run_command(
    *arguments: str | Path,
    expect: int = 0,
    cwd: Path | None = None,
    process: bool = False,
    **of_process: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a command and check its exit status. More options are those of a process, and ask for one."""
    command = [*map(str, arguments)]
    if process or of_process:
        started = [sys.executable, "-m", "engine", *command]
        done = subprocess.run(started, capture_output=True, text=True, check=False, cwd=cwd, **of_process)
    else:
        with chdir(cwd or Path.cwd()):
            done = run_here(command)
    assert done.returncode == expect, f"{command}\nstdout: {done.stdout}\nstderr: {done.stderr}"
    return done


def run_here(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in this process; what it starts, and libraries in C, write to the same two outputs."""
    status: object = None
    with (
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        logging_of_its_own(),
    ):
        with output_to(1, stdout, errors="strict"), output_to(2, stderr, errors="backslashreplace"):
            try:
                main(command)
            except SystemExit as ended:
                status = ended.code
        assert isinstance(status, int)
        return subprocess.CompletedProcess([*command], status, *map(written, (stdout, stderr)))


@contextmanager
def output_to(number: int, file: IO[bytes], *, errors: str) -> Iterator[None]:
    """Give standard output (1) or standard error (2) of this process to a file."""
    name = {1: "stdout", 2: "stderr"}[number]
    before, kept = getattr(sys, name), os.dup(number)
    before.flush()
    os.dup2(file.fileno(), number)
    stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", errors=errors)
    setattr(sys, name, stream)
    try:
        yield
    finally:
        stream.flush()
        setattr(sys, name, before)
        os.dup2(kept, number)
        os.close(kept)


@contextmanager
def logging_of_its_own() -> Iterator[None]:
    """As in a new process: nobody listens yet. What was chosen is forgotten afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("engine")
    handlers, levels, log_format = root.handlers[:], (root.level, ours.level), console.log_format()
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        console._log_format = log_format


def written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")
