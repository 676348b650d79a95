"""Nested stages do not count twice, and an error leaves the name of its stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.timing import StageClock, StageTimes, stages_line


class Hands:
    """A clock that stands still until it is moved."""

    seconds = 0.0

    def read(self) -> float:
        return self.seconds


def test_nested_stages_are_exclusive_and_complete() -> None:
    times, hands = StageTimes(), Hands()
    clock = StageClock(times, now=hands.read)
    hands.seconds += 1

    def items() -> Iterator[int]:
        for index in range(3):
            hands.seconds += 10
            yield index

    with clock.stage("outer"):
        hands.seconds += 100
        for _ in clock.each("inner", items()):
            hands.seconds += 1000
    assert times.as_dict() == {"open": 1, "outer": 3100, "inner": 30}


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


def test_the_line_for_people() -> None:
    assert stages_line({"decode": 1.25, "ensemble": 3}) == "seconds per stage, all workers: decode 1.2, ensemble 3.0"
    assert stages_line({}) == "seconds per stage, all workers: nothing to do"
