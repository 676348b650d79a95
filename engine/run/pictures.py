"""Compares pictures of what a search found best, and lets that decide where scores cannot."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from engine.config import Preset
from engine.evidence.frames import Viewer
from engine.evidence.geometry import verify
from engine.records import CandidatePair, Match
from engine.search.comparison import ranked_by_pictures
from engine.storage.location import Location

logger = logging.getLogger(__name__)

_MAX_VIEWERS = 16
"""Processes of 100 MB each, of which those are started that there is work for."""


def look_at_best(
    candidates: Sequence[CandidatePair],
    matches: Sequence[Match],
    query_paths: Mapping[str, Location],
    ref_paths: Mapping[str, Location],
    *,
    preset: Preset,
) -> tuple[list[CandidatePair], list[Match]]:
    """What `engine.search.comparison.ranked` gave, with what the pictures of the best of it show; best first each.

    ``query_paths`` and ``ref_paths``: the video files by id. See `engine.evidence.geometry.verify` for what is looked
    at, and `engine.search.localization.rescore_seen` for what follows.
    """
    if not preset.localization.verified_per_query:
        return list(candidates), list(matches)
    start_s = time.perf_counter()
    with ExitStack() as stack:
        viewers = [stack.enter_context(Viewer()) for _ in range(min(os.cpu_count() or 1, _MAX_VIEWERS))]
        found = verify(matches, candidates, query_paths, ref_paths, config=preset.localization, viewers=viewers)
    num_seen = sum(item.agreement is not None for item in found)
    seconds = time.perf_counter() - start_s
    logger.info("pictures of %d of %d matches were compared, %.1f s", num_seen, len(matches), seconds)
    return ranked_by_pictures(candidates, [item.match for item in found], preset=preset)
