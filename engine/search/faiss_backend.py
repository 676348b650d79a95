"""The k nearest of some rows, by matrix products: FAISS on a CPU or on GPUs.

Scores are those of one matrix product, off by a bound that is given here; `engine.search.exact` makes exact results
of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, ConfigError, EngineError
from engine.records import FloatArray

# Rows that are multiplied at once: fewer wait more often for all threads, more only take memory.
_QUERY_BLOCK = 4096
_MAX_RESULTS = 2**22
_GPU_MAX_K = 2048
_FLOAT32_ROUNDOFF = 2.0**-24


class Nearest(Protocol):
    """R references, ready to be searched. ``max_k``: the most neighbours of a row that can be asked for."""

    @property
    def max_k(self) -> int:
        """At most R."""

    def search(self, queries: FloatArray, *, k: int) -> tuple[FloatArray, NDArray[np.int64]]:
        """Scores and reference rows of the ``k`` nearest, ``(Q, k)`` each, best first."""


@dataclass(frozen=True)
class SearchDevice:
    """Where rows are compared: the CPU, or the first ``num_gpus`` GPUs, each with an equal share of the references."""

    num_gpus: int = 0

    def __str__(self) -> str:
        return f"{self.num_gpus} GPUs" if self.num_gpus else "the CPU"

    def check(self) -> None:
        """Raise ``BackendUnavailable`` or ``ConfigError`` if this machine does not have it."""
        if self.num_gpus == 0:
            return
        if not hasattr(faiss, "StandardGpuResources"):
            raise BackendUnavailable(
                "the search on GPUs needs faiss-gpu, and faiss-cpu is installed; in an environment of its own: "
                "pip install 'vsc-engine[gpu]'"
            )
        if faiss.get_num_gpus() < self.num_gpus:
            raise ConfigError(
                f"--gpus {self.num_gpus}: FAISS finds {faiss.get_num_gpus()} GPUs on this machine; ask for no more"
            )

    def open(self, references: FloatArray) -> Nearest:
        """Make references ``(R, D)`` searchable. Raises ``EngineError`` where GPUs cannot hold them."""
        self.check()
        return self._open_on_gpus(references) if self.num_gpus else CpuNearest(references)

    def _open_on_gpus(self, references: FloatArray) -> Nearest:
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        empty = faiss.IndexFlatIP(references.shape[1])
        try:
            index = faiss.index_cpu_to_gpus_list(empty, options, gpus=list(range(self.num_gpus)))
            index.add(references)
        except RuntimeError as error:
            raise EngineError(
                f"{len(references)} rows of {references.shape[1]} dimensions ({references.nbytes / 2**20:.0f} MiB) "
                f"cannot be put on {self}: {str(error).splitlines()[0]}; use more GPUs, or the CPU"
            ) from error
        return FlatIndexNearest(index, max_k=min(_GPU_MAX_K, len(references)))


CPU = SearchDevice()


def lengths(rows: FloatArray) -> FloatArray:
    """The length of each row. Raises ``ValueError`` for rows that are not finite."""
    found: FloatArray = np.sqrt(np.vecdot(rows, rows))
    if not np.isfinite(found).all():
        raise ValueError("expected finite rows, got NaN, infinity or values whose squares are infinite")
    return found


def error_bounds(queries: FloatArray, *, longest: float) -> FloatArray:
    """How far a score of each query, with a reference no longer than ``longest``, can be from the exact one.

    Float32 ``(Q,)``. An inner product of D terms, summed in any order, is off by at most ``D u / (1 - D u) * |q| |r|``
    with ``u = 2**-24`` (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Eight more roundings than
    the D terms need cover those of the lengths here, of sums and differences with the bound, and of the exact score to
    float32. Raises as `lengths`.
    """
    num_roundings = queries.shape[1] + 8
    relative = num_roundings * _FLOAT32_ROUNDOFF / (1 - num_roundings * _FLOAT32_ROUNDOFF)
    bounds: FloatArray = (relative * longest * lengths(queries)).astype(np.float32)
    return bounds


@dataclass(frozen=True)
class CpuNearest:
    """Multiplies whole blocks on the CPU; any number of neighbours."""

    references: FloatArray

    @property
    def max_k(self) -> int:
        """All of them."""
        return len(self.references)

    def search(self, queries: FloatArray, *, k: int) -> tuple[FloatArray, NDArray[np.int64]]:
        """See `Nearest`."""
        scores, rows = faiss.knn(queries, self.references, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows


@dataclass(frozen=True)
class FlatIndexNearest:
    """A flat index of FAISS that holds all references, wherever it lives."""

    index: Any
    max_k: int

    def search(self, queries: FloatArray, *, k: int) -> tuple[FloatArray, NDArray[np.int64]]:
        """See `Nearest`."""
        scores, rows = self.index.search(queries, k)
        return scores, rows


def query_blocks(num_rows: int, *, results_per_row: int = 1) -> Iterator[slice]:
    """Slices of query rows that are multiplied at once; fewer where each has many results to be held."""
    size = max(1, min(_QUERY_BLOCK, _MAX_RESULTS // results_per_row))
    for start in range(0, num_rows, size):
        yield slice(start, start + size)
