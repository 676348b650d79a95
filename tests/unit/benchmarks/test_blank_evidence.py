"""Blank openings: what they look like, the videos that are made of them, and which scores are too high."""

from __future__ import annotations

import csv
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import blank_evidence
from benchmarks.blank_evidence import (
    COLORS,
    KINDS,
    SIZE,
    Score,
    lowest_copy,
    make_videos,
    opening,
    scores_of,
    table,
    too_high,
)
from benchmarks.data_sets import DataSet, find_data_set
from engine.errors import ConfigError
from engine.records import CandidatePair, Media
from engine.video.pyav import PyAvFrameSource
from tests.videos import moving_frames, write_video


@pytest.mark.parametrize("kind", KINDS)
def test_openings_last_as_long_as_asked_for_and_have_one_size(kind: str) -> None:
    frames = list(opening(kind, 2, side="u"))
    assert len(frames) == 50
    assert {(frame.shape, frame.dtype) for frame in frames} == {((SIZE[1], SIZE[0], 3), np.dtype(np.uint8))}
    again = list(opening(kind, 2, side="u"))
    assert all(np.array_equal(one, other) for one, other in zip(frames, again, strict=True))


def test_colors_and_bars_are_flat() -> None:
    for kind, color in COLORS.items():
        assert {tuple(pixel) for pixel in next(opening(kind, 1, side="r")).reshape(-1, 3)} == {color}
    bars = next(opening("bars", 1, side="r"))
    assert len(np.unique(bars.reshape(-1, 3), axis=0)) == 7
    assert (bars == bars[:1]).all()


def test_a_fade_goes_from_black_to_white_and_back() -> None:
    levels = [int(frame.mean()) for frame in opening("fade", 4, side="u")]
    assert (levels[0], levels[-1]) == (0, 0)
    assert max(levels) >= 250
    top = int(np.argmax(levels))
    assert all(one <= other for one, other in pairwise(levels[: top + 1]))
    assert all(one >= other for one, other in pairwise(levels[top:]))


def test_titles_and_noise_differ_between_the_sides_and_a_title_stands_still() -> None:
    for kind in ("title", "noise"):
        assert not np.array_equal(next(opening(kind, 1, side="u")), next(opening(kind, 1, side="r")))
    title = list(opening("title", 1, side="u"))
    assert np.array_equal(title[0], title[-1])
    assert 0.7 < (title[0] == 0).mean() < 0.99


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Six references and three plain queries, of 4 s each, for two kinds of opening of 2 s."""
    monkeypatch.setattr(blank_evidence, "KINDS", ("black", "title"))
    for name, seconds in {"OPENING_S": 2, "FOOTAGE_S": 3, "COPIED_S": 1, "ONLY_S": 2}.items():
        monkeypatch.setattr(blank_evidence, name, seconds)
    folder = tmp_path / "val"
    for number, path in enumerate(
        [*(f"reference/R{index}" for index in range(6)), *(f"query/Q{index}" for index in range(4))]
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{path}.mp4", moving_frames(40, height=72, width=128, seed=number), fps=10)
    (folder / "val_matching_ground_truth.csv").write_text("query_id,ref_id\nQ0,R0\n")
    return find_data_set(folder)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with closing(PyAvFrameSource(Media(path.stem, path))) as opened:
        return [np.asarray(picture) for picture in opened.pictures()]


def test_videos_are_made_with_their_openings(source: DataSet, tmp_path: Path) -> None:
    output = tmp_path / "made"
    output.mkdir()
    make_videos(source, output)
    data = find_data_set(output)
    with data.ground_truth.open() as file:
        true = {row["query_id"]: row["ref_id"] for row in csv.DictReader(file)}
    assert true == {"c_exact": "R4", "c_in6": "R5", "c_after_black": "R2", "c_after_title": "R3"}
    assert {path.stem for path in data.references.iterdir()} == {"r_black", "r_title", "R2", "R3", "R4", "R5"}
    assert {path.stem for path in data.queries.iterdir()} - set(true) == {
        "u_black", "u_title", "u_only_black", "u_only_title"
    }  # fmt: skip
    assert (data.queries / "c_exact.mp4").read_bytes() == (source.references / "R4.mp4").read_bytes()
    for path, num_blank, num_pictures in (
        (data.references / "r_black.mp4", 2, 5),
        (data.queries / "u_black.mp4", 2, 5),
        (data.queries / "u_only_black.mp4", 2, 2),
        (data.queries / "c_after_black.mp4", 2, 3),
    ):
        found = pictures(path)
        assert len(found) == num_pictures
        assert [picture.std() < 3 for picture in found] == [index < num_blank for index in range(num_pictures)]
    shown = pictures(data.references / "r_black.mp4")[2:]
    copied = pictures(source.references / "R0.mp4")[:3]
    for one, other in zip(shown, copied, strict=True):
        assert abs(float(one.mean()) - float(other.mean())) < 4


def test_a_set_that_is_too_small_is_refused(source: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blank_evidence, "FOOTAGE_S", 30)
    with pytest.raises(ConfigError, match="has 0 references and 0 plain queries of 30 s"):
        make_videos(source, tmp_path)


def test_unrelated_pairs_that_are_not_below_every_copy_are_too_high() -> None:
    candidates = [
        CandidatePair("c_exact", "R1", 0.4),
        CandidatePair("c_in6", "R2", 0.3),
        CandidatePair("c_in6", "R1", 0.35),
        CandidatePair("c_exact", "R3", 0.2),
        CandidatePair("u_black", "r_black", 0.3),
        CandidatePair("u_black", "R9", 0.1),
        CandidatePair("u_white", "r_white", 0.29),
        CandidatePair("u_only_blue", "R7", 0.5),
        CandidatePair("u_only_blue", "R8", 0.2),
    ]
    scores = scores_of(candidates, {"c_exact": "R1", "c_in6": "R2"}, build="now", mode="cosine")
    assert len(scores) == 2 * 2 + 4 * len(KINDS)
    assert lowest_copy(scores) == 0.3
    assert [(item.query_id, item.ref_id, item.score) for item in too_high(scores)] == [
        ("c_in6", "any other", 0.35),
        ("u_black", "r_black", 0.3),
        ("u_only_blue", "any other", 0.5),
    ]
    lines = table(scores)
    assert sum("!" in line for line in lines) == 3
    assert lines[-1] == f"cosine, now: lowest copy 0.3000; 3 of {2 + 4 * len(KINDS)} unrelated pairs not below it"


def test_a_copy_that_is_no_candidate_is_below_everything() -> None:
    scores = [Score("b", "m", "c_exact", "R1", None, is_copy=True), Score("b", "m", "u_black", "r_black", -0.5)]
    assert lowest_copy(scores) == -np.inf
    assert too_high(scores) == [scores[1]]
