from __future__ import annotations

import faiss
import numpy as np
import pytest

from engine.errors import BackendUnavailable
from engine.records import FloatArray
from engine.search.faiss_backend import CPU, SearchDevice, error_bounds, lengths, query_blocks
from tests.search_devices import DEVICES

CPU_ONLY = pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this is faiss-gpu")


def rows(num_rows: int, *, num_dims: int = 64, seed: int = 0, scale: float = 1.0) -> FloatArray:
    return (scale * np.random.default_rng(seed).standard_normal((num_rows, num_dims))).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 100.0])
def test_scores_are_off_by_no_more_than_the_bound(device: SearchDevice, scale: float) -> None:
    queries, references = rows(40, scale=scale), rows(60, seed=1)
    exact = queries.astype(np.longdouble) @ references.astype(np.longdouble).T
    scores, ref_rows = device.open(references).search(queries, k=30)
    difference = np.abs(scores - np.take_along_axis(exact, ref_rows, axis=1)).max(axis=1)
    bounds = error_bounds(queries, longest=float(lengths(references).max()))
    assert bounds.shape == (40,)
    assert (difference <= bounds).all()


@CPU_ONLY
def test_a_search_on_gpus_needs_their_library() -> None:
    with pytest.raises(BackendUnavailable, match=r"needs faiss-gpu, and faiss-cpu is installed; .*vsc-engine\[gpu\]"):
        SearchDevice(num_gpus=2).open(rows(3))


def test_devices_say_what_they_are() -> None:
    assert [str(device) for device in (CPU, SearchDevice(2))] == ["the CPU", "2 GPUs"]


def test_blocks_cover_all_rows_once() -> None:
    covered = [row for block in query_blocks(10_000) for row in range(10_000)[block]]
    assert covered == list(range(10_000))
