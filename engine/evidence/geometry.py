"""Whether two videos show the same pictures, and whether mirrored: local features that one affine map explains.

Two kinds say nothing. One map explains a few features of any two pictures, `CHANCE_INLIERS`. And what agrees with the
reference at another time as well does not depend on what is shown: a station's logo, a caption, a frame around the
picture, the studio behind the speaker, which unrelated videos share. So features beyond chance count where the times
match, and against it where they do not, and by as much as such counts differ anyway; those of a reference that stands
still come to nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np

from engine.config import Localization
from engine.evidence.frames import Viewer, matching_ref_time
from engine.records import CandidatePair, FloatArray, Frames, Match
from engine.search.localization import MAX_INLIERS
from engine.storage.location import Location

logger = logging.getLogger(__name__)

NUM_PAIRS = 8
_LOOKS = (0, 2, 4, 8)
"""Of the times, from one to the next: after each look it may be clear that no other is needed."""
_MARGIN = 1 / 16
"""Of a match, on both sides: its ends may be off."""
_MIN_LENGTH_S = 0.1
SHORT_SIDE_PX = 128
CHANCE_INLIERS = 7
_PROMISING_INLIERS = 6
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

    def look(pairs: Sequence[Sequence[int]]) -> dict[int, Verification]:
        viewer = free.get()
        try:
            pictures = _Pictures(viewer)
            seen = [_look_at_pair(places, matches, query_paths, ref_paths, pictures=pictures) for places in pairs]
        finally:
            free.put(viewer)
        return {place: verification for of_pair in seen for place, verification in of_pair.items()}

    free = SimpleQueue[Viewer]()
    for viewer in viewers:
        free.put(viewer)
    found = [Verification(match) for match in matches]
    with ThreadPoolExecutor(len(viewers), thread_name_prefix="look") as pool:
        try:
            for of_query in pool.map(look, _worth_a_look(matches, candidates, config)):
                for place, seen in of_query.items():
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
    pictures: _Pictures,
) -> dict[int, Verification]:
    """By place, what was seen of the matches of one pair, the next only if the one before agrees."""
    found: dict[int, Verification] = {}
    for place in places:
        match = matches[place]
        seen = _compare_pictures(match, query_paths.get(match.query_id), ref_paths.get(match.ref_id), pictures)
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
) -> list[list[list[int]]]:
    """By query, the places of the best matches of each pair that is to be looked at."""
    places = defaultdict[tuple[str, str], list[int]](list)
    for place in sorted(range(len(matches)), key=lambda place: -matches[place].score):
        match = matches[place]
        if match.score >= config.min_verified_score:
            places[match.query_id, match.ref_id].append(place)
    by_query = defaultdict[str, list[list[int]]](list)
    for pair in candidates:
        if config.min_verified_pair_score is not None and pair.score < config.min_verified_pair_score:
            continue
        of_pair = places.get((pair.query_id, pair.ref_id))
        of_query = by_query[pair.query_id]
        if of_pair and len(of_query) < config.verified_per_query:
            of_query.append(of_pair[:_MATCHES_PER_PAIR])
    return list(by_query.values())


class _Pictures:
    """What a viewer shows of some videos, looked at once, and the features of it."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._shown: dict[tuple[Location | None, float], Frames] = {}
        self._features: dict[tuple[Location | None, float], Features] = {}

    def look_at(self, path: Location | None, times_s: Sequence[float]) -> str | None:
        """Look at a video, or say in one line why that cannot be done."""
        new_s = [time_s for time_s in times_s if (path, time_s) not in self._shown]
        seen = self._viewer.look_at(path, new_s, short_side_px=SHORT_SIDE_PX) if new_s else {}
        if isinstance(seen, str):
            return seen
        self._shown.update({(path, time_s): picture for time_s, picture in seen.items()})
        return None

    def features(self, path: Location | None, time_s: float) -> Features:
        """The features at a time that was looked at."""
        key = path, time_s
        if key not in self._features:
            self._features[key] = features(self._shown[key])
        return self._features[key]


def _compare_pictures(
    match: Match, query_path: Location | None, ref_path: Location | None, pictures: _Pictures
) -> Agreement | str:
    """Compare the videos of a match at up to `NUM_PAIRS` times, or say in one line why that cannot be done.

    Nobody goes on looking after times of which none promises anything.
    """
    times = [(query_s, matching_ref_time(match, query_s)) for query_s in times_to_look_at(match)]
    agreement, most_inliers = Agreement(), 0
    num_same, num_other = np.zeros(2), np.zeros(2)
    for part in filter(None, (times[start:end] for start, end in pairwise(_LOOKS))):
        query_s, ref_s = zip(*part, strict=True)
        reason = pictures.look_at(query_path, query_s) or pictures.look_at(ref_path, ref_s)
        if reason:
            return reason
        for place in range(len(part)):
            query = pictures.features(query_path, query_s[place])
            reference = pictures.features(ref_path, ref_s[place])
            other = pictures.features(ref_path, ref_s[place - len(part) // 2])
            sides = query, query.mirrored()
            same_time = [count_inliers(side, reference) for side in sides]
            num_same += [_beyond_chance(count) for count in same_time]
            num_other += [_beyond_chance(count_inliers(side, other)) for side in sides]
            # Two counts of the same differ by as much as the root of both.
            telling = np.round(num_same - num_other - np.sqrt(2 * num_other)).astype(int)
            agreement = Agreement(*telling.tolist())
            if agreement.is_clear:
                return agreement
            most_inliers = max(most_inliers, *same_time)
        if most_inliers < _PROMISING_INLIERS or max(agreement.num_direct, agreement.num_mirrored) < 0:
            break
    return agreement


def _beyond_chance(num_inliers: int) -> int:
    return max(num_inliers - CHANCE_INLIERS, 0)


def times_to_look_at(match: Match) -> list[float]:
    """`NUM_PAIRS` times of the query, in seconds, the most telling first: far apart, and shared with other matches.

    Those are the multiples of a power of two, of the next smaller one, and so on. A moment has one.
    """
    margin_s = _MARGIN * (match.query_end_s - match.query_start_s)
    start_s, end_s = match.query_start_s + margin_s, match.query_end_s - margin_s
    if end_s - start_s < _MIN_LENGTH_S:
        return [start_s]
    step_s = 2.0 ** np.floor(np.log2(end_s - start_s))
    times_s: list[float] = []
    while len(times_s) < NUM_PAIRS:
        multiples = np.arange(np.ceil(start_s / step_s), np.floor(end_s / step_s) + 1) * step_s
        times_s += [time_s for time_s in multiples.tolist() if time_s not in times_s]
        step_s /= 2
    return times_s[:NUM_PAIRS]


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
