"""Lines in time: planted copies of every speed, repeated, backwards and damaged, and a search through all lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.config import HoughVoting
from engine.projection import l2_normalize
from engine.records import GATED_BIAS, Descriptors, FloatArray, Match
from engine.search import hough_voting
from engine.search.hough_voting import localize
from tests.unit.search.footage import as_query, as_reference, describe, footage, shown_at

SHOWN = footage(1, 40)
REFERENCE = describe("R1", as_reference(SHOWN))


def query(*pieces: FloatArray) -> Descriptors:
    return describe("Q1", as_query(np.concatenate(pieces)))


def times(match: Match) -> tuple[float, float, float, float]:
    return match.query_start_s, match.query_end_s, match.ref_start_s, match.ref_end_s


def test_a_copy_between_other_footage() -> None:
    (match,) = localize(query(footage(2, 6), SHOWN[10:18], footage(3, 5)), REFERENCE)
    assert times(match) == (6, 14, 10, 18)
    assert (match.speed, match.mirrored) == (1.0, None)


def test_the_score_is_the_evidence_of_the_strongest_times() -> None:
    video = query(SHOWN[5:25])
    expected = sorted((video.descriptors @ REFERENCE.descriptors.T)[np.arange(20), np.arange(5, 25)] + 0.25)[::-1]
    for score_rows in (1, 12, 99):
        (match,) = localize(video, REFERENCE, settings=HoughVoting(score_rows=score_rows))
        assert match.score == pytest.approx(sum(expected[:score_rows]), rel=1e-6)


@pytest.mark.parametrize("speed", [0.5, 0.7, 0.8, 1.25, 1.43, 2.0, -1.0])
def test_speeds(speed: float) -> None:
    start = 38.0 if speed < 0 else 3.0
    num_rows = int(min(16, 30 / abs(speed)))
    video = query(footage(2, 4), shown_at(SHOWN, start + speed * np.arange(num_rows)), footage(3, 4))
    match = localize(video, REFERENCE)[0]
    assert match.speed == speed
    ends = sorted((start + speed * -0.5, start + speed * (num_rows - 0.5)))
    expected = (4.0, 4.0 + num_rows, ends[0] + 0.5, ends[1] + 0.5)
    assert times(match) == pytest.approx(expected, abs=1.0)


def between(share: float, num_rows: int = 12) -> Descriptors:
    """Footage of the reference from 10 s on, sampled when rows of the reference are not, between other footage."""
    return query(footage(2, 6), shown_at(SHOWN, 10 + share + np.arange(num_rows)), footage(3, 5))


def test_ends_are_those_of_the_shots_of_the_query() -> None:
    """A row shows the middle of its second: what is cut in at 5.7 s is first seen in the row of 6 s."""
    video = replace(query(footage(2, 6), SHOWN[10:18], footage(3, 5)), shot_ends_s=(3.2, 5.7, 14.4, 18.9))
    (match,) = localize(video, REFERENCE)
    assert times(match) == pytest.approx((5.7, 14.4, 9.7, 18.4), abs=0.05)


def test_cuts_that_are_too_far_away_say_nothing_of_an_end() -> None:
    video = replace(query(footage(2, 6), SHOWN[10:18], footage(3, 5)), shot_ends_s=(5.3, 14.7, 19.0))
    (match,) = localize(video, REFERENCE)
    assert times(match)[:2] == (6, 14)


def test_whole_videos_end_when_the_files_do() -> None:
    video, reference = replace(query(SHOWN), shot_ends_s=(40.44,)), replace(REFERENCE, shot_ends_s=(40.36,))
    assert times(localize(video, reference)[0]) == (0, 40.44, 0, 40.36)
    shorter = replace(query(SHOWN), shot_ends_s=(39.6,))
    assert times(localize(shorter, REFERENCE)[0]) == (0, 39.6, 0, 39.6)


def test_a_cut_that_both_videos_have_tells_the_offset() -> None:
    video = replace(between(0.4), shot_ends_s=(9.5, 23.0))
    reference = replace(REFERENCE, shot_ends_s=(13.85, 40.0))
    (match,) = localize(video, reference)
    assert match.ref_start_s - match.query_start_s == pytest.approx(4.35, abs=1e-6)


def test_where_a_copy_is_cut_in_and_out_the_reference_has_no_cut() -> None:
    """One that it has nearby is another one: only cuts within the copy tell."""
    video = replace(query(footage(2, 6), SHOWN[10:18], footage(3, 5)), shot_ends_s=(5.7, 14.4, 19.0))
    (match,) = localize(video, replace(REFERENCE, shot_ends_s=(10.1, 18.0, 40.0)))
    assert times(match) == pytest.approx((5.7, 14.4, 9.7, 18.4), abs=0.05)


def test_one_cut_alone_has_to_agree_better_with_rows_than_two() -> None:
    by_rows = localize(between(0.4), REFERENCE)[0].ref_start_s - 6
    cuts = (9.5, 13.5, 23.0)
    lone = localize(replace(between(0.4), shot_ends_s=cuts[::2]), replace(REFERENCE, shot_ends_s=(14.26, 40.0)))[0]
    assert lone.ref_start_s - lone.query_start_s == pytest.approx(by_rows, abs=0.01)
    two = localize(replace(between(0.4), shot_ends_s=cuts), replace(REFERENCE, shot_ends_s=(14.26, 18.26, 40.0)))[0]
    assert two.ref_start_s - two.query_start_s == pytest.approx(4.76, abs=0.01)


@pytest.mark.parametrize("share", [-0.45, -0.25, 0.25, 0.45])
def test_as_much_of_the_query_is_told_as_of_the_reference(share: float) -> None:
    """Of a reference that is shown as a whole, at any offset between its rows."""
    video = query(footage(2, 6), shown_at(SHOWN[:12], share + np.arange(12)), footage(3, 5))
    (match, *_) = localize(video, describe("R1", as_reference(SHOWN[:12])))
    assert match.query_end_s - match.query_start_s == pytest.approx(match.ref_end_s - match.ref_start_s, abs=0.5)


def test_of_cuts_near_one_another_those_that_agree_tell_the_offset() -> None:
    video = replace(between(0.4), shot_ends_s=(7.5, 9.5, 11.9, 14.5, 23.0))
    reference = replace(REFERENCE, shot_ends_s=(13.85, 16.0, 18.85, 40.0))
    (match,) = localize(video, reference)
    assert match.ref_start_s - match.query_start_s == pytest.approx(4.35, abs=1e-6)


@pytest.mark.parametrize("share", [-0.4, 0.4])
def test_without_cuts_rows_beside_the_line_tell_the_offset(share: float) -> None:
    (match,) = localize(between(share), REFERENCE)
    assert match.ref_start_s - match.query_start_s == pytest.approx(4 + share, abs=0.16)


def test_the_pairs_of_cuts_that_are_near_one_another() -> None:
    generator = np.random.default_rng(0)
    for num_values in (0, 1, 7, 60):
        values, others = (np.sort(generator.uniform(0, 20, size)) for size in (num_values, 40))
        every = (others[:, None] - values).ravel()
        expected = np.sort(every[np.abs(every) <= 0.4])
        np.testing.assert_allclose(hough_voting._differences(others, values, limit=0.4), expected)


def test_cuts_at_another_speed() -> None:
    """The cut of the reference at 13.2 s is shown 5.2 / 0.8 s after the copy begins at 6 s with 8 s."""
    video = query(footage(2, 6), shown_at(SHOWN, 8 + 0.8 * np.arange(15)), footage(3, 5))
    cut = replace(video, shot_ends_s=(6 + 5.2 / 0.8, 26.0))
    (match,) = localize(cut, replace(REFERENCE, shot_ends_s=(13.2, 40.0)))
    assert match.speed == 0.8
    assert match.ref_start_s == pytest.approx(8 + 0.2 / 2, abs=0.11)


def test_an_excerpt_shown_twice_gives_two_matches() -> None:
    video = query(footage(2, 8), SHOWN[8:18], footage(3, 8), SHOWN[8:18], footage(4, 4))
    assert sorted(map(times, localize(video, REFERENCE))) == [(8, 18, 8, 18), (26, 36, 8, 18)]


def test_an_intro_and_an_outro_at_the_same_offset_are_two_matches() -> None:
    video = query(SHOWN[:6], footage(2, 10), SHOWN[16:22])
    assert sorted(map(times, localize(video, REFERENCE))) == [(0, 6, 0, 6), (16, 22, 16, 22)]
    (match,) = localize(query(SHOWN[:6], footage(2, 4), SHOWN[10:16]), REFERENCE)
    assert times(match) == (0, 16, 0, 16), "a shorter stretch that does not fit ends no segment"


def test_a_frame_every_ten_seconds_is_no_gap() -> None:
    sparse = [
        Descriptors(video.video_id, 10 * video.timestamps, video.descriptors)
        for video in (query(footage(2, 3), SHOWN[5:25], footage(3, 3)), REFERENCE)
    ]
    (match,) = localize(*sparse)
    assert times(match) == (30, 230, 50, 250)


def test_footage_that_the_reference_repeats_gives_two_matches() -> None:
    reference = describe("R1", as_reference(np.concatenate([SHOWN[:12], footage(2, 3), SHOWN[:12]])))
    assert sorted(map(times, localize(query(SHOWN[:12]), reference))) == [(0, 12, 0, 12), (0, 12, 15, 27)]


def test_forwards_and_then_backwards() -> None:
    video = query(SHOWN[10:20], SHOWN[19:9:-1])
    # At the turn one more row is within a row of the first line.
    backwards, forwards = sorted(localize(video, REFERENCE), key=lambda match: match.speed)
    assert (backwards.speed, *times(backwards)) == pytest.approx((-1, 10, 20, 10, 20), abs=1.01)
    assert (forwards.speed, *times(forwards)) == pytest.approx((1, 0, 10, 10, 20), abs=1.01)


@pytest.mark.parametrize("num_s", [1, 2, 3])
def test_a_copy_of_few_seconds(num_s: int) -> None:
    video = query(footage(2, 6), SHOWN[10 : 10 + num_s], footage(3, 6))
    (match,) = localize(video, REFERENCE)
    assert times(match) == (6, 6 + num_s, 10, 10 + num_s)
    assert localize(video, REFERENCE, settings=HoughVoting(min_rows=num_s + 1)) == []


def test_single_times_that_do_not_fit_do_not_end_a_segment() -> None:
    copied = SHOWN[4:34].copy()
    copied[[5, 15, 25]] = footage(9, 1)
    (match,) = localize(query(copied), REFERENCE)
    assert times(match) == (0, 30, 4, 34)


def test_the_most_similar_of_the_rows_of_a_time_counts() -> None:
    wrong, right = footage(5, 10), SHOWN[12:22]
    mixed = np.concatenate(
        [np.where(np.arange(10)[:, None] % 2, wrong, right), np.where(np.arange(10)[:, None] % 2, right, wrong)]
    )
    (match,) = localize(describe("Q1", as_query(mixed), num_scenes=2), REFERENCE)
    assert times(match) == (0, 10, 12, 22)


def test_a_row_counts_at_every_time_it_stands_for() -> None:
    rows = np.concatenate([SHOWN[10:14], footage(2, 3)])
    spans = [[0, 1], [1, 2], [2, 3], [3, 8], [8, 9], [9, 10], [10, 11]]
    still = Descriptors("Q1", np.array(spans, np.float32), as_query(rows))
    reference = describe("R1", as_reference(np.concatenate([SHOWN[:14], *[SHOWN[13:14]] * 4, footage(3, 9)])))
    (match,) = localize(still, reference)
    assert times(match) == (0, 8, 10, 18)
    repeated = describe("Q1", as_query(rows[[0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 6]]))
    assert localize(repeated, reference) == [match]


@pytest.mark.parametrize("num_rows", [1, 12])
def test_times_that_end_where_they_start(num_rows: int) -> None:
    instants = np.repeat(np.arange(num_rows, dtype=np.float32)[:, None], 2, axis=1)
    video = Descriptors("Q1", instants, as_query(SHOWN[:num_rows]))
    with np.errstate(all="raise"):
        found = localize(video, Descriptors("R1", instants, as_reference(SHOWN[:num_rows])))
    assert [match.speed for match in found] == [1.0] * (num_rows > 1)


def test_a_still_picture_that_lasts_is_a_segment() -> None:
    still = Descriptors("Q1", np.array([[0, 9], [9, 10]], np.float32), as_query([SHOWN[5], *footage(2, 1)]))
    reference = describe("R1", as_reference(np.concatenate([footage(3, 4), *[SHOWN[5:6]] * 9, footage(4, 4)])))
    (match,) = localize(still, reference)
    assert times(match) == (0, 9, 4, 13)


def test_a_picture_that_stands_still_says_nothing_of_a_speed() -> None:
    alike = footage(1, 1) + 0.5 * footage(2, 10)
    frozen = Descriptors(
        "Q1",
        np.array([[0, 1], [1, 2], [2, 3], [3, 23], *[[n, n + 1] for n in range(23, 30)]], np.float32),
        as_query(alike[[0, 1, 2, 3, *range(3, 10)]]),
    )
    matches = localize(frozen, describe("R1", as_reference(alike)))
    assert {match.speed for match in matches} == {1.0}
    shown = [(match.query_start_s, match.query_end_s) for match in matches]
    assert any(start <= 0 and end >= 4 for start, end in shown)
    assert any(start <= 23 and end >= 30 for start, end in shown)


def test_unrelated_and_stopped_videos_share_nothing() -> None:
    assert localize(query(footage(7, 60)), REFERENCE) == []
    stopped = Descriptors("Q2", np.array([[0, 1]], np.float32), as_query(SHOWN[:1], GATED_BIAS), gate="stopped")
    assert localize(stopped, REFERENCE) == []


def test_a_video_shorter_than_a_segment_is_one_as_a_whole() -> None:
    one = describe("R1", as_reference(SHOWN[:1]))
    assert [times(match) for match in localize(query(SHOWN[:1]), one)] == [(0, 1, 0, 1)]
    assert [times(match) for match in localize(query(SHOWN[7:9]), REFERENCE)] == [(0, 2, 7, 9)]
    assert localize(query(footage(2, 1)), REFERENCE) == []
    assert localize(query(footage(2, 9)), one) == []


def test_a_still_video_whose_rows_were_dropped_but_one() -> None:
    still = Descriptors("Q1", np.array([[0, 20]], np.float32), as_query(SHOWN[:1]))
    reference = describe("R1", as_reference(np.repeat(SHOWN[:1], 20, axis=0)))
    (match,) = localize(still, reference)
    assert (times(match), match.speed) == ((0, 20, 0, 20), 1.0)


def test_equal_rows_are_aligned_as_a_whole() -> None:
    rows = np.repeat(SHOWN[:1], 20, axis=0)
    (match,) = localize(query(rows), describe("R1", as_reference(rows)))
    assert (times(match), match.speed) == ((0, 20, 0, 20), 1.0)


@pytest.mark.parametrize("span", [(0.0, 1e6), (19.0, 3600.0), (0.0, 0.001), (0.0, 3e38)])
def test_work_is_bounded_by_rows_whatever_their_times_claim(span: tuple[float, float]) -> None:
    spans = np.stack([np.arange(20), np.arange(20) + 1], axis=1).astype(np.float32)
    spans[3] = span
    with np.errstate(over="ignore"):
        for claims in (Descriptors("Q1", spans, as_query(SHOWN[:20])), query(SHOWN[:20])):
            found = localize(claims, Descriptors("R1", spans, as_reference(SHOWN[:20])))
    assert found


def test_much_weaker_segments_of_the_same_seconds_are_left_out() -> None:
    near = SHOWN[10:18] + 0.19 * footage(8, 8)
    reference = describe("R1", as_reference(np.concatenate([SHOWN[10:18], footage(2, 5), near, footage(3, 5)])))
    weak = as_reference(0.3 * SHOWN[10:18] + footage(9, 8))
    other = describe("R1", np.concatenate([as_reference(SHOWN[10:18]), as_reference(footage(2, 5)), weak]))
    settings = HoughVoting(unrelated_similarity=-0.5)
    assert len(localize(query(SHOWN[10:18]), reference, settings=settings)) == 2
    assert len(localize(query(SHOWN[10:18]), other, settings=settings)) == 1
    everything = HoughVoting(unrelated_similarity=-0.5, min_score_ratio=0.0)
    assert len(localize(query(SHOWN[10:18]), other, settings=everything)) == 2


@pytest.mark.parametrize("speed", [0.0, 1e300, 0.05, -20.0])
def test_speeds_without_sense_are_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="other_speeds"):
        HoughVoting(other_speeds=(speed,))


@pytest.mark.parametrize("speed", [1.25, 1.43, 2.0])
def test_the_speed_of_footage_that_hardly_changes(speed: float) -> None:
    alike = l2_normalize(4 * footage(1, 1) + footage(2, 30))
    shown = shown_at(alike, speed * np.arange(int(29 / speed)))
    assert localize(query(shown), describe("R1", as_reference(alike)))[0].speed == speed


def largest_sum_on_any_line(evidence: FloatArray, settings: HoughVoting) -> float:
    """The definition: every speed, every offset in half rows, every run; of the one chosen the evidence alone."""
    num_times, num_columns = evidence.shape
    best = chosen = 0.0
    for speed in (1.0, *settings.other_speeds):
        for offset in np.arange(-2 * num_times - num_columns, 2 * num_times + 2 * num_columns, 0.5):
            running = alone = 0.0
            for time in range(num_times):
                ref = speed * time + offset
                if not -0.5 <= ref <= num_columns - 0.5:
                    running = alone = 0.0
                    continue
                column = min(max(int(np.ceil(ref - 0.5)), 0), num_columns - 1)
                beside = [evidence[time, c] for c in (column - 1, column + 1) if 0 <= c < num_columns]
                value = max(evidence[time, column], max(beside) - settings.beside_loss, -settings.max_loss)
                alone = value + (alone if running > 0 else 0.0)
                missing = max(evidence[time].max(), 0.0) - max(value, 0.0)
                sharp = max(value - settings.off_peak_loss * max(missing, 0.0), -settings.max_loss)
                running = max(running, 0.0) + sharp
                weighted = running * (1.0 if speed == 1.0 else settings.other_speed_weight)
                if weighted > best:
                    best, chosen = weighted, alone
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_the_line_of_most_evidence_is_chosen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    settings = HoughVoting(score_rows=999)
    speed = [1.0, 0.8, 1.43, -1.0][seed]
    copied = shown_at(SHOWN, (30 if speed < 0 else 3) + speed * np.arange(14))
    noisy = copied + 0.04 * rng.normal(size=copied.shape).astype(np.float32)
    video = query(footage(seed + 20, 5), noisy, footage(seed + 30, 5))
    evidence = video.descriptors @ REFERENCE.descriptors.T - np.float32(settings.unrelated_similarity)
    match = localize(video, REFERENCE, settings=settings)[0]
    assert match.score == pytest.approx(largest_sum_on_any_line(evidence, settings), rel=1e-5)


def test_rows_of_any_order_give_the_same() -> None:
    video = query(footage(2, 6), SHOWN[10:18], footage(3, 5))
    order = np.random.default_rng(0).permutation(len(video))
    shuffled = Descriptors("Q1", video.timestamps[order], video.descriptors[order])
    (found,), (expected,) = localize(shuffled, REFERENCE), localize(video, REFERENCE)
    assert (times(found), found.speed) == (times(expected), expected.speed)
    assert found.score == pytest.approx(expected.score, rel=1e-6)


def test_long_videos_are_compared_in_blocks() -> None:
    rows = footage(6, 2500)
    video = query(footage(2, 900), rows[100:2300], footage(3, 300))
    (match,) = localize(video, describe("R1", as_reference(rows)))
    assert times(match) == (900, 3100, 100, 2300)


def test_very_long_videos_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    video = query(footage(2, 6), SHOWN[5:35], footage(3, 6))
    monkeypatch.setattr(hough_voting, "_MAX_CELLS", 20 * 40)
    assert sorted(map(times, localize(video, REFERENCE))) == [(6, 20, 5, 19), (20, 36, 19, 35)]


@pytest.mark.parametrize("name", ["min_rows", "votes_per_row", "score_rows", "max_lines"])
def test_settings_without_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        HoughVoting.model_validate({name: 0})
