from __future__ import annotations

import json
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest

from engine.records import Media
from engine.video.media import index_timeline
from engine.video.sampling import sample_frames, sample_keyframes, slot_timestamps, widest_gap_s
from tests.conftest import golden_root

SAMPLING = golden_root() / "sampling"
CLIPS: dict[str, Any] = json.loads((SAMPLING / "golden.json").read_text())["videos"]
DAMAGED = {"truncated_faststart.mp4"}  # its packets lie; tests of the frame source cover it


def picked(times_s: list[float], *, end_s: float, fps: float = 1.0) -> list[int]:
    samples = sample_frames(np.array(times_s), end_s=end_s, fps=fps)
    assert np.diff(samples.slots).tolist() == [1] * (len(samples.slots) - 1)
    return samples.frames.tolist()


def constant_rate(rate: float, *, num_frames: int) -> tuple[list[float], float]:
    return [frame / rate for frame in range(num_frames)], num_frames / rate


@pytest.mark.parametrize("name", sorted(CLIPS.keys() - DAMAGED))
def test_golden_selection(name: str) -> None:
    timeline = index_timeline(Media(name, SAMPLING / "videos" / name))
    slots, frames, _, holes_s = sample_frames(timeline.times_s, end_s=timeline.end_s)
    assert frames.dtype == slots.dtype == np.int64
    if CLIPS[name]["n_outputs"] == 0:  # FFmpeg writes nothing
        assert len(frames) == 1
        return
    assert slots.tolist() == list(range(CLIPS[name]["n_outputs"]))
    assert frames.tolist() == [output["source_frame"] for output in CLIPS[name]["outputs"]]
    assert holes_s == []


@pytest.mark.parametrize("name", CLIPS)
def test_golden_timestamps(name: str) -> None:
    timestamps = slot_timestamps(CLIPS[name]["n_outputs"])
    assert timestamps.dtype == np.float32
    assert timestamps.shape == (CLIPS[name]["n_outputs"], 2)
    assert timestamps.tolist() == CLIPS[name]["timestamps"]


class TestSampleFrames:
    @pytest.mark.parametrize(
        ("rate", "expected"), [(30, [14, 44, 74]), (25, [12, 37, 62]), (2, [0, 2, 4]), (1, [0, 1, 2]), (0.5, [0, 0, 1])]
    )
    def test_each_second_shows_the_last_frame_of_its_first_half(self, rate: float, expected: list[int]) -> None:
        times_s, _ = constant_rate(rate, num_frames=int(10 * rate))
        assert picked(times_s, end_s=10.0)[:3] == expected

    def test_holes_are_filled_with_the_frame_before(self) -> None:
        assert picked([0.0, 1.0, 4.6], end_s=6.0) == [0, 1, 1, 1, 1, 2]

    def test_a_late_start_is_filled_with_the_first_frame_that_is_shown(self) -> None:
        assert picked([2.6, 3.6, 4.6], end_s=6.0) == [0, 0, 0, 0, 1, 2]
        assert picked([2.6, 3.4, 4.6], end_s=6.0) == [1, 1, 1, 1, 1, 2]

    @pytest.mark.parametrize(("end_s", "count"), [(0.04, 1), (0.49, 1), (0.5, 1), (1.49, 1), (1.5, 2)])
    def test_the_length_is_rounded(self, end_s: float, count: int) -> None:
        assert len(picked([0.0], end_s=end_s)) == count

    def test_a_clip_too_short_for_a_slot_has_the_slot_that_it_starts_in(self) -> None:
        slots, frames, *_ = sample_frames(np.array([0.8, 0.84]), end_s=1.48)
        assert (slots.tolist(), frames.tolist()) == ([1], [1])

    def test_a_picture_that_is_held_for_longer_than_a_minute_has_one_slot(self) -> None:
        slots, frames, _, holes_s = sample_frames(np.array([0.0, 1.0, 62.0, 124.0, 2000.0]), end_s=900_000.0)
        assert slots.tolist() == [0, 1, 62, 124, 2000]
        assert frames.tolist() == [0, 1, 2, 3, 4]
        assert holes_s == [(1, 62), (62, 124), (124, 2000), (2000, 900_000)]

    def test_a_minute_is_filled(self) -> None:
        assert picked([0.0, 60.0, 119.0], end_s=179.0) == [0] * 60 + [1] * 59 + [2] * 60

    def test_a_start_that_is_later_than_a_minute_is_not_filled(self) -> None:
        slots, frames, *_ = sample_frames(np.array([70.0, 71.0]), end_s=72.0)
        assert (slots.tolist(), frames.tolist()) == ([70, 71], [0, 1])

    def test_the_number_of_slots_is_bounded_by_that_of_pictures(self) -> None:
        times_s = np.array([0.0, 1e5, 2e5, 9e5])
        assert len(sample_frames(times_s, end_s=1e6, fps=30.0).slots) == 4

    def test_halves_survive_floating_point_noise(self) -> None:
        times_s, _ = constant_rate(10, num_frames=31)
        noisy = [time + (-1) ** n * 1e-13 for n, time in enumerate(times_s)]
        assert picked(noisy, end_s=3.1) == picked(times_s, end_s=3.1) == [4, 14, 24]

    def test_a_frame_before_the_start_of_the_container_is_hidden_by_the_next(self) -> None:
        assert picked([-0.6, 0.0, 1.0], end_s=2.0) == [1, 2]

    @pytest.mark.parametrize("fps", [0.25, 0.5, 1.0, 2.0, 5.0, 12.5])
    def test_against_the_filter_simulated_frame_by_frame(self, fps: float) -> None:
        generator = np.random.default_rng(7)
        for _ in range(100):
            clock = int(generator.choice([10, 25, 30, 1000, 90_000, 12_800]))
            steps = generator.integers(0, 3 * clock, size=generator.integers(1, 30))
            ticks = np.cumsum(steps) - int(generator.integers(0, clock))
            end = int(ticks[-1] + generator.integers(0, 2 * clock))
            expected = simulate_filter([Fraction(int(t), clock) for t in ticks], Fraction(end, clock), Fraction(fps))
            assert picked((ticks / clock).tolist(), end_s=end / clock, fps=fps) == expected

    def test_times_that_run_backwards_are_taken_in_decoding_order(self) -> None:
        times = [Fraction(time) for time in (0, 3, 1, 4)]
        assert picked([float(time) for time in times], end_s=5.0) == [0, 0, 0, 2, 3]
        assert simulate_filter(times, Fraction(5), Fraction(1)) == [0, 0, 0, 2, 3]


