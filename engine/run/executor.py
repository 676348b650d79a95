"""The interface of what does jobs: the supervisor of local worker processes, or another system in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, Self

from engine.run.messages import Job, Result


class Executor(Protocol):
    """Does jobs, many at once. A context manager: leaving it ends all that it started."""

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds per stage so far, added up over all that worked."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Yield the result of each job once, as it comes; jobs are begun in the given order.

        A job that ends what works on it, or takes longer than its limit, is tried once more, alone; if it does so
        again, its result is a `Failure` of stage ``worker`` or ``timeout``. Raises ``EngineError`` or ``OSError`` for
        what no other attempt could get past.
        """
