"""Attacks on time: which frames are shown when, read back from the encoded videos, and the ground truth moved along.

Frame k of the attacked video has the two digits of k to base 9 as grays, one above the other, so that a decoded
picture says which frame it was.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.temporal_attacks import (
    ATTACKS,
    BLACK,
    Attacked,
    Figures,
    chosen_queries,
    make_attacks,
    moved,
    show,
    table,
)
from engine.errors import ConfigError
from engine.records import Match, Media
from engine.store.tables import read_ground_truth
from engine.video.pyav import PyAvFrameSource
from tests.videos import moving_frames, write_video
from training.footage.clips import write_clip

FPS = 12
NUM_FRAMES = 72
BASE, FIRST_GRAY, GRAY_STEP = 9, 40, 24
KEPT_ORDER = sorted(set(ATTACKS) - {"reversed", "shuffled"})


def attacked(name: str, *, num_frames: int = NUM_FRAMES, fps: int = FPS, seed: int = 5) -> Attacked:
    return ATTACKS[name](num_frames, Fraction(fps), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[float, int]]]:
    """For every attack, the time and the number of each frame that its video shows, `BLACK` for a black one."""
    folder = tmp_path_factory.mktemp("attacked")
    frames = [np.zeros((65, 47, 3), np.uint8) for _ in range(NUM_FRAMES)]
    for number, frame in enumerate(frames):
        frame[:32], frame[32:] = (FIRST_GRAY + GRAY_STEP * digit for digit in divmod(number, BASE))
    found = {}
    for name in ATTACKS:
        made = attacked(name)
        write_clip(folder / f"{name}.mp4", show(frames, made), fps=made.fps)
        found[name] = list(numbered(folder / f"{name}.mp4"))
    return found


def numbered(path: Path) -> Iterator[tuple[float, int]]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            assert frame.time is not None
            high, low = (round((half.mean() - FIRST_GRAY) / GRAY_STEP) for half in np.split(pixels, 2))
            yield frame.time, BLACK if high < 0 else BASE * high + low


Shown = dict[str, list[tuple[float, int]]]


def numbers(shown: Shown, name: str) -> list[int]:
    return [number for _, number in shown[name]]


def spacing_s(shown: Shown, name: str) -> float:
    times = [time for time, _ in shown[name]]
    return (times[-1] - times[0]) / (len(times) - 1)


def test_unchanged_shows_everything(shown: Shown) -> None:
    assert numbers(shown, "unchanged") == list(range(NUM_FRAMES))
    assert spacing_s(shown, "unchanged") == pytest.approx(1 / FPS)


def test_one_frame_in_every_ten_is_black(shown: Shown) -> None:
    found = numbers(shown, "black_tenth")
    black = [index for index, number in enumerate(found) if number == BLACK]
    assert set(np.diff(black)) == {10}
    assert black[0] < 10
    assert black[-1] >= NUM_FRAMES - 10
    assert all(number in (index, BLACK) for index, number in enumerate(found))


def test_the_black_frame_of_each_second_is_the_one_that_a_sampler_takes(shown: Shown) -> None:
    # By hand: at 12 fps the last frame before 0.5 s is number 5, shown from 5/12 s to 6/12 s.
    black = [index for index, number in enumerate(numbers(shown, "black_sampled")) if number == BLACK]
    assert black == [5, 17, 29, 41, 53, 65]


def test_the_sampler_sees_nothing_but_black(tmp_path: Path) -> None:
    for fps in (24, 25, 30):
        made = attacked("black_sampled", num_frames=4 * fps, fps=fps)
        path = tmp_path / f"{fps}.mp4"
        write_clip(path, show(moving_frames(4 * fps, height=48, width=64), made), fps=made.fps)
        with closing(PyAvFrameSource(Media("v", path))) as source:
            pictures = list(source.pictures())
        assert len(pictures) == 4
        assert max(picture.mean() for picture in pictures) < 20
        assert [number for _, number in numbered(path)].count(BLACK) == 4


def test_half_of_the_frames_are_dropped_and_none_is_late(shown: Shown) -> None:
    found = numbers(shown, "dropped")
    assert len(found) == NUM_FRAMES
    changes = 1 + np.count_nonzero(np.diff(found))
    assert 0.3 * NUM_FRAMES < changes < 0.7 * NUM_FRAMES
    last_new = 0
    for index, number in enumerate(found):
        last_new = index if index == 0 or number != found[index - 1] else last_new
        assert number == last_new


def test_doubled_frames_take_the_same_time(shown: Shown) -> None:
    assert numbers(shown, "doubled") == [number for number in range(NUM_FRAMES) for _ in range(2)]
    assert spacing_s(shown, "doubled") == pytest.approx(1 / (2 * FPS))


def test_15_fps_show_what_is_on_screen(shown: Shown) -> None:
    assert spacing_s(shown, "at_15_fps") == pytest.approx(1 / 15)
    assert len(shown["at_15_fps"]) == NUM_FRAMES * 15 // FPS
    for time_s, number in shown["at_15_fps"]:
        assert number / FPS <= time_s + 1e-4 < (number + 1) / FPS + 2e-4
    fewer = attacked("at_15_fps", num_frames=50, fps=25).frames
    assert fewer.tolist()[:7] == [0, 1, 3, 5, 6, 8, 10]


@pytest.mark.parametrize(("name", "low", "high"), [("slower", 0.75, 0.9), ("faster", 1.1, 1.25)])
def test_speeds_change_times_and_no_frame(shown: Shown, name: str, low: float, high: float) -> None:
    assert numbers(shown, name) == list(range(NUM_FRAMES))
    assert spacing_s(shown, name) == pytest.approx(1 / FPS / attacked(name).speed, rel=1e-3)
    speeds = {attacked(name, seed=seed).speed for seed in range(60)}
    assert low <= min(speeds) < max(speeds) <= high
    assert len(speeds) > 5


def test_cut_starts_lose_whole_frames(shown: Shown) -> None:
    assert numbers(shown, "offset_0.25s") == list(range(3, NUM_FRAMES))
    assert numbers(shown, "offset_0.5s") == list(range(6, NUM_FRAMES))
    assert all(shown[name][0][0] == 0 for name in ("offset_0.25s", "offset_0.5s"))


def test_reversed_and_shuffled_show_every_frame_once_in_another_order(shown: Shown) -> None:
    assert numbers(shown, "reversed") == list(range(NUM_FRAMES))[::-1]
    found = numbers(shown, "shuffled")
    assert found != sorted(found)
    assert sorted(found) == list(range(NUM_FRAMES))


@pytest.mark.parametrize("seed", range(10))
def test_pieces_last_2_to_4_s_but_for_what_is_left(seed: int) -> None:
    found = attacked("shuffled", num_frames=30 * 25, fps=25, seed=seed).frames
    assert sorted(found.tolist()) == list(range(30 * 25))
    assert not np.array_equal(found, np.arange(30 * 25))
    breaks = np.flatnonzero(np.diff(found) != 1) + 1
    pieces = np.split(found, breaks)
    # Pieces that happen to stay neighbours read as one; whatever ends the video may be short.
    lengths_s = [len(piece) / 25 for piece in pieces if piece[-1] != 30 * 25 - 1]
    assert min(lengths_s) >= 2 - 1 / 25
    assert len(pieces) >= 5


@pytest.mark.parametrize("name", KEPT_ORDER)
def test_the_ground_truth_moves_with_the_frames(shown: Shown, name: str) -> None:
    segment = Match("q", "r", 2.0, 4.5, 10.0, 12.5, score=1.0)
    found = moved(segment, attacked(name))
    assert found is not None
    inside = [number for time, number in shown[name] if found.query_start_s - 1e-3 <= time < found.query_end_s - 1e-3]
    true = {number for number in range(NUM_FRAMES) if 2.0 <= number / FPS < 4.5}
    if name == "dropped":  # a frame of before may still be held where the segment starts
        assert set(inside[FPS // 2 :]) <= true
        assert max(inside) in sorted(true)[-6:]
    else:
        assert set(inside) - {BLACK} == true - set(np.setdiff1d(list(true), numbers(shown, name)).tolist())
    assert (found.ref_start_s, found.ref_end_s) == (10.0, 12.5)


def test_what_is_cut_off_the_query_is_cut_off_the_reference() -> None:
    made = attacked("offset_0.5s")
    assert moved(Match("q", "r", 0.25, 2.25, 10.0, 14.0, 1.0), made) == Match("q", "r", 0.0, 1.75, 10.5, 14.0, 1.0)
    assert moved(Match("q", "r", 0.0, 0.5, 10.0, 10.5, 1.0), made) is None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("sets") / "val"
    for number, path in enumerate(["reference/R1", "query/Q1", "query/Q2", "query/Q3"]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{path}.mp4", moving_frames(60, height=64, width=80, seed=number), fps=FPS)
    with (folder / "val_matching_ground_truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end"], ["Q2", "R1", 1, 3, 0, 2]]
        )
    return find_data_set(folder)


def test_every_attack_becomes_a_set(source: DataSet, tmp_path: Path) -> None:
    make_attacks(source, tmp_path, num_queries=None)
    assert {path.name for path in tmp_path.iterdir()} == set(ATTACKS)
    for name in ATTACKS:
        data = find_data_set(tmp_path / name)
        assert {path.name for path in data.queries.iterdir()} == {"Q1.mp4", "Q2.mp4", "Q3.mp4"}
        assert data.references.resolve() == source.references.resolve()
        truth = read_ground_truth(data.ground_truth)
        assert truth.pairs == {("Q2", "R1")}
        assert (truth.matches is None) == (name in ("reversed", "shuffled"))
    made = read_ground_truth(tmp_path / "offset_0.5s" / "matching_ground_truth.csv").matches
    assert made is not None
    assert (made[0].query_start_s, made[0].query_end_s) == (0.5, 2.5)


def test_the_same_queries_are_drawn_each_time(source: DataSet) -> None:
    assert [media.video_id for media in chosen_queries(source, None)] == ["Q1", "Q2", "Q3"]
    assert chosen_queries(source, 2) == chosen_queries(source, 2)
    assert len(chosen_queries(source, 2)) == 2
    with pytest.raises(ConfigError, match="has 3 queries, fewer than the 4 asked for"):
        chosen_queries(source, 4)


def test_the_table_puts_builds_side_by_side() -> None:
    figures = [Figures("unchanged", "before", 0.5, 0.25), Figures("unchanged", "now", 0.75, 0.125)]
    lines = table([*figures, Figures("reversed", "before", 0.1, None), Figures("reversed", "now", 0.2, None)])
    assert lines[0].split() == [
        "attack",
        "uAP",
        "before",
        "uAP",
        "now",
        "segment",
        "AP",
        "before",
        "segment",
        "AP",
        "now",
    ]
    assert lines[1].split() == ["unchanged", "0.5000", "0.7500", "0.2500", "0.1250"]
    assert lines[2].split() == ["reversed", "0.1000", "0.2000", "-", "-"]
