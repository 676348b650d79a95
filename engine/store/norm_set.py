"""A norm set on disk: descriptor rows of unrelated pictures, for score normalization."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.errors import ConfigError, StoreError
from engine.files import load_arrays, save_arrays
from engine.records import FloatArray
from engine.storage.location import Location
from engine.store.store import read_descriptors, read_manifest

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


def read_norm_set(path: Location, *, engines: str) -> FloatArray:
    """All rows of a store or an ``.npz``, float32 ``(M, D)``, for engines of this identity.

    Raises ``StoreError``, too, for a store of other engines; an ``.npz`` does not say which made it.
    """
    if path.is_dir():
        found = read_manifest(path).identity.get("engines")
        if found != engines:
            raise StoreError(
                f"the norm set {path} was described by engines {found}, these are {engines}; describe it with the same "
                "engines"
            )
    return np.concatenate([video.descriptors for video in read_descriptors(path, role="reference")])
