from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.videos import moving_frames
from training.picture_hashes import NUM_BITS, distances, near_pairs, picture_hash

PICTURES = [moving_frames(1, height=90, width=120, seed=seed)[0] for seed in range(6)]


def hashes_of(pictures: list[NDArray[np.uint8]]) -> list[NDArray[np.uint64]]:
    return [picture_hash(picture) for picture in pictures]


def test_a_smaller_slightly_brighter_copy_is_near_and_other_pictures_are_far() -> None:
    copy = cv2.resize(cv2.convertScaleAbs(PICTURES[0], alpha=0.9, beta=5), (80, 60), interpolation=cv2.INTER_AREA)
    found = distances(picture_hash(copy), np.stack(hashes_of(PICTURES)))
    assert found[0] < 10 < 25 < found[1:].min()


def test_the_opposite_of_a_slope_differs_in_every_bit() -> None:
    slope = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert distances(picture_hash(slope), picture_hash(slope[::-1, ::-1])[None]).tolist() == [NUM_BITS]


def test_near_pairs_are_all_pairs_within_the_distance() -> None:
    rng = np.random.default_rng(1)
    hashes = [rng.integers(0, 2**64, 2, dtype=np.uint64) for _ in range(300)]
    hashes[280] = hashes[3] ^ np.array([0b1011, 0], np.uint64)
    expected = [(i, j) for i in range(300) for j in range(i + 1, 300) if distances(hashes[i], hashes[j][None])[0] <= 45]
    assert near_pairs(hashes, max_bits=45) == expected
    assert near_pairs(hashes, max_bits=3) == [(3, 280)]
    assert near_pairs([], max_bits=3) == []
