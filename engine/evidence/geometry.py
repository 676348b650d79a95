"""Whether two videos show the same pictures, and whether mirrored: local features that one affine map explains."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np

from engine.config import Localization
from engine.evidence.frames import Viewer, matching_times
from engine.records import FloatArray, Frames, Match
from engine.storage.location import Location

logger = logging.getLogger(__name__)

NUM_PAIRS = 4
SHORT_SIDE_PX = 160
MIN_INLIERS = 20
MIN_RATIO = 2.0
_CLEAR_INLIERS, _CLEAR_RATIO = 60, 4.0

_MAX_FEATURES = 400
_CONTRAST = 0.02
_NEAREST_TO_SECOND = 0.8
_REPROJECTION_PX = 4.0
_MIN_AREA, _MAX_AREA = 0.05, 20.0
_MIN_MATCHES = 6


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of a picture: ``points``, float32 ``(K, 2)``, x and y in pixels; ``descriptors`` ``(K, 128)``."""

    points: FloatArray
    descriptors: FloatArray

    def mirrored(self) -> Features:
        """As if the picture were mirrored, but for the places, which an affine map mirrors too.

        A descriptor is 4 x 4 histograms of 8 directions (Lowe 2004) on axes that turn with the picture. In a mirrored
        picture the rows change places, and directions their sign.
        """
        histograms = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
        return Features(self.points, histograms[..., -np.arange(8) % 8].reshape(-1, 128))


@dataclass(frozen=True)
class Agreement:
    """How many features of the query an affine map takes to the reference, with the query as it is, and mirrored.

    Sums over pairs of pictures: after `NUM_PAIRS`, or earlier where the case is clear.
    """

    num_direct: int = 0
    num_mirrored: int = 0

    @property
    def num_inliers(self) -> int:
        """The larger of both."""
        return max(self.num_direct, self.num_mirrored)

    @property
    def mirrored(self) -> bool | None:
        """Whether the copy is mirrored, left to right or (turned by half) top to bottom; None where it is not clear."""
        return self.num_mirrored > self.num_direct if self._is_at_least(MIN_INLIERS, MIN_RATIO) else None

    @property
    def is_clear(self) -> bool:
        """Whether more pictures would not change the answer."""
        return self._is_at_least(_CLEAR_INLIERS, _CLEAR_RATIO)

    def _is_at_least(self, num_inliers: int, ratio: float) -> bool:
        return self.num_inliers >= num_inliers and self.num_inliers > ratio * min(self.num_direct, self.num_mirrored)


@dataclass(frozen=True)
class Verification:
    """A match with its mirror flag; what was seen, None where nobody looked; and why a video could not be read."""

    match: Match
    agreement: Agreement | None = None
    reason: str = ""


def verify(
    matches: Sequence[Match],
    query_paths: Mapping[str, Location],
    ref_paths: Mapping[str, Location],
    *,
    config: Localization,
    viewer: Viewer,
) -> list[Verification]:
    """Look at pictures of the best matches of each query, and say whether the copies are mirrored.

    The ``config.verified_per_query`` best of a query are looked at, if their score is ``min_verified_score`` or more;
    all are returned, in the order in which they came. ``mirrored`` stays as it was where it is not clear.
    ``query_paths`` and ``ref_paths``: the files by video id; one that is missing or damaged, or that ``viewer``
    gave up, gives a reason and costs the others nothing.
    """
    looked_at = Counter[str]()
    found: dict[int, Verification] = {}
    for place in sorted(range(len(matches)), key=lambda place: -matches[place].score):
        match = matches[place]
        if match.score < config.min_verified_score or looked_at[match.query_id] >= config.verified_per_query:
            continue
        looked_at[match.query_id] += 1
        seen = compare_pictures(match, query_paths.get(match.query_id), ref_paths.get(match.ref_id), viewer=viewer)
        if isinstance(seen, str):
            logger.warning("not verified: %s, %s: %s", match.query_id, match.ref_id, seen)
            found[place] = Verification(match, reason=seen)
        else:
            mirrored = match.mirrored if seen.mirrored is None else seen.mirrored
            found[place] = Verification(replace(match, mirrored=mirrored), seen)
    return [found.get(place, Verification(match)) for place, match in enumerate(matches)]


def compare_pictures(
    match: Match, query_path: Location | None, ref_path: Location | None, *, viewer: Viewer
) -> Agreement | str:
    """Compare the videos of a match at up to `NUM_PAIRS` times, or say in one line why that cannot be done."""
    times = matching_times(match, NUM_PAIRS)
    queries = viewer.look_at(query_path, [query_s for query_s, _ in times], short_side_px=SHORT_SIDE_PX)
    references = viewer.look_at(ref_path, [ref_s for _, ref_s in times], short_side_px=SHORT_SIDE_PX)
    if isinstance(queries, str) or isinstance(references, str):
        return next(side for side in (queries, references) if isinstance(side, str))
    agreement = Agreement()
    for query_s, ref_s in _middle_first(times):
        query, reference = features(queries[query_s]), features(references[ref_s])
        agreement = Agreement(
            agreement.num_direct + count_inliers(query, reference),
            agreement.num_mirrored + count_inliers(query.mirrored(), reference),
        )
        if agreement.is_clear:
            break
    return agreement


def features(picture: Frames) -> Features:
    """Features of an RGB picture, uint8 ``(H, W, 3)``; none of a plain one."""
    keypoints, descriptors = _sift().detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
    points = np.array([point.pt for point in keypoints], dtype=np.float32).reshape(-1, 2)
    return Features(points, np.zeros((0, 128), np.float32) if descriptors is None else descriptors)


def count_inliers(query: Features, reference: Features) -> int:
    """How many features of the query lie in the reference where one affine map puts them."""
    if len(query.points) < 2 or len(reference.points) < 2:
        return 0
    near = cv2.BFMatcher(cv2.NORM_L2).knnMatch(query.descriptors, reference.descriptors, k=2)
    clear = [first for first, second in near if first.distance < _NEAREST_TO_SECOND * second.distance]
    if len(clear) < _MIN_MATCHES:
        return 0
    affine, is_inlier = cv2.estimateAffine2D(
        query.points[[pair.queryIdx for pair in clear]],
        reference.points[[pair.trainIdx for pair in clear]],
        ransacReprojThreshold=_REPROJECTION_PX,
    )
    if affine is None or not _MIN_AREA < abs(np.linalg.det(affine[:, :2])) < _MAX_AREA:
        return 0
    return int(np.count_nonzero(is_inlier))


def _middle_first(times: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The ends of a match may be off by the time between two sampled frames."""
    middle = (len(times) - 1) / 2
    return [times[place] for place in sorted(range(len(times)), key=lambda place: abs(place - middle))]


@cache
def _sift() -> Any:
    return cv2.SIFT.create(nfeatures=_MAX_FEATURES, contrastThreshold=_CONTRAST)
