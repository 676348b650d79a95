from __future__ import annotations

import pytest

from benchmarks.bench_search import brute_force, check_equal, measure, unit_rows
from engine.errors import EngineError
from engine.search.faiss_backend import CPU
from tests.search_devices import LimitedDevice


def test_every_device_is_checked_and_timed() -> None:
    devices = [CPU, LimitedDevice(max_k=50)]
    timings = measure(devices, num_queries=20, sizes=[60, 300], num_dims=16, repeat=1)
    assert [(timing.num_references, timing.device) for timing in timings] == [
        (size, str(device)) for size in (60, 300) for device in devices
    ]
    assert all(timing.queries_per_s > 0 for timing in timings)


def test_other_results_are_refused() -> None:
    queries, references = unit_rows(5, num_dims=8, seed=1), unit_rows(9, num_dims=8, seed=2)
    pairs = brute_force(queries, references, k=10)
    check_equal(pairs, pairs, what="itself")
    with pytest.raises(EngineError, match="the device does not find what was expected; no time is reported"):
        check_equal(pairs._replace(scores=pairs.scores + 1), pairs, what="the device")
