"""Pictures of how alike two videos are at all their times, with the way that a match takes through them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from engine.evidence.frames import matching_times
from engine.projection import l2_normalize
from engine.records import Descriptors, FloatArray, Match

MAX_BINS = 160
SIDE_PX = 320

_BLOCK_ROWS = 512
_PATH_RGB = (255, 64, 32)
_LOW_RGB, _HIGH_RGB = (16, 20, 38), (250, 240, 180)


def similarity_over_time(query: Descriptors, reference: Descriptors) -> tuple[FloatArray, float]:
    """The largest cosine of rows shown at two times, float32 ``(Q, R)``, and the seconds of a bin of both axes.

    There are at most `MAX_BINS` bins of a second or more each way; a bin without a row has -1.
    """
    longest_s = max(float(side.timestamps.max()) for side in (query, reference))
    bin_s = max(1.0, longest_s / MAX_BINS)
    query_rows, query_bins = _rows_in_bins(query, bin_s)
    ref_rows, ref_bins = _rows_in_bins(reference, bin_s)
    cosines = np.full((query_bins.max() + 1, ref_bins.max() + 1), -1, np.float32)
    starts = np.flatnonzero(np.diff(ref_bins, prepend=-1))
    expanded = l2_normalize(reference.descriptors)[ref_rows].T
    for start in range(0, len(query_rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        products = l2_normalize(query.descriptors[query_rows[block]]) @ expanded
        best = np.full((len(products), cosines.shape[1]), -1, np.float32)
        best[:, ref_bins[starts]] = np.maximum.reduceat(products, starts, axis=1)
        np.maximum.at(cosines, query_bins[block], best)
    return cosines, bin_s


def draw_score_matrix(query: Descriptors, reference: Descriptors, match: Match) -> bytes:
    """A PNG, at most `SIDE_PX` on a side: the query's time runs down, the reference's to the right, bright is alike."""
    cosines, bin_s = similarity_over_time(query, reference)
    share = np.clip(cosines, 0, 1)[..., None]
    pixels = np.asarray(_LOW_RGB) * (1 - share) + np.asarray(_HIGH_RGB) * share
    scale = max(1, SIDE_PX // max(cosines.shape))
    image = Image.fromarray(pixels.round().astype(np.uint8)).resize(
        (cosines.shape[1] * scale, cosines.shape[0] * scale), Image.Resampling.NEAREST
    )
    way = [(ref_s / bin_s * scale, query_s / bin_s * scale) for query_s, ref_s in matching_times(match, MAX_BINS)]
    ImageDraw.Draw(image).line(way, fill=_PATH_RGB, width=2)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _rows_in_bins(video: Descriptors, bin_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the bins in which they are shown, in the order of the bins; a row is in all that it touches."""
    first = np.floor(video.timestamps[:, 0] / bin_s).astype(int)
    stop = np.maximum(first + 1, np.ceil(video.timestamps[:, 1] / bin_s).astype(int))
    rows = np.repeat(np.arange(len(video)), stop - first)
    bins = np.concatenate([np.arange(start, end) for start, end in zip(first, stop, strict=True)])
    order = np.argsort(bins, kind="stable")
    return rows[order], bins[order]
