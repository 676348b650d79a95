"""A limited number of places, whatever becomes of those who hold them."""

from __future__ import annotations

import threading
from http import HTTPStatus

import pytest

from engine.serve.refusals import Refused
from engine.serve.service import Lane


def test_places_are_limited_and_come_free() -> None:
    lane = Lane("test", num_threads=1, queue=1)
    with lane.place(), lane.place():
        assert (lane.num_waiting, lane.num_running) == (2, 0)
        with pytest.raises(Refused) as refusal, lane.place():
            pass
        assert refusal.value.status == HTTPStatus.TOO_MANY_REQUESTS
        assert refusal.value.retry_after_s is not None
        assert 1 <= refusal.value.retry_after_s <= 60
    with pytest.raises(ValueError, match="of whoever holds it"), lane.place():
        raise ValueError("of whoever holds it")
    with lane.place(), lane.place():
        pass
    lane.close()


def test_what_runs_does_not_wait() -> None:
    lane = Lane("test", num_threads=1, queue=1)
    begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        may_end.wait()
        return "done"

    with lane.place(), lane.place():
        future = lane.submit(work)
        begun.wait()
        assert (lane.num_waiting, lane.num_running) == (1, 1)
        may_end.set()
        assert future.result() == "done"
    assert (lane.num_waiting, lane.num_running) == (0, 0)
    lane.close()


def test_an_error_comes_back_and_frees_the_thread() -> None:
    lane = Lane("test", num_threads=1, queue=0)
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 // 0).result()
    assert lane.num_running == 0
    assert lane.submit(lambda: 1).result() == 1
    lane.close()
