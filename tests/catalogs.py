"""Small catalogues over the tiny engines of `tests.packaged`, and descriptors for them that no video is needed for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.catalog.catalog import Catalog
from engine.projection import l2_normalize
from engine.records import Descriptors
from engine.store.challenge_npz import write_npz
from tests.packaged import NUM_COMPONENTS


def video(video_id: str, num_rows: int = 9, *, seed: int = 0, num_dims: int = NUM_COMPONENTS) -> Descriptors:
    """A video of its own for each id and seed: unit rows, one a second."""
    rng = np.random.default_rng([seed, *video_id.encode()])
    start_s = np.arange(num_rows, dtype=np.float32)
    rows = l2_normalize(rng.standard_normal((num_rows, num_dims), dtype=np.float32))
    return Descriptors(video_id, np.stack([start_s, start_s + 1], axis=1), rows)


def copy_of(source: Descriptors, video_id: str, *, start: int = 0, noise: float = 0.1) -> Descriptors:
    """A query with the rows of a video from ``start`` on, each moved a little."""
    rng = np.random.default_rng([7, *video_id.encode()])
    rows = source.descriptors[start:]
    moved = l2_normalize(rows + noise * rng.standard_normal(rows.shape, dtype=np.float32))
    return Descriptors(video_id, source.timestamps[: len(rows)], moved)


def npz(path: Path, *videos: Descriptors) -> Path:
    """Write a challenge file."""
    write_npz(path, videos)
    return path


def delete_row(catalog: Catalog, revision: int, row: int) -> None:
    """Take one row away, as no part of the program does."""
    rows: Any = catalog._shares.tables[0]._rows
    condition = f"revision == {revision} AND row == {row}"
    if catalog.manifest.milvus is None:
        rows._table.delete(condition.replace("==", "="))
    else:
        rows._client.delete(catalog.manifest.milvus.collection, filter=condition)


def contents(catalog: Catalog) -> dict[str, tuple[str, int, bytes]]:
    """What counts of every video: the hash of its source, its rows and their bytes."""
    shares = catalog._shares
    shares.refresh()
    entries = shares.entries()
    rows = {key: found for tables in shares.tables for key, found in tables.read_rows().items()}
    return {
        video_id: (entry.video.sha256, entry.video.num_rows, rows[entry.revision].descriptors.tobytes())
        for video_id, entry in entries.items()
    }
