"""Turns descriptors into scored pairs of videos. It knows nothing of files or of segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.config import Search
from engine.errors import StoreError
from engine.records import CandidatePair, Descriptors
from engine.search.exact import global_top_k
from engine.search.rows import RowPairs, Rows, RowSearch
from engine.store.store import check_same_dimensions

_DEFAULT = Search()


def find_candidates(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    config: Search = _DEFAULT,
    search: RowSearch = global_top_k,
) -> list[CandidatePair]:
    """Find the pairs of videos that are likeliest to share footage, best first.

    As in the challenge's evaluation (facebookresearch/vsc2022, ``descriptor_eval_lib``): the
    ``config.retrieve_per_query * len(queries)`` best pairs of rows over all queries together, then the best score of
    each pair of videos, then the ``config.candidates_per_query * len(queries)`` best pairs of videos. Both numbers are
    averages: one threshold holds for all queries, so that a pair's presence says something about its score.

    ``search`` finds the pairs of rows, by default exactly on the CPU. Equal scores keep the order of the queries, then
    of the references, as given. Raises ``StoreError`` where there is nothing to search, a video occurs twice or
    dimensions differ.
    """
    check_same_dimensions(queries, references)
    for videos in (queries, references):
        _check_unique(videos)
    pairs = search(
        Rows([video.descriptors for video in queries]),
        Rows([video.descriptors for video in references]),
        k=config.retrieve_per_query * len(queries),
    )
    return pairs_of_videos(
        pairs, *({video.video_id: len(video) for video in side} for side in (queries, references)), config=config
    )


def pairs_of_videos(
    pairs: RowPairs, query_rows: Mapping[str, int], ref_rows: Mapping[str, int], *, config: Search
) -> list[CandidatePair]:
    """The best pairs of videos among pairs of rows that come best first: what `find_candidates` does with those.

    ``query_rows``, ``ref_rows``: how many rows each video of a side has, by id, in the order that they are counted in.
    """
    query_videos = _video_of_row(query_rows)[pairs.query_rows]
    ref_videos = _video_of_row(ref_rows)[pairs.ref_rows]
    # Rows come best first, so the first one of each pair of videos has its best score.
    _, first_rows = np.unique(query_videos * len(ref_rows) + ref_videos, return_index=True)
    first_rows = np.sort(first_rows)[: config.candidates_per_query * len(query_rows)]
    query_ids, ref_ids = list(query_rows), list(ref_rows)
    return [
        CandidatePair(query_ids[query], ref_ids[ref], score)
        for query, ref, score in zip(
            query_videos[first_rows].tolist(),
            ref_videos[first_rows].tolist(),
            pairs.scores[first_rows].tolist(),
            strict=True,
        )
    ]


def _video_of_row(num_rows: Mapping[str, int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(num_rows)), list(num_rows.values()))


def _check_unique(videos: Sequence[Descriptors]) -> None:
    counts = Counter(video.video_id for video in videos)
    repeated = [video_id for video_id, count in counts.items() if count > 1]
    if repeated:
        raise StoreError(f"expected the descriptors of each video once, got those of {repeated[:3]} more than once")
