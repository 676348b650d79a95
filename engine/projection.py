"""L2 normalization and PCA of embeddings, with the PCA on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.files import load_arrays, save_arrays
from engine.records import FloatArray

_BLOCK_ROWS = 8192
_ARRAYS = ("mean", "components", "explained_variance")


def l2_normalize(rows: FloatArray) -> FloatArray:
    """Divide each row of a float32 ``(N, D)`` array by its Euclidean length; a row of zeros stays as it is.

    The result of a row does not depend on the other rows.
    """
    lengths = np.sqrt(np.vecdot(rows, rows))
    lengths[lengths == 0] = 1
    normalized: FloatArray = rows / lengths[:, None]
    return normalized


@dataclass(frozen=True, eq=False)
class Pca:
    """A fitted projection from E to K dimensions, without whitening: ``(x - mean) @ components.T``.

    ``mean``: float32 ``(E,)``. ``components``: float32 ``(K, E)``, orthonormal rows by falling variance.
    ``explained_variance``: float32 ``(K,)``, the variance along each component (divided by N - 1).
    """

    mean: FloatArray
    components: FloatArray
    explained_variance: FloatArray

    def __post_init__(self) -> None:
        shapes = self.mean.shape, self.components.shape, self.explained_variance.shape
        num_components, num_dims = self.components.shape if self.components.ndim == 2 else (0, 0)
        if num_components == 0 or shapes != ((num_dims,), (num_components, num_dims), (num_components,)):
            raise ValueError(
                "expected mean (E,), components (K, E) and explained_variance (K,), got {}, {} and {}".format(*shapes)
            )
        for name in _ARRAYS:
            values = getattr(self, name)
            if values.dtype != np.float32 or not np.isfinite(values).all():
                raise ValueError(f"expected {name} as finite float32 values, got dtype {values.dtype} or NaN, infinity")

    @cached_property
    def weight(self) -> FloatArray:
        """float32 ``(E, K)``: ``x @ weight + bias`` is the whole projection."""
        return np.ascontiguousarray(self.components.T)

    @cached_property
    def bias(self) -> FloatArray:
        """float32 ``(K,)``: ``-mean @ components.T``, summed in float64."""
        return (-(self.components.astype(np.float64) @ self.mean.astype(np.float64))).astype(np.float32)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of mean and components (hexadecimal), whatever file they came from."""
        return hashlib.sha256(self.mean.tobytes() + self.components.tobytes()).hexdigest()

    def transform(self, embeddings: FloatArray) -> FloatArray:
        """Project ``embeddings``, float32 ``(N, E)``, to float32 ``(N, K)``. Raises ``ConfigError`` for another E."""
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.mean):
            raise ConfigError(
                f"the PCA takes embeddings of {len(self.mean)} dimensions, got an array of shape {embeddings.shape}; "
                "fit it on embeddings of the same models"
            )
        projected: FloatArray = embeddings @ self.weight
        projected += self.bias
        return projected


def fit_pca(embeddings: FloatArray, *, num_components: int) -> Pca:
    """Exact PCA of ``embeddings``, float32 ``(N, E)``.

    Two passes in float64 (mean, then the covariance of the centred rows, block by block), so that memory beyond the
    input is a few E x E arrays and no digits cancel. The sign of a component makes its largest entry positive, as
    scikit-learn does. Raises ``ConfigError`` for fewer than two rows, for ``num_components`` outside 1..min(N, E), and
    for NaN or infinity.
    """
    num_rows, num_dims = embeddings.shape
    if num_rows < 2 or not 1 <= num_components <= min(num_rows, num_dims):
        raise ConfigError(
            f"a PCA to {num_components} dimensions needs at least {max(num_components, 2)} rows and dimensions, got "
            f"embeddings of shape {embeddings.shape}; take more videos or fewer components"
        )
    mean = embeddings.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ConfigError("cannot fit a PCA: the embeddings hold NaN or infinity")
    variances, directions = np.linalg.eigh(_covariance(embeddings, mean))
    components = directions[:, ::-1].T[:num_components]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return Pca(
        mean=mean.astype(np.float32),
        components=np.ascontiguousarray(components * np.sign(largest), dtype=np.float32),
        explained_variance=variances[::-1][:num_components].clip(min=0).astype(np.float32),
    )


def _covariance(embeddings: FloatArray, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    num_rows, num_dims = embeddings.shape
    covariance = np.zeros((num_dims, num_dims))
    for start in range(0, num_rows, _BLOCK_ROWS):
        centred = embeddings[start : start + _BLOCK_ROWS] - mean
        covariance += centred.T @ centred
    covariance /= num_rows - 1
    return covariance


def save_pca(pca: Pca, path: Path) -> None:
    """Write ``pca`` as an ``.npz`` of its three arrays."""
    save_arrays(path, {name: getattr(pca, name) for name in _ARRAYS})


def load_pca(path: Path) -> Pca:
    """Read what `save_pca` wrote. Raises ``ConfigError`` for any other file."""
    try:
        arrays = load_arrays(path)
    except ValueError as error:
        raise ConfigError(f"cannot read the PCA: {error}") from error
    if set(arrays) != set(_ARRAYS):
        raise ConfigError(f"{path} is not a PCA: expected the arrays {list(_ARRAYS)}, got {sorted(arrays)}")
    try:
        return Pca(**arrays)
    except ValueError as error:
        raise ConfigError(f"{path} is not a PCA: {error}") from error
