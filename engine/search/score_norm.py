"""Score normalization: makes the scores of different queries comparable.

Some queries are close to everything (black frames, faces, captions) and would fill a global ranking. So from each
query's scores its closeness to an independent *norm set* of references, which hold no copy of it, is subtracted:

    normalized(q, r) = q . r - beta * mean of the nk largest q . n over the rows n of the norm set

The subtracted term depends on the query only. Put as one more dimension, it needs no other search than inner products:

    q' = [q, bias(q)]    r' = [r, 1]    q' . r' = q . r + bias(q) = normalized(q, r)

To keep D, the dimension that varies least over the norm set makes room for it; rows are L2-normalized in between. The
form is that of facebookresearch/vsc2022 (``score_normalization.py``), beta and nk those of its users; videos that the
edit gate stopped get ``GATED_BIAS`` (VSC22 descriptor track, first place).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, StoreError
from engine.projection import l2_normalize
from engine.records import GATED_BIAS, Descriptors, FloatArray
from engine.search.exact import NearestRows
from engine.search.faiss_backend import CPU, SearchDevice

_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ScoreNormalizer:
    """Adapts descriptors so that the inner product of a query and a reference is the normalized score.

    ``norm_rows``: float32 ``(M, D - 1)``, unit rows of the norm set without ``dropped_dim``.
    """

    norm_rows: FloatArray
    dropped_dim: int
    beta: float
    nk: int

    @classmethod
    def fit(cls, norm_rows: FloatArray, *, beta: float = 1.2, nk: int = 1) -> Self:
        """Prepare the norm set: all its descriptor rows, float32 ``(M, D)``, before any score normalization.

        The dropped dimension is the one of least variance, the first of equals. Raises ``ConfigError`` for ``nk``
        outside 1..M, D below 2 and a beta that is not finite, and ``StoreError`` for NaN or infinity.
        """
        num_rows, num_dims = norm_rows.shape
        if not 1 <= nk <= num_rows or num_dims < 2 or not np.isfinite(beta):
            raise ConfigError(
                "score normalization needs a finite beta, nk of at least 1 and a norm set of at least nk rows and two "
                f"dimensions, got beta = {beta}, nk = {nk} and a norm set of shape {norm_rows.shape}"
            )
        variances = _variances(norm_rows)
        if not np.isfinite(variances).all():
            raise StoreError("the norm set holds NaN or infinity; extract its descriptors again")
        dropped_dim = int(variances.argmin())
        return cls(_without_dimension(norm_rows, dropped_dim), dropped_dim, beta, nk)

    def queries(self, descriptors: Sequence[Descriptors], *, device: SearchDevice = CPU) -> list[Descriptors]:
        """Each query, in order, with its bias as the last dimension; ``GATED_BIAS`` where the gate stopped it.

        The result of a video does not depend on the others, nor on ``device``. Raises ``StoreError`` for another D than
        the norm set's.
        """
        videos = [self._adapted(video) for video in descriptors]
        biases = iter(self._biases([video.descriptors for video in videos if not video.is_stopped], device=device))
        return [
            _append(video, np.full(len(video), GATED_BIAS, dtype=np.float32) if video.is_stopped else next(biases))
            for video in videos
        ]

    def references(self, descriptors: Iterable[Descriptors]) -> list[Descriptors]:
        """Each reference, in order, with 1 as the last dimension. Raises ``StoreError`` for another D."""
        return [_append(self._adapted(video), np.ones(len(video), dtype=np.float32)) for video in descriptors]

    def _adapted(self, video: Descriptors) -> Descriptors:
        num_dims = self.norm_rows.shape[1] + 1
        if video.descriptors.shape[1] != num_dims:
            raise StoreError(
                f"{video.video_id!r} has descriptors of {video.descriptors.shape[1]} dimensions, the norm set of "
                f"{num_dims}; both must come from the same engines"
            )
        return replace(video, descriptors=_without_dimension(video.descriptors, self.dropped_dim))

    def _biases(self, queries: Sequence[FloatArray], *, device: SearchDevice) -> list[FloatArray]:
        """The biases of the rows of each query."""
        if not queries:
            return []
        nearest = NearestRows(self.norm_rows, device=device).top_k(np.concatenate(queries), k=self.nk)
        biases = (-self.beta * nearest.scores.mean(axis=1, dtype=np.float64)).astype(np.float32)
        return np.split(biases, np.cumsum([len(rows) for rows in queries])[:-1])


def is_normalized(references: Iterable[Descriptors]) -> bool:
    """Whether references are as `ScoreNormalizer.references` gives them: the last number of each row is 1."""
    return all(bool((reference.descriptors[:, -1] == 1).all()) for reference in references)


def unit_length(descriptors: Iterable[Descriptors]) -> list[Descriptors]:
    """Rows scaled to length 1, so that inner products are cosines: what is compared without score normalization.

    Placeholders stay tiny. Blank rows become 0 and resemble nothing: no norm set is there to say that they resemble
    everything blank.
    """
    return [item if item.is_stopped else replace(item, descriptors=_unit_rows(item)) for item in descriptors]


def _unit_rows(video: Descriptors) -> FloatArray:
    rows = l2_normalize(video.descriptors)
    return rows if video.blank is None else np.where(video.blank[:, None], np.float32(0), rows)


def _without_dimension(rows: FloatArray, dimension: int) -> FloatArray:
    return l2_normalize(np.delete(rows, dimension, axis=1))


def _append(video: Descriptors, column: FloatArray) -> Descriptors:
    return replace(video, descriptors=np.concatenate([video.descriptors, column[:, None]], axis=1))


def _variances(rows: FloatArray) -> NDArray[np.float64]:
    """Population variance of each dimension, in float64, without a float64 copy of all rows."""
    mean = rows.mean(axis=0, dtype=np.float64)
    variances = np.zeros(len(mean))
    for start in range(0, len(rows), _BLOCK_ROWS):
        variances += np.square(rows[start : start + _BLOCK_ROWS] - mean).sum(axis=0)
    variances /= len(rows)
    return variances
