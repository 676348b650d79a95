from __future__ import annotations

import pytest

from benchmarks.bench_search import (
    FAISS_ROUTE,
    PRODUCT,
    brute_force,
    check_equal,
    check_same_pairs,
    faiss_route,
    measure,
    query_rows,
    reference_rows,
    unit_rows,
)
from engine.errors import EngineError
from engine.search.faiss_backend import CPU
from tests.search_devices import LimitedDevice


def test_every_device_is_checked_and_timed() -> None:
    devices = [CPU, LimitedDevice(max_k=50)]
    timings = measure(devices, num_queries=20, sizes=[60, 300], num_dims=16, repeat=1, gated_share=0.3)
    ways = [PRODUCT, *map(str, devices), FAISS_ROUTE]
    assert [(timing.num_references, timing.device) for timing in timings] == [
        (size, way) for size in (60, 300) for way in ways
    ]
    assert all(timing.wall_s > 0 for timing in timings)


def test_other_results_are_refused() -> None:
    queries, references = unit_rows(5, num_dims=8, seed=1), unit_rows(9, num_dims=8, seed=2)
    pairs = brute_force(queries, references, k=10)
    check_equal(pairs, pairs, what="itself")
    with pytest.raises(EngineError, match="the device does not find what was expected; no time is reported"):
        check_equal(pairs._replace(scores=pairs.scores + 1), pairs, what="the device")


def test_the_way_of_the_challenge_finds_the_same_pairs() -> None:
    queries = query_rows(70, num_dims=16, gated_share=0.5)
    references = reference_rows(300, num_dims=16)
    assert (queries[:, -1] == -100).sum() == 35
    expected = brute_force(queries, references, k=500)
    found = faiss_route(queries, references, k=500)
    assert check_same_pairs(found, expected, what="FAISS") == 0
    other = found._replace(query_rows=(found.query_rows + 1) % 70)
    with pytest.raises(EngineError, match="FAISS finds other pairs; no time is reported"):
        check_same_pairs(other, expected, what="FAISS")
