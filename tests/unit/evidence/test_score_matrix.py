"""Cosines over the times of two videos."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.evidence import score_matrix
from engine.evidence.score_matrix import MAX_BINS, SIDE_PX, draw_score_matrix, similarity_over_time
from engine.records import Descriptors, Match


def described(times_s: list[tuple[float, float]], seed: int) -> Descriptors:
    rows = np.random.default_rng(seed).normal(size=(len(times_s), 8)).astype(np.float32)
    return Descriptors(f"V{seed}", np.array(times_s, np.float32), rows)


def brute_force(query: Descriptors, reference: Descriptors, bin_s: float) -> np.ndarray:
    shape = [int(np.ceil(side.timestamps.max() / bin_s)) for side in (query, reference)]
    best = np.full(shape, -1.0)
    for row, (start, end) in zip(query.descriptors, query.timestamps, strict=True):
        for other, (ref_start, ref_end) in zip(reference.descriptors, reference.timestamps, strict=True):
            cosine = row @ other / np.linalg.norm(row) / np.linalg.norm(other)
            for y in range(shape[0]):
                for x in range(shape[1]):
                    is_in_y = start < (y + 1) * bin_s and end > y * bin_s
                    if is_in_y and ref_start < (x + 1) * bin_s and ref_end > x * bin_s:
                        best[y, x] = max(best[y, x], cosine)
    return best


def test_bins_hold_the_most_alike_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_matrix, "_BLOCK_ROWS", 3)
    query = described([(0, 1), (1, 2), (2, 6), (0, 1), (7, 8)], 1)
    reference = described([(1, 2), (4, 5), (2, 4)], 2)
    found, bin_s = similarity_over_time(query, reference)
    assert bin_s == 1.0
    np.testing.assert_allclose(found, brute_force(query, reference, bin_s), atol=1e-6)


def test_long_videos_have_wide_bins() -> None:
    query = described([(second, second + 1) for second in range(400)], 1)
    found, bin_s = similarity_over_time(query, described([(0, 1), (50, 51)], 2))
    assert bin_s == 400 / MAX_BINS
    np.testing.assert_allclose(found, brute_force(query, described([(0, 1), (50, 51)], 2), bin_s), atol=1e-6)


def test_the_picture_shows_the_way_of_the_match() -> None:
    query = described([(second, second + 1) for second in range(10)], 1)
    png = draw_score_matrix(query, query, Match("Q", "R", 0.0, 10.0, 0.0, 10.0, 1.0, speed=-1.0))
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.size == (SIDE_PX, SIDE_PX)
    assert image.convert("RGB").getpixel((SIDE_PX * 3 // 4, SIDE_PX // 4)) == (255, 64, 32)
    assert image.convert("RGB").getpixel((SIDE_PX // 32, SIDE_PX // 32)) == (250, 240, 180), "a row is like itself"
