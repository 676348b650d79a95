"""A runner for tests whose results can be worked out by hand: it runs a NumPy function as if it were a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.runtime.runner import Tensors, TensorSpec


class NumPyRunner:
    """Calls ``function`` with the tensors of each call."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batch_size = 4

    def __init__(self, function: Callable[[Tensors], dict[str, NDArray[Any]]]) -> None:
        self._function = function

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, *parts: Tensors) -> dict[str, NDArray[Any]]:
        return self._function({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
