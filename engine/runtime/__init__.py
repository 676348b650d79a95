"""Runner: one compiled graph on one device, fed with arrays. It knows nothing of videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (NumPy name) and shape of one input or output; ``None`` is the dynamic batch dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Runner(Protocol):
    """One compiled graph. A context manager: memory is taken on entry and freed on exit.

    ``run`` may be called from several threads, one call at a time per runner is executed. Rows of the result belong
    to the caller. Raises ``ConfigError`` where names, dtypes or shapes do not fit ``inputs``.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Run B rows, any B >= 1: ``{input name: (B, ...)} -> {output name: (B, ...)}``."""
