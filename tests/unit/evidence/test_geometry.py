"""Copies, mirrored copies and other footage, told apart by their pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.config import Localization
from engine.evidence.frames import Viewer
from engine.evidence.geometry import Agreement, Verification, count_inliers, features, verify
from engine.records import Match
from tests.unit.evidence.worlds import mirrored, pan, write

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
    [(100, 10, False), (10, 100, True), (19, 0, None), (0, 20, True), (50, 25, None), (51, 25, False), (0, 0, None)],
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
]


def verified(folder: Path, *, limit: int = 9, min_score: float = 0.0) -> list[Verification]:
    queries = {path.stem: path for path in folder.iterdir()}
    config = Localization(verified_per_query=limit, min_verified_score=min_score)
    with Viewer() as viewer:
        return verify(MATCHES, queries, queries, config=config, viewer=viewer)


def test_copies_are_verified(folder: Path) -> None:
    found = verified(folder)
    assert [replace(item.match, mirrored=None) for item in found] == [replace(item, mirrored=None) for item in MATCHES]
    assert [item.match.mirrored for item in found] == [False, True, True, True, None, None, None, False]
    seen = [0 if item.agreement is None else item.agreement.num_inliers for item in found]
    assert all(seen[place] >= 60 for place in (0, 1, 2, 7))
    assert seen[3] < 20 > seen[6]
    assert [bool(item.reason) for item in found] == [False] * 4 + [True] * 2 + [False] * 2
    assert found[4].reason.startswith("not readable: ")
    assert found == verified(folder)


def test_few_matches_of_a_query_are_looked_at(folder: Path) -> None:
    looked_at = [item.agreement is not None for item in verified(folder, limit=1, min_score=2.5)]
    assert looked_at == [True, True, True, False, False, False, False, False]
    assert [item.match for item in verified(folder, limit=0)] == MATCHES
