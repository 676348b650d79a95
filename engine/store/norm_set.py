"""A norm set on disk: descriptor rows of unrelated pictures, for score normalization."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.errors import ConfigError
from engine.files import load_arrays, save_arrays
from engine.records import FloatArray

_ARRAY = "descriptors"


def save_norm_set(rows: FloatArray, path: Path) -> None:
    """Write descriptor rows, float32 ``(M, D)`` of values within -1 to 1, as float16: half the size, 3 digits."""
    save_arrays(path, {_ARRAY: rows.astype(np.float16)})


def load_norm_set(path: Path) -> FloatArray:
    """Read what `save_norm_set` wrote, as float32 ``(M, D)``. Raises ``ConfigError`` for any other file."""
    try:
        arrays = load_arrays(path)
    except ValueError as error:
        raise ConfigError(f"cannot read the norm set: {error}") from error
    rows = arrays.get(_ARRAY)
    if len(arrays) != 1 or rows is None or rows.ndim != 2 or rows.dtype != np.float16 or not np.isfinite(rows).all():
        raise ConfigError(f"{path} is not a norm set: expected finite float16 rows {_ARRAY!r}, got {sorted(arrays)}")
    return rows.astype(np.float32)
