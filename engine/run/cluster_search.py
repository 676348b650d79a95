"""The exact search of rows, spread over the nodes of a Ray cluster: each compares all queries with some references."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from engine.errors import BackendUnavailable
from engine.records import FloatArray
from engine.search.exact import global_top_k
from engine.search.rows import RowPairs, Rows, best_of

try:
    from engine.run.ray_actors import RayActors
except ModuleNotFoundError as _error:
    raise BackendUnavailable("a search on a cluster needs Ray: pip install 'vsc-engine[cluster]'") from _error


@dataclass(frozen=True)
class ClusterSearch:
    """A `engine.search.rows.RowSearch` that finds exactly what `engine.search.exact.global_top_k` finds.

    Every node gets an equal part of the references, and all queries; each of them, and this process, holds ``k`` pairs.
    Raises ``EngineError`` for what goes wrong on a node, too.
    """

    actors: RayActors

    @classmethod
    def at(cls, address: str) -> Self:
        """Join a cluster. Raises ``EngineError`` where none answers."""
        return cls(RayActors(address))

    def __call__(self, queries: Rows, references: Rows, *, k: int) -> RowPairs:
        """See `engine.search.rows.RowSearch`."""
        num_parts = min(self.actors.num_nodes(), len(references))
        parts = [
            self.actors.host(_Part, self.actors.share(rows), start, what="a part of the search", num_actors=num_parts)
            for start, rows in references.blocks(-(-len(references) // num_parts))
        ]
        shared = self.actors.share(queries.joined())
        with ThreadPoolExecutor(len(parts)) as pool:
            found: list[RowPairs] = list(pool.map(lambda part: part.call("search", shared, k=k), parts))
        return best_of(found, k=k)


class _Part:
    """Some references, of which ``start`` is the number of the first one among all."""

    def __init__(self, references: FloatArray, start: int) -> None:
        self._references = references
        self._start = start

    def search(self, queries: FloatArray, *, k: int) -> RowPairs:
        """The ``k`` best pairs, the references numbered as among all."""
        found = global_top_k(queries, self._references, k=k)
        return found._replace(ref_rows=found.ref_rows + self._start)
