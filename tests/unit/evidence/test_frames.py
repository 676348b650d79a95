"""Times that show the same, and videos that give no pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.evidence import frames
from engine.evidence.frames import Viewer, matching_times
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


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with Viewer() as viewer:
        yield viewer


def test_a_picture_for_each_time(viewer: Viewer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", pan(1, num_seconds=2))
    found = viewer.look_at(path, [1.5, 0.5], short_side_px=72)
    assert not isinstance(found, str)
    assert {time_s: picture.shape for time_s, picture in found.items()} == {0.5: (72, 96, 3), 1.5: (72, 96, 3)}
    assert viewer.claimed_duration_s(path) == pytest.approx(2)


def test_no_picture_is_a_line(viewer: Viewer, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    assert viewer.look_at(tmp_path / "a.mp4", [0.0], short_side_px=72) == (
        f"not readable: {tmp_path / 'a.mp4'}: the file is empty"
    )
    assert viewer.claimed_duration_s(tmp_path / "a.mp4") == 0
    assert str(viewer.look_at(tmp_path / "b.mp4", [0.0], short_side_px=72)).startswith("not readable: ")
    assert viewer.look_at(None, [0.0], short_side_px=72) == "not readable: the file was not found"


def hang(*_: object) -> None:
    """What a library does with content that it cannot cope with."""
    time.sleep(600)


def test_a_video_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = (write(tmp_path / f"{name}.mp4", pan(1, num_seconds=2)) for name in "ab")
    given_up = f"not readable: {path}: looking at it failed: took longer than the limit of 1 s"
    with Viewer(limit_s=1) as viewer:
        with monkeypatch.context() as patch:
            patch.setattr(frames, "_pictures", hang)
            assert viewer.look_at(path, [0.5], short_side_px=72) == given_up
        assert viewer.look_at(path, [0.5], short_side_px=72) == given_up, "nothing is tried again"
        assert viewer.claimed_duration_s(path) == 0
        assert viewer.claimed_duration_s(other) == pytest.approx(2)
