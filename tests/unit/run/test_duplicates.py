"""Copies within one collection: every pair once, clusters, and which video is worth keeping."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from engine.config import load_preset
from engine.evaluate.calibration import VerdictScores
from engine.records import CandidatePair, Match, Media
from engine.run.duplicates import (
    DuplicatePair,
    _halves,
    _oriented,
    find_clusters,
    find_pairs,
    group_same_bytes,
    once_each,
    same_bytes_pairs,
)
from engine.search.comparison import compare, prepare
from tests.catalogs import copy_of, video
from tests.videos import moving_frames, write_video

PRESET = load_preset("lite")


def media(folder: Path, *names: str) -> list[Media]:
    return [Media(name, folder / name) for name in names]


@pytest.mark.parametrize("num_videos", [*range(9), 50])
def test_halves_hold_each_pair_once_both_ways_and_no_video_with_itself(num_videos: int) -> None:
    found = [pair for one, other in _halves(range(num_videos)) for pair in product(one, other)]
    assert sorted(found) == [pair for pair in product(range(num_videos), repeat=2) if pair[0] != pair[1]]


def test_pairs_are_those_of_each_video_against_each_other_one() -> None:
    originals = [video(f"v{number}", 12, seed=3, num_dims=64) for number in range(6)]
    videos = [*originals, copy_of(originals[1], "a copy", start=3), copy_of(originals[4], "w", noise=0.05)]
    norm = np.concatenate([video(f"n{number}", 20, seed=9, num_dims=64).descriptors for number in range(5)])
    assert PRESET.false_matches is not None
    found = find_pairs(videos, videos, preset=PRESET, false_matches=PRESET.false_matches, norm_rows=norm)
    thresholds = VerdictScores.of(PRESET.false_matches, num_references=2 * (len(videos) - 1))
    expected: dict[tuple[str, str], float] = {}
    for one, other in combinations(videos, 2):
        scores = []
        for query, reference in ((one, other), (other, one)):
            sides = prepare([query], [reference], preset=PRESET, norm_rows=norm)
            (pair,), _ = compare(*sides, preset=PRESET, use_score_norm=True)
            scores.append(pair.score)
        if max(scores) >= thresholds.review:
            first, second = sorted((one.video_id, other.video_id))
            expected[first, second] = max(scores)
    assert {(pair.first, pair.second): pair.score for pair in found} == pytest.approx(expected, abs=1e-6)
    assert {("a copy", "v1"), ("v4", "w")} <= {(pair.first, pair.second) for pair in found if pair.verdict == "copy"}
    scores = [pair.score for pair in found if pair.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert all(pair.verdict == thresholds.verdict(pair.score) for pair in found)
    match = next(pair.match for pair in found if pair.first == "a copy")
    assert match is not None
    assert (match.query_id, match.ref_id) == ("a copy", "v1")
    assert match.ref_start_s - match.query_start_s == pytest.approx(3, abs=0.5)


def test_the_first_by_id_is_the_query_of_a_match_that_was_found_the_other_way() -> None:
    match = Match("z", "a", 1.0, 2.0, 10.0, 14.0, 0.5, speed=4.0, mirrored=True)
    pair = _oriented(CandidatePair("z", "a", 0.25), "copy", match)
    assert pair == DuplicatePair(
        "a", "z", "copy", 0.25, Match("a", "z", 10.0, 14.0, 1.0, 2.0, 0.5, speed=0.25, mirrored=True)
    )
    assert _oriented(CandidatePair("z", "a", 0.25), "copy", replace(match, speed=None)).match == replace(
        pair.match,
        speed=None,  # type: ignore[type-var]
    )


def test_videos_of_one_size_and_other_bytes_are_told_apart(tmp_path: Path) -> None:
    for name, content in {"a": b"xx", "b": b"xy", "c": b"xx", "d": b"x", "e": b"xx"}.items():
        (tmp_path / name).write_bytes(content)
    groups = group_same_bytes(media(tmp_path, "a", "b", "c", "d", "e", "gone"))
    assert [[item.video_id for item in group] for group in groups] == [["a", "c", "e"], ["b"], ["d"], ["gone"]]
    assert same_bytes_pairs(groups) == [
        DuplicatePair("a", other, "copy", None, None, has_same_bytes=True) for other in ("c", "e")
    ]


def test_links_are_no_copies_of_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    (tmp_path / "a").symlink_to(tmp_path / "m")
    (tmp_path / "z").hardlink_to(tmp_path / "m")
    shutil.copy(tmp_path / "m", tmp_path / "k")
    found = once_each(media(tmp_path, "a", "gone", "k", "m", "z"))
    assert [item.video_id for item in found] == ["gone", "k", "m"]


def test_clusters_are_the_connected_components_of_copies(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = [f"{number:02}" for number in range(40)]
    pairs = [
        DuplicatePair(first, second, "copy" if generator.random() < 0.04 else "review", 0.5, None)
        for first, second in combinations(names, 2)
    ]
    graph = nx.Graph([(pair.first, pair.second) for pair in pairs if pair.verdict == "copy"])
    found = find_clusters(pairs, {name: Media(name, tmp_path / name) for name in names}, {})
    assert {frozenset(member.video_id for member in cluster) for cluster in found} == {
        frozenset(component) for component in nx.connected_components(graph)
    }
    assert [len(cluster) for cluster in found] == sorted(map(len, found), reverse=True)


def test_the_largest_picture_then_the_longest_then_the_first_path_is_kept(tmp_path: Path) -> None:
    sizes = {"small.mp4": 64, "large.mp4": 96, "large_too.mp4": 96, "a_long.mp4": 96}
    for name, height in sizes.items():
        write_video(tmp_path / name, moving_frames(5, height=height), fps=5)
    durations_s = {"small.mp4": 9.0, "large.mp4": 4.0, "large_too.mp4": 4.0, "a_long.mp4": 5.0, "gone.mp4": 99.0}
    names = [*sizes, "gone.mp4"]
    pairs = [DuplicatePair(first, second, "copy", 1.0, None) for first, second in combinations(names, 2)]
    (cluster,) = find_clusters(pairs, {name: Media(name, tmp_path / name) for name in names}, durations_s)
    assert [member.video_id for member in cluster] == [
        "a_long.mp4", "large.mp4", "large_too.mp4", "small.mp4", "gone.mp4"
    ]  # fmt: skip
    assert [member.size_px for member in cluster] == [(128, 96)] * 3 + [(128, 64), (0, 0)]
