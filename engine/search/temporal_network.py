"""Localizes copies: which seconds of a query show which seconds of a reference. The pairs are chosen elsewhere.

The method is the temporal network of Tan et al., "Scalable detection of partial near-duplicate videos by
visual-temporal consistency" (ACM MM 2009), as VCSL (``vcsl/vta.py`` of alipay/VCSL) and the challenge's baseline
(``vsc/baseline/localization.py`` of facebookresearch/vsc2022) run it: every query row and one of the reference rows
most similar to it make a node. An edge leads to a node that is a little later in both videos and similar enough, and
gains that node's similarity. The longest path is a run of frames that advance together; its bounding box is a segment
if it is long, similar and new enough. Then the edges of that path gain nothing any more, and the next longest path is
looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.config import TemporalNetwork
from engine.projection import l2_normalize
from engine.records import Descriptors, FloatArray, Match
from engine.store.store import check_same_dimensions

Box = tuple[int, int, int, int]
"""``(first query row, first reference row, last query row, last reference row)``, the last ones included."""

Edges = list[dict[int, np.float32]]
"""For each node, the nodes with an edge to it, in ascending order, and what the edge gains."""

_DEFAULT = TemporalNetwork()


def localize(
    query: Descriptors, reference: Descriptors, score: float, *, network: TemporalNetwork = _DEFAULT
) -> list[Match]:
    """Find the segments that a pair of videos shares; ``score`` is the pair's. Raises ``StoreError`` if D differs.

    A segment goes from the start of its first row to the end of its last row.
    """
    check_same_dimensions([query], [reference])
    similarity = _similarity(query.descriptors, reference.descriptors, network=network)
    matches = []
    for scene in _scenes(query, network=network):
        query_times, of_scene = query.timestamps[scene], similarity[scene]
        for box in find_segments(of_scene, network=network):
            q0, r0, q1, r1 = box
            peak = float(of_scene[q0:q1, r0:r1].max() - np.float32(network.similarity_bias))
            match = Match(
                query_id=query.video_id,
                ref_id=reference.video_id,
                query_start_s=float(query_times[q0, 0]),
                query_end_s=float(query_times[q1, 1]),
                ref_start_s=float(reference.timestamps[r0, 0]),
                ref_end_s=float(reference.timestamps[r1, 1]),
                score=peak if network.score == "segment" else score,
            )
            matches.append(match)
    return matches


def find_segments(similarity: FloatArray, *, network: TemporalNetwork = _DEFAULT) -> list[Box]:
    """Boxes of rows that advance together in a similarity matrix, float32 ``(Q, R)``, most similar path first.

    The bias is not added here. Equal similarities go to the earlier row. VCSL's ``tn`` gives the same boxes.
    """
    columns = np.argsort(-similarity, axis=1, kind="stable")[:, : network.top_k]
    rows = np.repeat(np.arange(len(columns)), columns.shape[1])
    cells = list(zip(rows.tolist(), columns.ravel().tolist(), strict=True))
    edges = _edges(columns, np.take_along_axis(similarity, columns, axis=1), network=network)
    order = _topological_order(edges)
    boxes: list[Box] = []
    for _ in range(network.max_paths):
        path = _longest_path(edges, order)
        if not path:
            break
        for source, target in pairwise(path):
            edges[target][source] = np.float32(0)
        box = (*cells[path[0]], *cells[path[-1]])
        total = sum((similarity[cells[node]] for node in path), start=np.float32(0))
        if _is_segment(box, float(total), network=network) and all(_iou(box, it) < network.max_iou for it in boxes):
            boxes.append(box)
    return boxes


def _similarity(query: FloatArray, reference: FloatArray, *, network: TemporalNetwork) -> FloatArray:
    if network.similarity == "cosine":
        query, reference = l2_normalize(query), l2_normalize(reference)
    return query @ reference.T + np.float32(network.similarity_bias)


def _scenes(query: Descriptors, *, network: TemporalNetwork) -> list[slice]:
    """Rows of each scene. Rows are scene by scene, so time goes back, or stands still, where a new one begins."""
    if network.scenes == "together":
        return [slice(0, len(query))]
    later = np.flatnonzero(np.diff(query.timestamps[:, 0]) <= 0) + 1
    return [slice(first, end) for first, end in pairwise([0, *later.tolist(), len(query)])]


def _edges(columns: NDArray[np.intp], similarity: FloatArray, *, network: TemporalNetwork) -> Edges:
    """Edges between nodes; node ``row * K + k`` is reference row ``columns[row, k]`` with ``similarity[row, k]``.

    An edge may not jump over a reference row that a shorter edge from the same query row has reached.
    """
    num_rows, k = columns.shape
    edges: Edges = [{} for _ in range(columns.size)]
    reached = np.zeros((num_rows, 0), dtype=np.intp)
    ends: list[list[int]] = []
    for step in range(1, min(network.max_step, num_rows)):
        reached = reached[: num_rows - step]
        source, target = columns[:-step, None, :], columns[step:, :, None]
        between = reached[:, None, None, :]
        jumps = ((source[..., None] < between) & (between < target[..., None])).any(axis=-1)
        advances = (source < target) & (target - source < network.max_step)
        allowed = advances & ~jumps & (similarity[step:, :, None] >= network.min_similarity)
        reached = np.concatenate([reached, np.where(allowed.any(axis=2), columns[step:], -1)], axis=1)
        row, end, start = np.nonzero(allowed)
        ends.extend(np.stack([row * k + start, (row + step) * k + end], axis=1).tolist())
    gains = similarity.ravel()
    # In VCSL the last node is also the sink, where all edges gain nothing: no path ends there.
    last = columns.size - 1
    for first, second in sorted(ends):
        if second != last:
            edges[second][first] = gains[second]
    return edges


def _topological_order(edges: Edges) -> list[int]:
    """Nodes so that edges lead forwards; of all such orders, the one of a first-in first-out queue (Kahn)."""
    targets: list[list[int]] = [[] for _ in edges]
    for node, sources in enumerate(edges):
        for source in sources:
            targets[source].append(node)
    num_waiting_for = [len(sources) for sources in edges]
    order = [node for node, count in enumerate(num_waiting_for) if count == 0]
    for node in order:
        for target in targets[node]:
            num_waiting_for[target] -= 1
            if num_waiting_for[target] == 0:
                order.append(target)
    return order


def _longest_path(edges: Edges, order: Sequence[int]) -> list[int]:
    """Nodes of the path that gains most, empty if none gains anything. Of equals the first in order is taken.

    Sums are float32, as in the reference: another precision would break ties differently.
    """
    lengths = [np.float32(0)] * len(edges)
    previous = [-1] * len(edges)
    longest, node = np.float32(0), -1
    for target in order:
        best = np.float32(-1)
        for source, gain in edges[target].items():
            length = lengths[source] + gain
            if length > best:
                best, previous[target] = length, source
        lengths[target] = max(best, np.float32(0))
        if best > longest:
            longest, node = best, target
    path = []
    while node >= 0:
        path.append(node)
        node = previous[node]
    return path[::-1]


def _is_segment(box: Box, total_similarity: float, *, network: TemporalNetwork) -> bool:
    num_rows, num_columns = box[2] - box[0], box[3] - box[1]
    if min(num_rows, num_columns) <= network.min_length:
        return False
    return total_similarity / ((num_rows + num_columns) / 2) > network.min_similarity


def _iou(box: Box, other: Box) -> float:
    num_rows = min(box[2], other[2]) - max(box[0], other[0]) + 1
    num_columns = min(box[3], other[3]) - max(box[1], other[1]) + 1
    intersection = max(num_rows, 0) * max(num_columns, 0)
    return intersection / (_area(box) + _area(other) - intersection)


def _area(box: Box) -> int:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
