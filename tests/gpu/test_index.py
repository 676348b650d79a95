"""Searching on GPUs gives what the CPU gives: the exact scores are computed from the rows that the GPU proposes."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.records import FloatArray
from engine.search.exact import global_top_k
from engine.search.faiss_backend import SearchDevice
from tests.gpu.device import num_gpus
from tests.search_devices import top_k

pytestmark = pytest.mark.gpu


def rows(num: int, *, seed: int) -> FloatArray:
    """Unit rows, of which every tenth is nearly the one before."""
    generator = np.random.default_rng(seed)
    found = generator.standard_normal((num, 512)).astype(np.float32)
    found[1::10] = found[::10][: len(found[1::10])] + 1e-3 * found[1::10]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


# FAISS gives at most 2048 neighbours of a row on a GPU; 60,000 pairs of 20 queries need more.
@pytest.mark.parametrize(("num_queries", "k"), [(300, 1), (300, 5000), (20, 60_000)])
@pytest.mark.parametrize("on_all_gpus", [False, True])
def test_the_best_pairs_are_those_of_the_cpu(num_queries: int, k: int, on_all_gpus: bool) -> None:
    queries, references = rows(num_queries, seed=1), rows(40_000, seed=2)
    queries[::3] = references[: len(queries[::3])]
    device = SearchDevice(num_gpus=num_gpus() if on_all_gpus else 1)
    for found, expected in zip(
        global_top_k(queries, references, k=k, device=device), global_top_k(queries, references, k=k), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("k", [1, 3])
def test_the_nearest_rows_are_those_of_the_cpu(k: int) -> None:
    queries, references = rows(500, seed=3), rows(40_000, seed=4)
    device = SearchDevice(num_gpus=1)
    for found, expected in zip(
        top_k(queries, references, k=k, device=device), top_k(queries, references, k=k), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_more_gpus_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--gpus 99"):
        SearchDevice(num_gpus=99).check()
