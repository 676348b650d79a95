"""Times that show the same, and videos that give no pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.evidence.frames import look_at, matching_times
from engine.records import Match
from tests.unit.evidence.worlds import pan, write


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        (None, [(1.0, 11.0), (3.0, 13.0), (5.0, 15.0), (7.0, 17.0)]),
        (1.0, [(1.0, 11.0), (3.0, 13.0), (5.0, 15.0), (7.0, 17.0)]),
        (-1.0, [(1.0, 17.0), (3.0, 15.0), (5.0, 13.0), (7.0, 11.0)]),
    ],
)
def test_times_along_a_match(speed: float | None, expected: list[tuple[float, float]]) -> None:
    match = Match("Q", "R", 0.0, 8.0, 10.0, 18.0, 1.0, speed=speed)
    np.testing.assert_allclose(matching_times(match, 4), expected)


def test_times_of_a_slow_copy() -> None:
    match = Match("Q", "R", 2.0, 6.0, 0.0, 2.0, 1.0, speed=0.5)
    np.testing.assert_allclose(matching_times(match, 2), [(3.0, 0.5), (5.0, 1.5)])


def test_a_picture_for_each_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", pan(1, num_seconds=2))
    found = look_at(path, [1.5, 0.5], short_side_px=72)
    assert not isinstance(found, str)
    assert {time_s: picture.shape for time_s, picture in found.items()} == {0.5: (72, 96, 3), 1.5: (72, 96, 3)}


def test_no_picture_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    assert look_at(tmp_path / "a.mp4", [0.0], short_side_px=72) == (
        f"not readable: {tmp_path / 'a.mp4'}: the file is empty"
    )
    assert str(look_at(tmp_path / "b.mp4", [0.0], short_side_px=72)).startswith("not readable: ")
    assert look_at(None, [0.0], short_side_px=72) == "not readable: the file was not found"