def simulate_filter(times: list[Fraction], end: Fraction, fps: Fraction) -> list[int]:
    """The fps filter as it runs: the current frame is written until its successor is due, at the end until the end."""

    def rounded(time: Fraction) -> int:
        return floor(time * fps + Fraction(1, 2)) if time >= 0 else -floor(-time * fps + Fraction(1, 2))

    due = [rounded(time) for time in times]
    slot, written = due[0], []
    for frame, successor in enumerate([*due[1:], None]):
        while slot < (rounded(end) if successor is None else successor):
            written.append((slot, frame))
            slot += 1
    if not written or rounded(end) <= due[0]:
        return [max(k for k in range(len(due)) if due[k] <= due[0])]
    first_slot, first_frame = written[0]
    # Images are written at a constant rate from 0: a late start is filled, what lies before 0 is left out.
    kept = [frame for slot, frame in written if 0 <= slot < rounded(end)]
    return [first_frame] * max(first_slot, 0) + kept


@pytest.mark.parametrize("fps", [1.0, 2.0, 0.5])
def test_slots_cover_the_time_without_gaps(fps: float) -> None:
    timestamps = slot_timestamps(7, fps=fps)
    assert timestamps[:, 0].tolist() == [slot / fps for slot in range(7)]
    assert timestamps[1:, 0].tolist() == timestamps[:-1, 1].tolist()


class TestSampleKeyframes:
    def test_of_each_slot_the_one_nearest_to_its_middle_with_its_own_time(self) -> None:
        times_s, end_s = constant_rate(25, num_frames=75)
        samples = sample_keyframes(np.array(times_s), np.arange(0, 75, 10), end_s=end_s)
        assert (samples.slots.tolist(), samples.frames.tolist()) == ([0, 1, 2], [10, 40, 60])
        np.testing.assert_array_equal(samples.timestamps, np.float32([[0.4, 1.6], [1.6, 2.4], [2.4, 3.0]]))

    def test_slots_without_a_key_frame_have_none(self) -> None:
        samples = sample_keyframes(np.array([0.0, 0.1, 4.0, 8.5]), np.array([0, 2, 3]), end_s=9.0)
        assert (samples.slots.tolist(), samples.frames.tolist()) == ([0, 4, 8], [0, 2, 3])
        assert samples.timestamps.tolist() == [[0, 4], [4, 8.5], [8.5, 9]]

    @pytest.mark.parametrize("fps", [0.5, 1.0, 3.0])
    def test_like_a_search_slot_by_slot(self, fps: float) -> None:
        generator = np.random.default_rng(7)
        times_s = np.sort(generator.uniform(0, 30, 200))
        keyframes = np.sort(generator.choice(200, 60, replace=False))
        expected = []
        for slot in range(int(30 * fps) + 1):
            inside = [frame for frame in keyframes if slot <= times_s[frame] * fps < slot + 1]
            if inside:
                expected.append(min(inside, key=lambda frame: abs(times_s[frame] * fps - slot - 0.5)))
        assert sample_keyframes(times_s, keyframes, end_s=30.0, fps=fps).frames.tolist() == expected

    def test_times_before_the_start_of_the_container_are_its_start(self) -> None:
        samples = sample_keyframes(np.array([-0.5, 0.2, 1.0]), np.array([0, 2]), end_s=1.5)
        assert samples.timestamps.tolist() == [[0, 1], [1, 1.5]]

    def test_the_widest_gap_counts_the_start_and_the_end(self) -> None:
        times_s = np.array([1.0, 2.0, 5.0, 6.0])
        assert widest_gap_s(times_s, np.array([0, 2]), end_s=8.0) == 4.0
        assert widest_gap_s(times_s, np.array([3]), end_s=7.0) == 6.0
        assert widest_gap_s(times_s, np.array([1, 2]), end_s=30.0) == 25.0
        assert widest_gap_s(times_s, np.array([], dtype=np.int64), end_s=1.0) == float("inf")
