from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from engine.video.clock import Clock, Stamp, decoded_times, forward_times

TICK_S = Fraction(1, 1000)


def shown(stamps: list[Stamp], *, may_leap: bool = False) -> tuple[list[int], list[float]]:
    """The joined presentation times, and when the clock was set anew."""
    clock = Clock(TICK_S, may_leap=may_leap)
    return [stamp.pts + clock.shift(stamp) for stamp in stamps if stamp.pts is not None], clock.breaks_s


def group(start: int, *, count: int = 3) -> list[Stamp]:
    """I P B B ... at 25 fps, decoded two frames before it is shown."""
    order = [0, *(n for first in range(1, count, 3) for n in (first + 2, first, first + 1))]
    return [Stamp(start + 40 * n, start + 40 * place - 80, 40) for place, n in enumerate(order)]


class TestClock:
    def test_a_clock_that_runs_is_left_alone(self) -> None:
        stamps = group(5000, count=7)
        assert shown(stamps, may_leap=True) == ([stamp.pts for stamp in stamps], [])

    @pytest.mark.parametrize("start", [0, 5000, 5040, -900_000])
    def test_a_clock_that_starts_again_goes_on(self, start: int) -> None:
        times, breaks_s = shown(group(5000, count=7) + group(start, count=7))
        assert sorted(times) == [5000 + 40 * n for n in range(14)]
        assert breaks_s == [0.28]

    @pytest.mark.parametrize("leap", [20_000, 95_443_000])
    def test_a_leap_counts_only_where_the_container_announces_it(self, leap: int) -> None:
        stamps = group(0, count=7) + group(leap, count=7)
        assert sorted(shown(stamps, may_leap=True)[0]) == [40 * n for n in range(14)]
        assert shown(stamps) == ([stamp.pts for stamp in stamps], [])

    def test_a_short_hole_is_a_hole(self) -> None:
        stamps = group(0, count=7) + group(9000, count=7)
        assert shown(stamps, may_leap=True) == ([stamp.pts for stamp in stamps], [])

    def test_no_video_is_longer_than_eleven_days(self) -> None:
        times, breaks_s = shown(group(0, count=7) + group(10**15, count=7))
        assert sorted(times) == [40 * n for n in range(14)]
        assert breaks_s == [0.28]

    def test_every_break_counts(self) -> None:
        times, breaks_s = shown(group(0, count=4) * 5)
        assert sorted(times) == [40 * n for n in range(20)]
        assert breaks_s == [0.16, 0.32, 0.48, 0.64]

    def test_packets_without_times_change_nothing(self) -> None:
        stamps = [Stamp(None, None, 40), Stamp(0, None, 40), Stamp(80, None, 40), Stamp(40, 0, 40)]
        assert shown(stamps) == ([0, 80, 40], [])


class TestDecodedTimes:
    def test_presentation_times_count_while_they_do_not_err(self) -> None:
        assert decoded_times([Stamp(0, -80, 40), Stamp(40, -40, 40), Stamp(80, 0, 40)]) == [0, 40, 80]

    def test_decoding_times_count_where_presentation_times_run_backward(self) -> None:
        stamps = [Stamp(1, 0, 1), Stamp(2, 1, 1), Stamp(8, 2, 1), Stamp(7, 3, 1), Stamp(9, 4, 1)]
        assert decoded_times(stamps) == [1, 2, 8, 3, 4]

    def test_what_is_missing_is_taken_from_the_other(self) -> None:
        assert decoded_times([Stamp(None, 3, 1), Stamp(5, None, 1), Stamp(None, None, 1)]) == [3, 5, None]


class TestForwardTimes:
    def test_times_that_run_forward_stay(self) -> None:
        assert forward_times(np.array([0, 1, 1, 5])).tolist() == [0, 1, 1, 5]

    @pytest.mark.parametrize(
        ("times", "expected"),
        [
            ([0, 900, 2, 3], [0, 0, 2, 3]),
            ([5, 6, -900, 8], [5, 6, 6, 8]),
            ([900, 1, 2, 3], [1, 1, 2, 3]),
            ([0, 1, 2, -5], [0, 1, 2, 2]),
        ],
    )
    def test_one_wrong_time_moves_no_other(self, times: list[int], expected: list[int]) -> None:
        assert forward_times(np.array(times)).tolist() == expected

    def test_as_many_as_possible_stay(self) -> None:
        generator = np.random.default_rng(0)
        for _ in range(50):
            times = generator.integers(0, 8, size=8)
            found = forward_times(times)
            assert (np.diff(found) >= 0).all()
            longest = max(
                len(kept)
                for length in range(1, 9)
                for kept in itertools.combinations(times.tolist(), length)
                if list(kept) == sorted(kept)
            )
            assert (found == times).sum() >= longest
