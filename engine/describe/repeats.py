"""Pictures that show what the one before them showed: their pixels are equal, and so are their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.video.source import FrameChunk


class Repeats:
    """Takes the pictures of a video chunk by chunk and leaves out those that repeat the one before in their view.

    Pictures on a GPU are not looked at: they all count as new. Of the last picture of a view its hash is kept: a long
    film has a view for each shot, and pixels of all would fill the memory.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[bytes | None, int]] = {}
        self._places: list[NDArray[np.intp]] = []
        self._num_new = 0

    @property
    def places(self) -> NDArray[np.intp]:
        """For each picture so far, intp ``(N,)``, its place among those that were not left out."""
        return np.concatenate(self._places)

    def new_inputs(self, chunk: FrameChunk) -> dict[str, Any]:
        """The inputs of the pictures that are new; their arrays have no rows where none is."""
        is_new = np.ones(len(chunk.timestamps), bool)
        last = self._last.get(chunk.view)
        if last is not None:
            is_new[0] = last[0] is None or last[0] != _hash(chunk, 0)
        for number in range(1, len(is_new)):
            is_new[number] = not _are_equal(_row(chunk, number - 1), _row(chunk, number))
        places = np.cumsum(is_new) - 1 + self._num_new
        if last is not None and not is_new[0]:
            places[: int(np.argmax(is_new)) if is_new.any() else len(is_new)] = last[1]
        self._places.append(places)
        self._num_new += int(is_new.sum())
        self._last[chunk.view] = _hash(chunk, -1), int(places[-1])
        return chunk.inputs if is_new.all() else {name: array[is_new] for name, array in chunk.inputs.items()}


def _row(chunk: FrameChunk, number: int) -> dict[str, Any]:
    return {name: array[number] for name, array in chunk.inputs.items() if isinstance(array, np.ndarray)}


def _hash(chunk: FrameChunk, number: int) -> bytes | None:
    """Of the pixels of a picture, None where there are none in host memory."""
    row = _row(chunk, number)
    digest = hashlib.sha256()
    for name in sorted(row):
        digest.update(np.ascontiguousarray(row[name]).data)
    return digest.digest() if row else None


def _are_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one) and all(np.array_equal(one[name], other[name]) for name in one)
