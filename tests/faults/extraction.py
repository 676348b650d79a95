"""Extractions as processes of their own, for tests that kill them or take their disk."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.workers import children, is_alive


def arguments(videos: Path, engines: Path, output: Path, *, workers: int = 2) -> list[str]:
    options = ["--role", "query", "--engines", engines, "--output", output, "--workers", workers]
    return [sys.executable, "-m", "engine", "extract", str(videos), *map(str, options)]


def all_children(pid: int) -> list[int]:
    try:
        return children(pid)
    except OSError:  # one ended while it was asked
        return []


def run_and_hit(
    command: list[str], generator: random.Random, *, within_s: float, hit: Callable[[int], object]
) -> tuple[int, str]:
    """Run a command, and call ``hit`` with its process id after a random time, if it is still running then.

    Returns the exit status and stderr once neither it nor a child of it is left.
    """
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        moment_s = time.monotonic() + generator.uniform(0, within_s)
        seen: set[int] = set()
        while process.poll() is None and time.monotonic() < moment_s:
            seen.update(all_children(process.pid))
            time.sleep(0.01)
        if process.poll() is None:
            seen.update(all_children(process.pid))
            hit(process.pid)
        _, stderr = process.communicate()
    deadline_s = time.monotonic() + 60
    while any(map(is_alive, seen)):
        assert time.monotonic() < deadline_s, "a worker outlives its parent"
        time.sleep(0.01)
    return process.returncode, stderr
