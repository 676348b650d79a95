"""Exact copies among the queries that the edit gate stopped: they count after all.

An edit gate asks whether a video was edited. An exact copy was not, and is stopped together with unrelated videos (a
weakness that arXiv 2501.11171 shows). But its frames are nearly identical to frames of a reference, and those of
unrelated videos are not: that can be seen before scores are normalized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from engine.errors import StoreError
from engine.gate_placeholder import without_kept_rows
from engine.projection import l2_normalize
from engine.records import Descriptors
from engine.search.exact import NearestRows
from engine.search.faiss_backend import CPU, SearchDevice
from engine.storage.location import Location
from engine.store.store import check_same_dimensions, read_descriptors, read_manifest


def resolve_stopped(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    near_identical_cosine: float | None,
    device: SearchDevice = CPU,
) -> list[Descriptors]:
    """Decide on the queries that the gate stopped with their rows kept; none of the result is in that state.

    Such a query is an exact copy, and its state becomes ``passed``, where one of its rows has a cosine above
    ``near_identical_cosine`` with a row of ``references``. Where none has, or there is no threshold, a placeholder
    takes the place of its rows. All other queries, and the order, stay as they are. Rows are compared as they come out
    of the engines, before score normalization. Raises ``StoreError`` where the dimensions differ.
    """
    kept = [video for video in queries if video.gate == "stopped_rows_kept"]
    cosines: dict[str, np.float32] = {}
    if kept and near_identical_cosine is not None:
        found = nearest_cosines(kept, references, device=device)
        cosines = {video.video_id: cosine for video, cosine in zip(kept, found, strict=True)}
    return [
        resolve(video, nearest_cosine=cosines.get(video.video_id), near_identical_cosine=near_identical_cosine)
        for video in queries
    ]


def nearest_cosines(
    queries: Sequence[Descriptors], references: Sequence[Descriptors], *, device: SearchDevice = CPU
) -> list[np.float32]:
    """For each query the highest cosine of one of its rows with a row of ``references``; both of them at least one.

    Raises ``StoreError`` where the dimensions differ.
    """
    check_same_dimensions(queries, references)
    rows, ref_rows = (np.concatenate([item.descriptors for item in side]) for side in (queries, references))
    cosines = NearestRows(l2_normalize(ref_rows), device=device).top_k(l2_normalize(rows), k=1).scores[:, 0]
    starts = [0, *accumulate(len(video) for video in queries)][:-1]
    return list(np.maximum.reduceat(cosines, starts))


def resolve(
    video: Descriptors, *, nearest_cosine: np.float32 | None, near_identical_cosine: float | None
) -> Descriptors:
    """What `resolve_stopped` makes of one query; ``nearest_cosine``: as `nearest_cosines`, None where there is none."""
    if video.gate != "stopped_rows_kept" or nearest_cosine is None or near_identical_cosine is None:
        return without_kept_rows(video)
    return replace(video, gate="passed") if nearest_cosine > near_identical_cosine else without_kept_rows(video)


def read_queries(path: Location, references: Sequence[Descriptors], *, device: SearchDevice = CPU) -> list[Descriptors]:
    """Read the descriptors of queries, and decide on those that the gate stopped with the figure of their preset.

    Only stores keep the rows of such queries; an ``.npz`` holds placeholders. Raises ``StoreError`` as
    `engine.store.store.read_descriptors` does.
    """
    queries = read_descriptors(path, role="query")
    if not any(video.gate == "stopped_rows_kept" for video in queries):
        return queries
    identity = read_manifest(path).identity if path.is_dir() else {}
    try:
        near_identical_cosine = float(identity["settings"]["gate"]["near_identical_cosine"])
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"{path} holds rows of queries that an edit gate stopped, but not the near_identical_cosine that says "
            "which of them count; use the store that `vsc-engine extract` wrote"
        ) from error
    return resolve_stopped(queries, references, near_identical_cosine=near_identical_cosine, device=device)


def read_sides(
    queries: Location, references: Location, *, device: SearchDevice = CPU
) -> tuple[list[Descriptors], list[Descriptors]]:
    """The descriptors of both sides, the queries as `read_queries` gives them, all of one dimension."""
    ref_rows = read_descriptors(references, role="reference")
    query_rows = read_queries(queries, ref_rows, device=device)
    check_same_dimensions(query_rows, ref_rows)
    return query_rows, ref_rows
