"""Micro average precision of a model on edited pictures that it was not trained on. Quick enough for every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluate.metrics import micro_average_precision
from engine.records import CandidatePair, FloatArray
from training.descriptor.views import Views, fit
from training.footage.resizing import Frame
from training.store.frame_store import FrameStore

Embed = Callable[[NDArray[np.uint8]], FloatArray]
"""Uint8 ``(B, px, px, 3)`` to unit rows, float32 ``(B, D)``."""


@dataclass(frozen=True)
class PictureRetrieval:
    """Queries are hard views: half of references, half of pictures that are no reference.

    ``queries``, ``references``: uint8 ``(Q, px, px, 3)`` and ``(R, px, px, 3)``; the first R queries are copies, in the
    order of the references.
    """

    queries: NDArray[np.uint8]
    references: NDArray[np.uint8]

    @classmethod
    def draw(
        cls, store: FrameStore, pictures: NDArray[np.int64], views: Views, *, input_px: int, seed: int
    ) -> PictureRetrieval:
        """Draw from held-out ``pictures``; the first half of them are the references."""
        rng = np.random.default_rng([seed, 1])

        def other() -> Frame:
            return store.picture(int(pictures[rng.integers(len(pictures))]))

        hard = [views.draw(rng, store.picture(int(index)), other, input_px=input_px)[0] for index in pictures]
        references = [fit(store.picture(int(index)), input_px) for index in pictures[: len(pictures) // 2]]
        return cls(np.stack(hard), np.stack(references))

    def uap(self, embed: Embed) -> float:
        """Micro average precision over all pairs of a query and a reference, scored by cosine similarity."""
        scores = embed(self.queries) @ embed(self.references).T
        pairs = [
            CandidatePair(f"Q{query}", f"R{ref}", float(score))
            for query, row in enumerate(scores)
            for ref, score in enumerate(row)
        ]
        truth = {(f"Q{index}", f"R{index}") for index in range(len(self.references))}
        return micro_average_precision(pairs, truth).average_precision
