"""A norm set survives the disk as float16, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.store.norm_set import load_norm_set, save_norm_set


def test_rows_come_back_to_three_digits_at_half_the_size(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (200, 16)).astype(np.float32)
    save_norm_set(rows, tmp_path / "norm_set.npz")
    loaded = load_norm_set(tmp_path / "norm_set.npz")
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, rows, rtol=2**-11, atol=2**-24)
    assert (tmp_path / "norm_set.npz").stat().st_size < rows.nbytes / 2 + 1000


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros((2, 3), np.float16)},
        {"descriptors": np.zeros((2, 3), np.float32)},
        {"descriptors": np.zeros(3, np.float16)},
        {"descriptors": np.full((2, 3), np.nan, np.float16)},
        {"descriptors": np.zeros((2, 3), np.float16), "more": np.zeros(1)},
    ],
)
def test_other_archives_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype]]) -> None:
    np.savez(tmp_path / "norm_set.npz", **arrays)
    with pytest.raises(ConfigError, match="is not a norm set: expected finite float16 rows 'descriptors'"):
        load_norm_set(tmp_path / "norm_set.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the norm set: .*norm_set\.npz does not exist"):
        load_norm_set(tmp_path / "norm_set.npz")
