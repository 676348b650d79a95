"""A worker without engines for tests of the supervisor: the ids of its videos say what befalls it.

Many processes import this file, so that it loads little.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from engine.errors import ConfigError
from engine.records import Descriptors, Failure, Media
from engine.run.messages import Broken, Described, Done, Job, Link, LogLine, Ready, Result, die_with_parent


def serve_script(connection: Connection, folder: Path) -> None:
    """Describe jobs one by one; ``folder`` keeps what was begun (``begun.txt``).

    Ids that start with ``kill`` end the worker each time, with ``once`` the first time, with ``late`` the first time
    after their rows were sent. ``stop`` makes it stand still each time, ``pause`` the first time, ``slow`` never comes
    to an end while the worker lives. ``fail`` gives a failure, ``break`` an error for all.
    """
    die_with_parent()
    link = Link(connection)
    link.send(Ready())
    link.send(LogLine(logging.INFO, f"hello from process {os.getpid()}"))
    while (job := link.receive()) is not None:
        video_id = job.media.video_id
        with (folder / "begun.txt").open("a") as file:
            file.write(f"{video_id}\n")
        if video_id.startswith("kill") or (video_id.startswith("once") and is_first(folder, video_id)):
            os.kill(os.getpid(), signal.SIGKILL)
        if video_id.startswith("stop") or (video_id.startswith("pause") and is_first(folder, video_id)):
            os.kill(os.getpid(), signal.SIGSTOP)
        if video_id.startswith("slow"):
            continue
        if video_id.startswith("break"):
            link.send(Broken(ConfigError("the disk is full")))
        elif video_id.startswith("fail"):
            link.send(Done(video_id, Failure(video_id, job.media.path, "decode", "no frame"), {"decode": 1.0}))
        else:
            link.send(Done(video_id, Described(descriptors(video_id)), {"ensemble": 2.0}))
            if video_id.startswith("late") and is_first(folder, video_id):
                os.kill(os.getpid(), signal.SIGKILL)


def descriptors(video_id: str) -> Descriptors:
    """Rows that depend on the id."""
    rows = np.random.default_rng([*video_id.encode()]).standard_normal((2, 4)).astype(np.float32)
    return Descriptors(video_id, np.array([[0, 1], [1, 2]], np.float32), rows)


def is_first(folder: Path, video_id: str) -> bool:
    mark = folder / f"{video_id}.begun"
    was_there = mark.exists()
    mark.touch()
    return not was_there


def serve_nothing(connection: Connection, folder: Path) -> None:
    """Die while starting."""
    os.kill(os.getpid(), signal.SIGKILL)


def serve_silence(connection: Connection, folder: Path) -> None:
    """Stand still while starting."""
    os.kill(os.getpid(), signal.SIGSTOP)


def serve_refusal(connection: Connection, folder: Path) -> None:
    """Find the engines unusable."""
    Link(connection).send(Broken(ConfigError("engines for another processor")))


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started, and those they started, without the tracker of shared memory."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return [child for child in found if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is not merely waiting for its parent to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so: Callable[[], object], *, limit_s: float = 60) -> None:
    """Ask again until it is so. Fails after ``limit_s`` seconds."""
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"it did not come to that within {limit_s} s"
        time.sleep(0.01)


def job(video_id: str, *, limit_s: float = math.inf) -> Job:
    return Job("describe", Media(video_id, Path(f"{video_id}.mp4")), limit_s=limit_s)


def sleep_late() -> None:
    """Ask a second late to die with the parent, and sleep for ever."""
    os.write(1, b"asleep\n")
    time.sleep(1)
    die_with_parent()
    time.sleep(10_000)


def whole(found: list[tuple[str, Result]]) -> dict[str, Result]:
    """The results by id; each came once, and those of described videos are whole."""
    assert len({video_id for video_id, _ in found}) == len(found)
    for video_id, result in found:
        if isinstance(result, Described):
            np.testing.assert_array_equal(result.descriptors.descriptors, descriptors(video_id).descriptors)
    return dict(found)


def failures(results: dict[str, Result]) -> dict[str, Failure]:
    return {video_id: result for video_id, result in results.items() if isinstance(result, Failure)}
