"""Finds cuts: pictures that differ from the one before by far more than those around them do.

They are exact to a frame, where sampled frames are a second apart, and so tell when a copied excerpt begins and ends,
and how the times of two videos that share cuts lie to one another (`engine.search.hough_voting`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GRID_ROWS, _GRID_COLUMNS = 18, 32
_MIN_DIFFERENCE, _MIN_CHANGE = 4.0, 0.5
"""Grey levels, in the mean of the grid: of a cut, and of pictures that are not the same."""
_MIN_RATIO = 4.0
"""Times the mean difference around."""
_AROUND = 8
"""Differences on each side."""


class CutFinder:
    """Takes the pictures of a video one by one, of which it keeps a few points."""

    def __init__(self) -> None:
        self._before: NDArray[np.int16] | None = None
        self._differences: list[float] = []

    def add(self, plane: NDArray[np.unsignedinteger[Any]], *, num_bits: int = 8) -> None:
        """The next picture: one plane of it, ``(H, W)``, of so many bits; luma, as a rule."""
        height, width = plane.shape
        down, across = max(1, height // _GRID_ROWS), max(1, width // _GRID_COLUMNS)
        points = plane[down // 2 :: down, across // 2 :: across][:_GRID_ROWS, :_GRID_COLUMNS]
        grid = (points >> max(0, num_bits - 8)).astype(np.int16)
        before, self._before = self._before, grid
        if before is not None:
            is_comparable = before.shape == grid.shape
            self._differences.append(float(np.abs(grid - before).mean()) if is_comparable else 0.0)

    def cuts(self) -> NDArray[np.intp]:
        """The numbers of the pictures, from 0, with which a new shot begins; ascending, the first picture is none."""
        differences = np.array(self._differences)
        found = []
        for place in np.flatnonzero(differences > _MIN_DIFFERENCE).tolist():
            around = differences[max(0, place - _AROUND) : place + _AROUND + 1]
            others = around[around > _MIN_CHANGE]  # without those between a picture and itself
            mean_of_others = (others.sum() - differences[place]) / max(1, len(others) - 1)
            if differences[place] == around.max() and differences[place] > _MIN_RATIO * mean_of_others:
                found.append(place + 1)
        return np.array(found, np.intp)
