"""The worker of `tests.workers` as an actor on a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from engine.errors import ConfigError
from engine.records import Failure
from engine.run.messages import Broken, Described, Done, Job, LogLine, Ready
from engine.run.remote_worker import Answer
from tests.workers import descriptors, is_first


class ScriptWorker:
    """As an actor: ``kill``, ``once``, ``slow``, ``fail`` and ``break`` as in `tests.workers.serve_script`.

    ``error`` is one that nobody expected; ``wait`` describes the video once ``go`` is in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self) -> Answer:
        if (self._folder / "refuse").exists():
            return Answer(Broken(ConfigError("engines for another processor")))
        if (self._folder / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        (self._folder / f"{os.getpid()}.pid").touch()
        return Answer(Ready(), (LogLine(logging.INFO, "hello from an actor"),))

    def do(self, job: Job) -> Answer:
        video_id = job.media.video_id
        with (self._folder / "begun.txt").open("a") as file:
            file.write(f"{video_id}\n")
        if video_id.startswith("kill") or (video_id.startswith("once") and is_first(self._folder, video_id)):
            os.kill(os.getpid(), signal.SIGKILL)
        if video_id.startswith("error"):
            raise KeyError(video_id)
        if video_id.startswith("break"):
            return Answer(Broken(ConfigError("the disk is full")))
        while video_id.startswith("slow") or (video_id.startswith("wait") and not (self._folder / "go").exists()):
            time.sleep(0.05)
        if video_id.startswith("fail"):
            return Answer(Done(video_id, Failure(video_id, job.media.path, "decode", "no frame"), {"decode": 1.0}))
        return Answer(Done(video_id, Described(descriptors(video_id)), {"ensemble": 2.0}))
