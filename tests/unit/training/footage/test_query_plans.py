"""Plans drawn from sources that exist only as numbers, and sources probed from small files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.records import Media
from tests.videos import moving_frames, write_video
from training.footage.edits import EDITS
from training.footage.edits.temporal import ChangeVideoSpeed, Fps
from training.footage.query_plans import Footage, QueryPlan, Segment, Source, plan_queries, probe_sources, true_matches

REFERENCES = [Source(f"R{k}", Path(f"R{k}.mp4"), 3.0 + 2.5 * k, Fraction(25)) for k in range(8)]
DISTRACTORS = [Source(f"D{k}", Path(f"D{k}.mp4"), 2.5 + 3 * k, Fraction(30000, 1001)) for k in range(5)]


def plans(seed: int = 1, num_copies: int = 30, num_plain: int = 12) -> list[QueryPlan]:
    return plan_queries(REFERENCES, distractors=DISTRACTORS, num_copies=num_copies, num_plain=num_plain, seed=seed)


def test_plans_follow_from_the_seed() -> None:
    assert plans(seed=3) == plans(seed=3)
    assert plans(seed=3) != plans(seed=4)


def test_there_are_as_many_as_asked_with_ids_of_their_own() -> None:
    drawn = plans()
    kinds = Counter(plan.kind for plan in drawn)
    assert [plan.query_id for plan in drawn] == [f"Q{number:06d}" for number in range(1, 43)]
    assert kinds == {"full": 15, "insert": 10, "two": 5, "plain": 12}
    assert {plan.kind for plan in drawn[:10]} >= {"full", "plain"}, "copies and plain queries are not mixed"


def test_segments_fit_their_kind() -> None:
    expected = {"full": [True], "insert": [False, True, False], "two": [True, True], "plain": [False]}
    for plan in plans():
        assert [segment.is_copy for segment in plan.segments] == expected[plan.kind]
        assert all(
            segment.footage.source in (REFERENCES if segment.is_copy else DISTRACTORS) for segment in plan.segments
        )


def test_a_plain_query_shows_up_to_as_many_sources_as_asked() -> None:
    drawn = plan_queries(
        REFERENCES, distractors=DISTRACTORS[1:], num_copies=1, num_plain=40, seed=2, max_plain_pieces=3
    )
    pieces = [plan.segments for plan in drawn if plan.kind == "plain"]
    assert {len(segments) for segments in pieces} == {1, 2, 3}
    assert not any(segment.is_copy for segments in pieces for segment in segments)
    for segments in pieces:
        longest_s = sum(float(segment.num_frames / segments[0].footage.source.fps) for segment in segments)
        assert longest_s <= 12


def test_copies_and_a_share_of_the_rest_are_letterboxed_and_all_else_stays() -> None:
    none, half = (
        plan_queries(REFERENCES, distractors=DISTRACTORS, num_copies=60, num_plain=60, seed=2, letterboxed_share=share)
        for share in (0.0, 0.5)
    )
    segments = [segment for plan in half for segment in plan.segments]
    assert all(segment.is_letterboxed for segment in segments if segment.is_copy)
    unrelated = [segment.is_letterboxed for segment in segments if not segment.is_copy]
    assert 0.35 < np.mean(unrelated) < 0.65
    assert [replace(segment, is_letterboxed=segment.is_copy) for segment in segments] == [
        segment for plan in none for segment in plan.segments
    ]


@pytest.mark.parametrize("seed", range(5))
def test_every_segment_lies_within_its_source(seed: int) -> None:
    for plan in plans(seed=seed):
        for segment in plan.segments:
            end_s = segment.footage.start_s + segment.speed * float(segment.num_frames / plan.fps)
            assert segment.num_frames > 0
            assert 0 <= segment.footage.start_s <= end_s <= segment.footage.source.duration_s + 0.001


def test_every_kind_of_edit_occurs_and_gets_its_distractors() -> None:
    seen = set()
    for plan in plans():
        for segment in plan.segments:
            assert len(segment.distractors) == sum(edit.num_distractors for edit in segment.edits)
            assert bool(segment.edits) == segment.is_copy
            seen |= {edit.name for edit in segment.edits}
    assert seen == set(EDITS)


def test_a_quarter_of_the_references_is_never_copied() -> None:
    copied = {match.ref_id for plan in plans(num_copies=60) for match in true_matches(plan)}
    assert len(copied) == 6


def test_true_matches_count_frames_and_multiply_speeds() -> None:
    unrelated = Segment(Footage(DISTRACTORS[1], 0.0), num_frames=50)
    edits = (ChangeVideoSpeed(1.5), Fps(2))
    copy = Segment(Footage(REFERENCES[4], 2.25), num_frames=75, is_copy=True, edits=edits)
    plan = QueryPlan("Q1", "insert", Fraction(25), (unrelated, copy, unrelated))
    (match,) = true_matches(plan)
    assert (match.query_id, match.ref_id) == ("Q1", "R4")
    assert (match.query_start_s, match.query_end_s) == (2.0, 5.0)
    assert (match.ref_start_s, match.ref_end_s) == (2.25, 6.75)


def test_two_copies_do_not_overlap() -> None:
    for plan in plans():
        for one, other in combinations(true_matches(plan), 2):
            assert one.query_end_s == other.query_start_s


def test_probe_sources_reads_length_and_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "slow.mp4", moving_frames(36), fps=12)
    write_video(tmp_path / "short.mp4", moving_frames(20), fps=25)
    write_video(tmp_path / "fast.mp4", moving_frames(150), fps=60)
    media = [Media(f"s/{name}", tmp_path / f"{name}.mp4") for name in ("slow", "short", "fast")]
    sources = probe_sources(media, max_source_s=2.4)
    assert [source.video_id for source in sources] == ["s/slow", "s/fast"]
    assert [source.fps for source in sources] == [12, 30]
    assert [source.duration_s for source in sources] == [2.4, 2.4]


def test_probing_only_short_videos_fails(tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", moving_frames(20), fps=25)
    with pytest.raises(ConfigError, match="no video of 1 lasts 2 s"):
        probe_sources([Media("short", tmp_path / "short.mp4")], max_source_s=60)
