"""Processes that open files: their errors come back, and their deaths cost nothing but another try."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError, EngineError, MediaError
from engine.serve.reader import ReaderProcess, ReaderSettings
from engine.serve.refusals import Refused
from tests.packaged import tiny_preset
from tests.tasks import die, die_once, fail, oom_score, sleep, time_out
from tests.workers import is_alive

NEVER = time.monotonic() + 86_400


def settings(engines: Path) -> ReaderSettings:
    return ReaderSettings(
        engines=engines,
        preset=tiny_preset(),
        decoder="pyav",
        num_threads=1,
        gpu=None,
        log_level=20,
        log_format="text",
    )


@pytest.fixture
def reader(tiny_engines: Path) -> Iterator[ReaderProcess]:
    process = ReaderProcess(settings(tiny_engines))
    yield process
    process.close()


def test_results_and_errors_come_back_from_one_process(reader: ReaderProcess) -> None:
    pid = reader.run(os.getpid, NEVER)
    assert pid != os.getpid()
    with pytest.raises(ConfigError, match="the disk is full"):
        reader.run(fail, NEVER)
    with pytest.raises(TimeoutError, match="the share does not answer"):
        reader.run(time_out, NEVER)
    assert reader.run(os.getpid, NEVER) == pid
    assert int(reader.run(oom_score, NEVER)) == 1000, "where memory runs out it should go first"


def test_a_process_that_dies_is_replaced_and_its_task_tried_again(reader: ReaderProcess, tmp_path: Path) -> None:
    before = reader.run(os.getpid, NEVER)
    assert reader.run(die_once, NEVER, tmp_path / "mark") != before


def test_a_task_that_ends_two_processes_is_given_up_and_the_next_one_done(reader: ReaderProcess) -> None:
    with pytest.raises(MediaError, match=r"was ended by SIGKILL; it was tried 2 times"):
        reader.run(die, NEVER)
    assert reader.run(os.getpid, NEVER) != os.getpid()


def test_a_process_that_dies_while_it_waits_is_replaced(reader: ReaderProcess) -> None:
    before = reader.run(os.getpid, NEVER)
    os.kill(before, signal.SIGKILL)
    assert reader.run(os.getpid, NEVER) != before


def test_a_task_that_takes_too_long_is_ended(reader: ReaderProcess, tmp_path: Path) -> None:
    reader.start()
    with pytest.raises(Refused, match="time limit"):
        reader.run(sleep, time.monotonic() + 2, tmp_path / "begun")
    if (tmp_path / "begun").exists():
        assert not is_alive(int((tmp_path / "begun").read_text()))
    assert reader.run(os.getpid, NEVER) != os.getpid()


def test_engines_that_cannot_be_opened_are_named(tmp_path: Path, tiny_engines: Path) -> None:
    process = ReaderProcess(settings(tmp_path))
    with pytest.raises(EngineError):
        process.start()
    process.close()
