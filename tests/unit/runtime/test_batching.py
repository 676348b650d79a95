"""Many videos share batches: every row comes back once, in order, to the stream that sent it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.runtime.batching import ALL_ROWS, SharedRunner
from engine.runtime.runner import Tensors
from tests.runners import NumPyRunner


class Doubling(NumPyRunner):
    """A runner that is its own oracle: y = 2 x. Records the batch sizes it saw; refuses negative rows."""

    def __init__(self, *, batch_size: int) -> None:
        super().__init__(self._double)
        self.batch_size = batch_size
        self.batch_sizes: list[int] = []

    def _double(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        self.batch_sizes.append(len(tensors["x"]))
        if (tensors["x"] < 0).any():
            raise ValueError("negative row")
        return {"y": tensors["x"] * 2}


def rows(*values: float) -> dict[str, NDArray[np.float32]]:
    return {"x": np.array(values, np.float32)[:, None]}


def test_rows_of_two_streams_share_a_batch() -> None:
    runner = Doubling(batch_size=4)
    shared = SharedRunner(runner)
    with shared.open_stream() as first, shared.open_stream() as second:
        first.submit(rows(1, 2))
        second.submit(rows(3, 4))
        assert runner.batch_sizes == [4]
        assert first.results()["y"].ravel().tolist() == [2, 4]
        assert second.results()["y"].ravel().tolist() == [6, 8]


def test_a_long_chunk_is_split_and_the_rest_is_run_when_nobody_can_fill_the_batch() -> None:
    runner = Doubling(batch_size=4)
    with SharedRunner(runner).open_stream() as stream:
        stream.submit(rows(*range(10)))
        assert runner.batch_sizes == [4, 4]
        assert stream.results()["y"].ravel().tolist() == [2 * value for value in range(10)]
        assert runner.batch_sizes == [4, 4, 2]


def test_closing_a_stream_drops_its_pending_rows() -> None:
    runner = Doubling(batch_size=4)
    shared = SharedRunner(runner)
    with shared.open_stream() as kept:
        with shared.open_stream() as dropped:
            dropped.submit(rows(-1))
        kept.submit(rows(1))
        assert kept.results()["y"].ravel().tolist() == [2]
    assert runner.batch_sizes == [1]


def test_an_error_reaches_every_stream_of_the_batch_and_no_other() -> None:
    shared = SharedRunner(Doubling(batch_size=2))
    with shared.open_stream() as bad, shared.open_stream() as beside, shared.open_stream() as later:
        bad.submit(rows(-1))
        beside.submit(rows(1))
        later.submit(rows(1, 2))
        with pytest.raises(ValueError, match="negative row"):
            bad.results()
        with pytest.raises(ValueError, match="negative row"):
            beside.results()
        assert later.results()["y"].ravel().tolist() == [2, 4]


def test_results_without_rows_fails() -> None:
    with SharedRunner(Doubling(batch_size=2)).open_stream() as stream, pytest.raises(ValueError, match="no rows"):
        stream.results()


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_many_threads_get_their_own_rows_in_order(num_threads: int) -> None:
    runner = Doubling(batch_size=5)
    shared = SharedRunner(runner)

    def one_video(index: int) -> list[float]:
        generator = np.random.default_rng(index)
        with shared.open_stream() as stream:
            start = index * 1000
            for count in generator.integers(1, 9, size=12):
                stream.submit(rows(*range(start, start + count)))
                start += int(count)
            return list(stream.results()["y"].ravel())

    with ThreadPoolExecutor(num_threads) as pool:
        results = list(pool.map(one_video, range(40)))
    for index, values in enumerate(results):
        assert values == [2.0 * (index * 1000 + offset) for offset in range(len(values))]
    assert sum(runner.batch_sizes) == sum(len(values) for values in results)
    assert max(runner.batch_sizes) <= 5


def test_only_what_is_kept_of_the_outputs_comes_back_and_holds_memory() -> None:
    """Rows of many frames, of which a gate looks at the first ones."""
    runner = NumPyRunner(lambda tensors: {name: tensors["x"] * factor for name, factor in (("y", 2), ("z", 3))})
    runner.batch_size = 4
    with SharedRunner(runner).open_stream(keep={"y": ALL_ROWS, "z": 6, "absent": 1}) as stream:
        stream.submit(rows(*range(10)))
        found = stream.results()
        assert len(found["z"].base) == 6
        assert not stream._outputs, "they are the caller's"
    assert found["y"].ravel().tolist() == [2 * value for value in range(10)]
    assert found["z"].ravel().tolist() == [3 * value for value in range(6)]
    with SharedRunner(runner).open_stream(keep={"y": ALL_ROWS, "z": 0}) as stream:
        stream.submit(rows(1))
        assert set(stream.results()) == {"y"}
