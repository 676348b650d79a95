"""What a catalogue asks of the place where the rows of its descriptors lie. Knows nothing of videos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import Descriptors, FloatArray

ALL_REVISIONS = 2**63 - 1
"""Above every revision: what `RowStore.refresh` gives where rows need no index to be found."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of one revision, in order: times float32 ``(N, 2)``, descriptors float32 ``(N, D)``."""

    timestamps: FloatArray
    descriptors: FloatArray


class RowStore(Protocol):
    """The rows of a catalogue: `engine.catalog.lance_rows.LanceRows` and `engine.catalog.milvus_rows.MilvusRows`.

    Rows are as the engines gave them, and belong to a revision. A revision is written once. Whether it counts is said
    elsewhere, so rows of revisions that nobody knows are no damage. All methods raise ``StoreError`` for damage, and
    ``RemoteError`` for a server that does not answer.
    """

    def refresh(self) -> int | None:
        """Go to the newest state. Returns the highest revision up to which `nearest` finds all rows; None for none."""

    def begin_writing(self) -> None:
        """For the one writer, before it writes or deletes anything."""

    def add(self, described: Sequence[tuple[int, Descriptors]]) -> None:
        """Write the rows of new revisions; when this returns they are there for every reader."""

    def read(self, revisions: Collection[int] | None) -> dict[int, Rows]:
        """The rows of some revisions, or of all; one whose rows are missing, or there twice, is left out."""

    def nearest(self, queries: FloatArray, *, k: int, without: Collection[int]) -> set[int]:
        """The revisions of the ``k`` rows of highest cosine of every query row, but for those ``without``.

        ``queries``: float32 ``(Q, D)``. An index may miss some.
        """

    def num_indexed(self) -> int:
        """Rows that `nearest` finds, 0 where there is no index."""

    def check_index(self) -> None:
        """Raise unless `nearest` can answer. What it finds is not compared with anything."""

    def orphans(self, known: Mapping[int, int]) -> dict[int, int]:
        """How many rows there are of each revision that is not among ``known``, which have so many rows."""

    def delete(self, revisions: Collection[int]) -> None:
        """Delete all rows of some revisions."""

    def tend(self, *, index_above: int, merge: bool) -> None:
        """Keep `nearest` fast, for the one writer; see `engine.catalog.tables.Tables.tend`."""


def by_revision(
    revisions: NDArray[np.int64], numbers: NDArray[np.int32], times: FloatArray, descriptors: FloatArray
) -> dict[int, Rows]:
    """The rows of each revision in order; one that lacks a row, or has one twice, is left out.

    ``revisions`` and ``numbers``, from 0, say of each row which it is; ``times`` float32 ``(N, 2)``, ``descriptors``
    float32 ``(N, D)``.
    """
    order = np.lexsort((numbers, revisions))
    if not np.array_equal(order, np.arange(len(order))):
        revisions, numbers, times, descriptors = revisions[order], numbers[order], times[order], descriptors[order]
    found, starts = np.unique(revisions, return_index=True)
    stops = [*starts[1:].tolist(), len(revisions)]
    return {
        revision: Rows(times[start:stop], descriptors[start:stop])
        for revision, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True)
        if np.array_equal(numbers[start:stop], np.arange(stop - start))
    }
