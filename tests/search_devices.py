"""Devices to search on that need no GPU: the CPU, and a flat index on the CPU under the limits of GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.records import FloatArray
from engine.search.exact import NearestRows
from engine.search.faiss_backend import CPU, FlatIndexNearest, Nearest, SearchDevice
from engine.search.rows import Neighbours


@dataclass(frozen=True)
class LimitedDevice(SearchDevice):
    """The limits of a GPU on the CPU: ``max_k`` neighbours, no other search."""

    max_k: int = 2048

    def open(self, references: FloatArray) -> Nearest:
        index = faiss.IndexFlatIP(references.shape[1])
        index.add(references)
        return LimitedNearest(FlatIndexNearest(index, max_k=min(self.max_k, len(references))))


@dataclass(frozen=True)
class LimitedNearest:
    nearest: Nearest

    @property
    def max_k(self) -> int:
        return self.nearest.max_k

    def search(self, queries: FloatArray, *, k: int) -> tuple[FloatArray, NDArray[np.int64]]:
        assert k <= self.max_k, "a GPU refuses this"
        return self.nearest.search(queries, k=k)


def top_k(queries: FloatArray, references: FloatArray, *, k: int, device: SearchDevice = CPU) -> Neighbours:
    return NearestRows(references, device=device).top_k(queries, k=k)


DEVICES = {
    "cpu": CPU,
    "gpu limits": LimitedDevice(),
    "tight gpu limits": LimitedDevice(max_k=40),
}
