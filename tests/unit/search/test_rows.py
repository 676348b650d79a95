from __future__ import annotations

import numpy as np
import pytest

from engine.records import FloatArray
from engine.search.rows import Rows

TABLE = np.arange(60, dtype=np.float32).reshape(20, 3)


def split(*borders: int) -> list[FloatArray]:
    return np.split(TABLE, borders)


@pytest.mark.parametrize("arrays", [[TABLE], split(7), split(0, 1, 1, 5, 19, 20)], ids=["one", "two", "many"])
class TestRows:
    @pytest.mark.parametrize("num_rows", [1, 3, 19, 20, 50])
    def test_blocks_follow_each_other(self, arrays: list[FloatArray], num_rows: int) -> None:
        rows = Rows(arrays)
        blocks = list(rows.blocks(num_rows))
        assert [start for start, _ in blocks] == list(range(0, 20, num_rows))
        assert all(len(block) == num_rows for _, block in blocks[:-1])
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), TABLE)

    def test_rows_are_taken_by_their_number(self, arrays: list[FloatArray]) -> None:
        indices = np.array([19, 0, 7, 6, 7, 1])
        np.testing.assert_array_equal(Rows(arrays).take(indices), TABLE[indices])
        assert Rows(arrays).take(indices[:0]).shape == (0, 3)

    def test_length_dimensions_and_all_rows_in_one_array(self, arrays: list[FloatArray]) -> None:
        rows = Rows(arrays)
        assert (len(rows), rows.num_dims) == (20, 3)
        np.testing.assert_array_equal(rows.joined(), TABLE)


def test_what_lies_in_one_array_is_not_copied() -> None:
    rows = Rows(split(8))
    assert [np.shares_memory(block, TABLE) for _, block in rows.blocks(4)] == [True] * 5
    assert np.shares_memory(Rows([TABLE]).joined(), TABLE)


@pytest.mark.parametrize(
    "arrays", [[], [TABLE[:0]], [TABLE, TABLE[:, :2]], [TABLE, TABLE[0]], [TABLE, TABLE.astype(np.float64)]]
)
def test_other_arrays_fail(arrays: list[FloatArray]) -> None:
    with pytest.raises(ValueError, match=r"expected rows as float32 \(N, D\)"):
        Rows(arrays)
