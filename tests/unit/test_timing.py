"""Nested stages do not count twice, and an error leaves the name of its stage."""

from __future__ import annotations

import time

import pytest

from engine.timing import StageClock, StageTimes


def test_nested_stages_are_exclusive_and_complete() -> None:
    times = StageTimes()
    start = time.perf_counter()
    clock = StageClock(times)
    with clock.stage("outer"):
        time.sleep(0.01)
        for _ in clock.each("inner", range(3)):
            time.sleep(0.01)
    elapsed = time.perf_counter() - start
    seconds = times.as_dict()
    assert set(seconds) == {"open", "outer", "inner"}
    assert seconds["outer"] >= 0.04
    assert seconds["inner"] < seconds["outer"]
    assert sum(seconds.values()) <= elapsed


def test_each_yields_all_items_also_falsy_ones() -> None:
    assert list(StageClock(StageTimes()).each("inner", [0, None, "", 1])) == [0, None, "", 1]


def test_current_names_the_stage_that_an_error_left() -> None:
    clock = StageClock(StageTimes())

    def broken() -> object:
        raise KeyError("x")

    with pytest.raises(KeyError), clock.stage("ensemble"):
        for _ in clock.each("decode", (broken() for _ in range(1))):
            pass
    assert clock.current == "decode"
