"""Recorded inputs and outputs of a graph, and whether a runner gives the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, EngineError
from engine.files import load_arrays, save_arrays

TOLERANCE = 5e-6
"""Largest accepted difference, relative to the largest value of the output where that is above 1."""


@dataclass(frozen=True, eq=False)
class Case:
    """One call of a graph: ``{input name: array}`` and the ``{output name: array}`` that it must give."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


def check_parity(results: Sequence[Mapping[str, NDArray[Any]]], cases: Sequence[Case], *, name: str) -> float:
    """The largest difference between ``results``, the outputs for each case, and what ``cases`` recorded.

    Raises ``EngineError`` if it is above `TOLERANCE`; ``name`` says what was compared.
    """
    differences = [
        _difference(outputs[key], want)
        for outputs, case in zip(results, cases, strict=True)
        for key, want in case.outputs.items()
    ]
    difference = float(np.max(differences))
    if not difference <= TOLERANCE:  # NaN is not
        raise EngineError(
            f"{name} differs by {difference:.1e} from what PyTorch computed when the graph was exported, more than "
            f"{TOLERANCE:.0e}: the exporter or the executor computes something else. It was not written"
        )
    return difference


def save_cases(cases: Sequence[Case], path: Path) -> None:
    """Write ``cases`` as an ``.npz`` of arrays named ``NUMBER/inputs/NAME`` and ``NUMBER/outputs/NAME``."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, case in enumerate(cases):
        arrays |= {f"{number}/inputs/{name}": array for name, array in case.inputs.items()}
        arrays |= {f"{number}/outputs/{name}": array for name, array in case.outputs.items()}
    save_arrays(path, arrays)


def load_cases(path: Path) -> list[Case]:
    """Read what `save_cases` wrote. Raises ``ConfigError`` for any other file."""
    parts: dict[str, dict[str, dict[str, NDArray[Any]]]] = defaultdict(lambda: {"inputs": {}, "outputs": {}})
    try:
        for key, array in load_arrays(path).items():
            number, side, name = key.split("/")
            parts[number][side][name] = array
    except (ValueError, KeyError) as error:
        raise ConfigError(f"cannot read the recorded outputs of a graph, build the engines again: {error}") from error
    return [Case(**part) for part in parts.values()]


def _difference(got: NDArray[Any], want: NDArray[Any]) -> float:
    if got.shape != want.shape:
        return np.inf
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))
