"""What a process that opens files may be made to do, for tests of those who start it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from engine.errors import ConfigError


def fail() -> None:
    raise ConfigError("the disk is full")


def time_out() -> None:
    raise TimeoutError("the share does not answer")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path) -> int:
    if not mark.exists():
        mark.touch()
        die()
    return os.getpid()


def sleep(begun: Path) -> None:
    begun.write_text(str(os.getpid()))
    time.sleep(1000)


def oom_score() -> str:
    return Path("/proc/self/oom_score_adj").read_text()
