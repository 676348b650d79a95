"""The benchmark of float16 stores compares what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.store_dtype import changes, copy_store, read_figures
from engine.records import CandidatePair
from engine.store.shards import Fingerprint
from engine.store.store import StoreWriter, read_descriptors
from tests.catalogs import video


def test_a_copy_holds_what_was_described_rounded(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "float32", identity={"role": "query"}) as writer:
        for name in "ab":
            writer.add(video(name, 900, num_dims=64), Fingerprint(1, 2))
        writer.finish()
    for _ in range(2):
        copy_store(tmp_path / "float32", tmp_path / "float16", dtype="float16")
    for found, expected in zip(*(read_descriptors(tmp_path / name) for name in ("float16", "float32")), strict=True):
        np.testing.assert_array_equal(found.descriptors, expected.descriptors.astype(np.float16))
    one, other = (read_figures(tmp_path / name, num_times=1) for name in ("float32", "float16"))
    assert (one.dtype, one.num_rows, other.dtype, other.num_rows) == ("float32", 1800, "float16", 1800)
    assert 64 * 4 * 0.8 < one.bytes_per_row < 64 * 4 * 1.1
    assert other.bytes_per_row < 0.6 * one.bytes_per_row
    assert one.read_us_per_row > 0


def test_changes_of_scores() -> None:
    one = [CandidatePair("q", "a", 1.0), CandidatePair("q", "b", 0.5), CandidatePair("q", "c", 9.0)]
    other = [CandidatePair("q", "b", 0.75), CandidatePair("q", "a", 0.875), CandidatePair("r", "a", 9.0)]
    assert changes(one, other) == (pytest.approx(0.25), 2)
    assert changes(one, one) == (0.0, 0)
