"""Runner: one compiled graph on one device, fed with arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.runtime.device_array import Rows

Tensors = Mapping[str, Rows]

HOST_BATCH_SIZE = 8
"""Rows that fill the cores of a CPU."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (NumPy name) and shape of one input or output; ``None`` is a dimension that the caller chooses."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def full_shape(self, num_rows: int) -> tuple[int, ...]:
        """The shape with ``num_rows`` rows."""
        return tuple(num_rows if size is None else size for size in self.shape)

    def num_bytes(self, num_rows: int) -> int:
        """Bytes with ``num_rows`` rows."""
        return math.prod(self.full_shape(num_rows)) * np.dtype(self.dtype).itemsize


class Runner(Protocol):
    """One compiled graph. A context manager: memory is taken on entry and freed on exit.

    ``run`` may be called from several threads; one call at a time per runner is executed. The arrays it returns are
    copies that belong to the caller.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes; known before entry."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns; known before entry."""

    @property
    def batch_size(self) -> int:
        """The number of rows to give to one call where there is a choice; known on entry."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, *parts: Tensors) -> dict[str, NDArray[Any]]:
        """Run n rows, any n >= 1: ``{input name: (n, ...)} -> {output name: array}``.

        Several ``parts`` are as one whose arrays follow each other. Runners on a GPU take host and device arrays, those
        on a CPU only host arrays. Outputs have a row for every input row, unless `outputs` says that their first
        dimension is fixed. Raises ``ConfigError`` where names, dtypes or shapes do not fit `inputs`.
        """


def check_tensors(tensors: Tensors, specs: Sequence[TensorSpec]) -> None:
    """Raise ``ConfigError`` unless ``tensors`` are what ``specs`` ask for, all with the same number of rows, >= 1."""
    if set(tensors) != {spec.name for spec in specs}:
        raise ConfigError(f"expected inputs {sorted(spec.name for spec in specs)}, got {sorted(tensors)}")
    for spec in specs:
        array = tensors[spec.name]
        if array.dtype != spec.dtype or not _fits(array.shape, spec.shape):
            raise ConfigError(
                f"input {spec.name!r}: expected {spec.dtype} {_text(spec.shape)}, got {array.dtype} {array.shape}"
            )
    num_rows = {name: len(array) for name, array in tensors.items()}
    if len(set(num_rows.values())) > 1 or 0 in num_rows.values():
        raise ConfigError(f"expected the same number of rows, 1 or more, in every input, got {num_rows}")


def join_host_rows(parts: Sequence[Tensors], specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """All rows of ``parts``, checked, as one host array for each input. Raises ``ConfigError`` if one is on a GPU."""
    for part in parts:
        check_tensors(part, specs)
    return {spec.name: _joined(spec.name, [part[spec.name] for part in parts]) for spec in specs}


def _joined(name: str, arrays: Sequence[Rows]) -> NDArray[Any]:
    on_host = [array for array in arrays if isinstance(array, np.ndarray)]
    if len(on_host) < len(arrays):
        raise ConfigError(f"input {name!r} lies on a GPU, and these engines run on the CPU: decode on the CPU, too")
    return on_host[0] if len(on_host) == 1 else np.concatenate(on_host)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(want in (None, got) for got, want in zip(shape, expected, strict=True))


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if size is None else str(size) for size in shape) + ")"
