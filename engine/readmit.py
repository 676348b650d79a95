"""Second thoughts about queries that the edit gate stopped: exact copies of a reference count after all.

An edit gate asks whether a video was edited. An exact copy was not, and is stopped together with unrelated videos (a
weakness that arXiv 2501.11171 shows). But its frames are nearly identical to frames of a reference, and those of
unrelated videos are not: that can be seen before scores are normalized. Knows nothing of how rows are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from engine.errors import StoreError
from engine.gated import is_held, shut_out
from engine.index import top_k
from engine.nearest import CPU, SearchDevice
from engine.projection import l2_normalize
from engine.records import Descriptors
from engine.store import check_same_dimensions, read_descriptors, read_manifest


def settle_gated(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    near_identical_cosine: float | None,
    device: SearchDevice = CPU,
) -> list[Descriptors]:
    """Let in or shut out the queries that the gate stopped; no gated query of the result holds more than a placeholder.

    A gated query that still has the rows of its frames is let in (``gated`` becomes False) where one of them has a
    cosine above ``near_identical_cosine`` with a row of ``references``. Where none has, or there is no threshold, a
    placeholder takes the place of its rows. All other queries, and the order, stay as they are. Rows are compared as
    they come out of the engines, before score normalization. Raises ``StoreError`` where the dimensions differ.
    """
    held = [video for video in queries if is_held(video)]
    admitted: set[str] = set()
    if held and near_identical_cosine is not None:
        check_same_dimensions(held, references)
        rows, ref_rows = (np.concatenate([item.descriptors for item in side]) for side in (held, references))
        cosines = top_k(l2_normalize(rows), l2_normalize(ref_rows), k=1, device=device).scores[:, 0]
        starts = [0, *accumulate(len(video) for video in held)][:-1]
        nearest = np.maximum.reduceat(cosines, starts)
        admitted = {
            video.video_id for video, cosine in zip(held, nearest, strict=True) if cosine > near_identical_cosine
        }
    return [replace(video, gated=False) if video.video_id in admitted else shut_out(video) for video in queries]


def read_queries(path: Path, references: Sequence[Descriptors], *, device: SearchDevice = CPU) -> list[Descriptors]:
    """Read the descriptors of queries, and settle those that the gate stopped with the figure of their preset.

    Only stores hold the rows of such queries; an ``.npz`` holds placeholders. Raises ``StoreError`` as
    `engine.store.read_descriptors` does.
    """
    queries = read_descriptors(path, role="query")
    if not any(is_held(video) for video in queries):
        return queries
    identity = read_manifest(path).identity if path.is_dir() else {}
    try:
        near_identical_cosine = float(identity["settings"]["gate"]["near_identical_cosine"])
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"{path} holds rows of queries that an edit gate stopped, but not the near_identical_cosine that says "
            "which of them count; use the store that `vsc-engine extract` wrote"
        ) from error
    return settle_gated(queries, references, near_identical_cosine=near_identical_cosine, device=device)
