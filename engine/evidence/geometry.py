"""Whether two videos show the same pictures, and whether mirrored: local features that one affine map explains.

Two kinds say nothing. One map explains a few features of any two pictures, `CHANCE_INLIERS`. And what agrees with the
reference at another time as well does not depend on what is shown: a station's logo, a caption, a frame around the
picture, the studio behind the speaker, which unrelated videos share. So features beyond chance count where the times
match, and against it where they do not; those of a reference that stands still come to nothing.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np

from engine.config import Localization
from engine.evidence.frames import Viewer, matching_times
from engine.records import CandidatePair, FloatArray, Frames, Match
from engine.search.localization import MAX_INLIERS
from engine.storage.location import Location

logger = logging.getLogger(__name__)

NUM_PAIRS = 8
_INNER, _OUTER = (1, 3, 4, 6), (0, 2, 5, 7)
"""Of the times; the ends of a match may be off. Half of either is half a match away from the other half."""
SHORT_SIDE_PX = 128
CHANCE_INLIERS = 7
_MIN_MIRROR_INLIERS, _MIN_MIRROR_RATIO = 6, 2.0
_CLEAR_RATIO = 4.0
_MATCHES_PER_PAIR = 2

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
    """How many features an affine map takes from the query to the reference at the same time, less those at another.

    Sums over pairs of pictures, `NUM_PAIRS`, or fewer where the case is clear; both may be below zero. ``num_direct``:
    with the query as it is; ``num_mirrored``: with the query mirrored.
    """

    num_direct: int = 0
    num_mirrored: int = 0

    @property
    def num_inliers(self) -> int:
        """The larger of both, or 0."""
        return max(self.num_direct, self.num_mirrored, 0)

    @property
    def mirrored(self) -> bool | None:
        """Whether the copy is mirrored, left to right or (turned by half) top to bottom; None where it is not clear."""
        is_told = self._is_at_least(_MIN_MIRROR_INLIERS, _MIN_MIRROR_RATIO)
        return self.num_mirrored > self.num_direct if is_told else None

    @property
    def is_clear(self) -> bool:
        """Whether more pictures would not change the answer."""
        return self._is_at_least(MAX_INLIERS, _CLEAR_RATIO)

    def _is_at_least(self, num_inliers: int, ratio: float) -> bool:
        return self.num_inliers >= num_inliers and self.num_inliers > ratio * min(self.num_direct, self.num_mirrored)


@dataclass(frozen=True)
class Verification:
    """A match with what was seen, None where nobody looked; and why a video could not be read."""

    match: Match
    agreement: Agreement | None = None
    reason: str = ""


def verify(
    matches: Sequence[Match],
    candidates: Sequence[CandidatePair],
    query_paths: Mapping[str, Location],
    ref_paths: Mapping[str, Location],
    *,
    config: Localization,
    viewers: Sequence[Viewer],
) -> list[Verification]:
    """Look at pictures of the best matches of each query: whether they agree, and whether the copies are mirrored.

    ``candidates``: the pairs of ``matches``, best first. The first ``config.verified_per_query`` of a query are looked
    at that have a score and a match with a score of at least so much (`Localization`): their best match and, if that
    agrees, the next one. All matches are returned, in the order in which they came, with ``num_inliers`` where somebody
    looked; ``mirrored`` stays as it was where it is not clear. ``query_paths`` and ``ref_paths``: the files by video
    id; one that is missing or damaged, or that its viewer gave up, gives a reason and costs the others nothing.
    ``viewers`` look at once, each in a thread.
    """

    def look(places: Sequence[int]) -> dict[int, Verification]:
        viewer = free.get()
        try:
            return _look_at_pair(places, matches, query_paths, ref_paths, viewer=viewer)
        finally:
            free.put(viewer)

    free = SimpleQueue[Viewer]()
    for viewer in viewers:
        free.put(viewer)
    found = [Verification(match) for match in matches]
    with ThreadPoolExecutor(len(viewers), thread_name_prefix="look") as pool:
        try:
            for of_pair in pool.map(look, _worth_a_look(matches, candidates, config)):
                for place, seen in of_pair.items():
                    found[place] = seen
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for no more than what runs
            raise
    return found


def _look_at_pair(
    places: Sequence[int],
    matches: Sequence[Match],
    query_paths: Mapping[str, Location],
    ref_paths: Mapping[str, Location],
    *,
    viewer: Viewer,
) -> dict[int, Verification]:
    """By place, what was seen of the matches of one pair, the next only if the one before agrees."""
    found: dict[int, Verification] = {}
    for place in places:
        match = matches[place]
        seen = compare_pictures(match, query_paths.get(match.query_id), ref_paths.get(match.ref_id), viewer=viewer)
        if isinstance(seen, str):
            logger.warning("not verified: %s, %s: %s", match.query_id, match.ref_id, seen)
            found[place] = Verification(match, reason=seen)
            break
        mirrored = match.mirrored if seen.mirrored is None else seen.mirrored
        found[place] = Verification(replace(match, mirrored=mirrored, num_inliers=seen.num_inliers), seen)
        if not seen.num_inliers:
            break
    return found


def _worth_a_look(
    matches: Sequence[Match], candidates: Sequence[CandidatePair], config: Localization
) -> Iterator[list[int]]:
    """The places of the best matches of each pair that is to be looked at."""
    places = defaultdict[tuple[str, str], list[int]](list)
    for place in sorted(range(len(matches)), key=lambda place: -matches[place].score):
        match = matches[place]
        if match.score >= config.min_verified_score:
            places[match.query_id, match.ref_id].append(place)
    looked_at = Counter[str]()
    for pair in candidates:
        if config.min_verified_pair_score is not None and pair.score < config.min_verified_pair_score:
            continue
        of_pair = places.get((pair.query_id, pair.ref_id))
        if of_pair and looked_at[pair.query_id] < config.verified_per_query:
            looked_at[pair.query_id] += 1
            yield of_pair[:_MATCHES_PER_PAIR]


def compare_pictures(
    match: Match, query_path: Location | None, ref_path: Location | None, *, viewer: Viewer
) -> Agreement | str:
    """Compare the videos of a match at up to `NUM_PAIRS` times, or say in one line why that cannot be done.

    Where nothing agrees at the first half of the times, nobody looks at the others.
    """
    times = matching_times(match, NUM_PAIRS)
    agreement = Agreement()
    for part in (_INNER, _OUTER):
        query_s, ref_s = zip(*(times[place] for place in part), strict=True)
        queries = viewer.look_at(query_path, query_s, short_side_px=SHORT_SIDE_PX)
        references = viewer.look_at(ref_path, ref_s, short_side_px=SHORT_SIDE_PX)
        if isinstance(queries, str) or isinstance(references, str):
            return next(side for side in (queries, references) if isinstance(side, str))
        shown: dict[float, Features] = {}
        for place, time_s in enumerate(query_s):
            query = features(queries[time_s])
            for wanted_s in (ref_s[place], ref_s[place - len(part) // 2]):
                if wanted_s not in shown:
                    shown[wanted_s] = features(references[wanted_s])
            sides = shown[ref_s[place]], shown[ref_s[place - len(part) // 2]]
            agreement = Agreement(
                agreement.num_direct + _num_telling(query, *sides),
                agreement.num_mirrored + _num_telling(query.mirrored(), *sides),
            )
            if agreement.is_clear:
                return agreement
        if not agreement.num_inliers:
            break
    return agreement


def _num_telling(query: Features, reference: Features, other: Features) -> int:
    """Inliers with the reference, less those with the ``other`` picture of it; of either those beyond chance."""
    return max(count_inliers(query, reference), CHANCE_INLIERS) - max(count_inliers(query, other), CHANCE_INLIERS)


def features(picture: Frames) -> Features:
    """Features of an RGB picture, uint8 ``(H, W, 3)``; none of a plain one."""
    # One for each call: nothing says that threads may share one, and making one is quick.
    sift: Any = cv2.SIFT.create(nfeatures=_MAX_FEATURES, contrastThreshold=_CONTRAST)
    keypoints, descriptors = sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
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
