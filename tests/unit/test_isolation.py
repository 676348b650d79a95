"""A call in a process of its own gives what its function gives; one that hangs or crashes ends only that process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import MediaError
from engine.isolation import CallEndedError, IsolatedProcess


def refuse(path: Path) -> None:
    raise MediaError(f"{path}: damaged")


def missing() -> None:
    Path("/nowhere/at/all").read_bytes()


def hang() -> None:
    time.sleep(600)


def test_results_and_errors_come_back() -> None:
    with IsolatedProcess() as process:
        np.testing.assert_array_equal(process.call(np.arange, 5, limit_s=60), np.arange(5))
        with pytest.raises(MediaError, match=r"^a\.mp4: damaged$"):
            process.call(refuse, Path("a.mp4"), limit_s=60)
        with pytest.raises(FileNotFoundError) as found:
            process.call(missing, limit_s=60)
        assert found.value.filename == "/nowhere/at/all"


def test_calls_share_one_process_that_is_another_one() -> None:
    with IsolatedProcess() as process:
        pids = {process.call(os.getpid, limit_s=60) for _ in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_a_call_that_takes_too_long_is_ended_and_the_next_one_goes_on() -> None:
    with IsolatedProcess() as process:
        before = process.call(os.getpid, limit_s=60)
        with pytest.raises(CallEndedError, match=r"^took longer than the limit of 1 s$"):
            process.call(hang, limit_s=1)
        assert process.call(os.getpid, limit_s=60) != before


def test_a_call_that_ends_its_process_says_how() -> None:
    with IsolatedProcess() as process:
        with pytest.raises(CallEndedError, match=r"^its process was ended by SIGABRT$"):
            process.call(os.abort, limit_s=60)
        with pytest.raises(CallEndedError, match=r"^its process ended with status 7$"):
            process.call(os._exit, 7, limit_s=60)


def test_a_process_that_was_ended_between_two_calls_is_replaced() -> None:
    with IsolatedProcess() as process:
        pid = process.call(os.getpid, limit_s=60)
        os.kill(pid, 9)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert process.call(os.getpid, limit_s=60) != pid


def test_nothing_is_left_of_it() -> None:
    with IsolatedProcess() as process:
        pid = process.call(os.getpid, limit_s=60)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
