"""Copies, mirrored copies and other footage, told apart by their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.config import Localization
from engine.evidence.frames import Viewer
from engine.evidence.geometry import (
    CHANCE_INLIERS,
    Agreement,
    Verification,
    count_inliers,
    features,
    times_to_look_at,
    verify,
)
from engine.isolation import ThisProcess
from engine.records import CandidatePair, Frames, Match
from engine.search.localization import MAX_INLIERS
from engine.storage.location import Location
from tests.unit.evidence.worlds import Picture, mirrored, pan, write

PICTURE, OTHER = pan(1, num_seconds=1)[0], pan(2, num_seconds=1)[0]


def test_mirrored_features_are_those_of_the_mirrored_picture() -> None:
    found = features(PICTURE).mirrored()
    expected = features(np.ascontiguousarray(PICTURE[:, ::-1]))
    places = np.stack([PICTURE.shape[1] - 1 - expected.points[:, 0], expected.points[:, 1]], axis=1)
    distances = []
    for point, descriptor in zip(found.points, found.descriptors, strict=True):
        near = np.linalg.norm(places - point, axis=1) < 1
        if near.any():
            distances.append(np.linalg.norm(expected.descriptors[near] - descriptor, axis=1).min())
    assert len(distances) > 0.8 * len(found.points) > 80
    assert np.median(distances) < 20, "unrelated SIFT descriptors are some 500 apart"


@pytest.mark.parametrize("quarter_turns", [0, 1])
def test_features_are_found_again_in_an_edited_picture(quarter_turns: int) -> None:
    part = np.ascontiguousarray(np.rot90(PICTURE[10:-10, 20:], quarter_turns))
    edited = cv2.convertScaleAbs(cv2.resize(part, None, fx=0.8, fy=0.7), alpha=0.8, beta=20)
    query, reference = features(edited), features(PICTURE)
    assert count_inliers(query, reference) > 40
    assert count_inliers(query.mirrored(), reference) < 15
    assert count_inliers(features(OTHER), reference) < 15


def test_a_plain_picture_has_no_features() -> None:
    plain = features(np.full((96, 128, 3), 7, np.uint8))
    assert plain.descriptors.shape == (0, 128)
    assert count_inliers(plain, features(PICTURE)) == count_inliers(features(PICTURE), plain) == 0


@pytest.mark.parametrize(
    ("direct", "flipped", "expected"),
    [(100, 10, False), (10, 100, True), (5, 0, None), (0, 6, True), (50, 25, None), (51, 25, False), (0, 0, None)],
)
def test_what_counts_as_mirrored(direct: int, flipped: int, expected: bool | None) -> None:
    assert Agreement(direct, flipped).mirrored is expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    footage = pan(3)
    write(root / "R.mp4", footage)
    write(root / "copy.mp4", footage[20:])
    write(root / "mirrored.mp4", mirrored(footage)[20:])
    write(root / "backward.mp4", mirrored(footage)[::-1])
    write(root / "other.mp4", pan(4))
    (root / "damaged.mp4").write_bytes(b"no video" * 99)
    return root


MATCHES = [
    Match("copy", "R", 0.0, 6.0, 2.0, 8.0, 5.0, speed=1.0),
    Match("mirrored", "R", 0.0, 6.0, 2.0, 8.0, 4.0),
    Match("backward", "R", 0.0, 8.0, 0.0, 8.0, 3.0, speed=-1.0),
    Match("other", "R", 0.0, 8.0, 0.0, 8.0, 2.0, mirrored=True),
    Match("damaged", "R", 0.0, 8.0, 0.0, 8.0, 2.0),
    Match("missing", "R", 0.0, 8.0, 0.0, 8.0, 2.0),
    Match("copy", "other", 0.0, 6.0, 2.0, 8.0, 1.0),
    Match("copy", "R", 1.0, 6.0, 3.0, 8.0, 0.9),
    Match("copy", "R", 2.0, 6.0, 4.0, 8.0, 0.8),
    Match("other", "R", 0.0, 4.0, 2.0, 6.0, 0.8),
]
PAIRS = [CandidatePair(match.query_id, match.ref_id, match.score / 10) for match in MATCHES[:7]]


def verified(folder: Path, matches: Sequence[Match] = MATCHES, **settings: float) -> list[Verification]:
    paths = {path.stem: path for path in folder.iterdir()}
    config = Localization.model_validate({"verified_per_query": 9, **settings})
    with Viewer() as viewer, Viewer() as other:
        return verify(matches, PAIRS, paths, paths, config=config, viewers=[viewer, other])


def test_copies_are_verified(folder: Path) -> None:
    found = verified(folder)
    assert [replace(item.match, mirrored=None, num_inliers=None) for item in found] == [
        replace(item, mirrored=None) for item in MATCHES
    ]
    assert [item.match.mirrored for item in found] == [False, True, True, True, None, None, None, False, None, None]
    seen = [item.match.num_inliers for item in found]
    assert [None if count is None else count >= MAX_INLIERS for count in seen[:4]] == [True, True, True, False]
    assert seen[3] == seen[6] == 0
    assert seen[7] is not None, "the next best of a pair that agrees is looked at"
    assert seen[8:] == [None, None], "no third one, and no second one of a pair that does not agree"
    assert [bool(item.reason) for item in found] == [False] * 4 + [True] * 2 + [False] * 4
    assert found[4].reason.startswith("not readable: ")
    assert found == verified(folder)


def test_few_pairs_of_a_query_are_looked_at(folder: Path) -> None:
    def looked_at(**settings: float) -> list[int]:
        found = verified(folder, **settings)
        return [place for place, item in enumerate(found) if item.agreement is not None or item.reason]

    assert looked_at(verified_per_query=1) == [0, 1, 2, 3, 4, 5, 7]
    assert looked_at(min_verified_score=2.5) == [0, 1, 2]
    assert looked_at(min_verified_pair_score=0.35) == [0, 1, 7]
    assert looked_at(verified_per_query=0) == []


class NotingViewer(Viewer):
    """Looks, and notes at what it was asked to look."""

    def __init__(self) -> None:
        super().__init__(process=ThisProcess())
        self.noted: list[tuple[str, tuple[float, ...]]] = []

    def look_at(
        self, path: Location | None, times_s: Sequence[float], *, short_side_px: int
    ) -> dict[float, Frames] | str:
        self.noted.append((str(path and path.stem), tuple(times_s)))
        return super().look_at(path, times_s, short_side_px=short_side_px)


def test_looks_are_few_and_pictures_shared(folder: Path) -> None:
    paths = {path.stem: path for path in folder.iterdir()}
    pairs = [CandidatePair("other", ref_id, 0.5) for ref_id in ("R", "copy")]
    matches = [Match("other", "R", 0.0, 8.0, 0.0, 8.0, 2.0), Match("other", "copy", 0.5, 7.5, 0.0, 7.0, 1.0)]
    viewer = NotingViewer()
    verify(matches, pairs, paths, paths, config=Localization(verified_per_query=2), viewers=[viewer])
    assert viewer.noted == [("other", (4.0, 2.0)), ("R", (4.0, 2.0)), ("copy", (3.5, 1.5))]


def test_a_moment_says_nothing(folder: Path) -> None:
    (found,) = verified(folder, [Match("copy", "R", 3.0, 3.0, 5.0, 5.0, 1.0)])
    assert found.match.num_inliers == 0


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected_s"),
    [
        (0.0, 8.0, [4, 2, 6, 1, 3, 5, 7, 0.5]),
        (0.0, 20.0, [16, 8, 4, 12, 2, 6, 10, 14]),
        (101.0, 117.0, [104, 112, 108, 116, 102, 106, 110, 114]),
        (0.0, 1.0, [0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875, 0.0625]),
        (3.3, 3.3, [3.3]),
    ],
)
def test_times_to_look_at_are_far_apart_and_shared(start_s: float, end_s: float, expected_s: list[float]) -> None:
    assert times_to_look_at(Match("Q", "R", start_s, end_s, 5.0, 6.0, 1.0)) == expected_s


def captioned(frames: list[Picture]) -> list[Picture]:
    """Under a bar with text that covers a quarter of the picture."""
    bar = np.full((36, frames[0].shape[1], 3), (20, 20, 120), np.uint8)
    for y, text in ((14, "BREAKING NEWS 12:45"), (30, "markets fall again")):
        cv2.putText(bar, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    return [np.vstack([frame[:-36], bar]) for frame in frames]


def test_what_unrelated_videos_share_all_the_time_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "R.mp4", captioned(pan(3)))
    write(tmp_path / "other.mp4", captioned(pan(4)))
    write(tmp_path / "copy.mp4", captioned(pan(3))[20:])
    first, second = (features(captioned(pan(seed))[9]) for seed in (3, 4))
    assert count_inliers(first, second) > 2 * CHANCE_INLIERS, "the text itself agrees"
    found = verified(tmp_path, [MATCHES[0], MATCHES[3]])
    assert found[0].match.num_inliers is not None
    assert found[0].match.num_inliers >= MAX_INLIERS
    assert found[1].match.num_inliers is not None
    assert found[1].match.num_inliers < MAX_INLIERS / 10
