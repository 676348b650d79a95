"""Compares the descriptors of an upload with the newest state of a catalogue, as `engine.search` compares two sides.

Every share is asked at once, and gives its best pairs of rows, which are merged before anything is cut, and the rows of
its best candidates, in which segments are found: the answer is that of one search of all videos, wherever they lie, and
but for approximate indexes that of a run with this one query. A catalogue in one folder is one share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np

from engine.catalog.found import Found, ShareAnswer
from engine.catalog.records import CatalogAnswer, CatalogVideo, Snapshot
from engine.config import EnsembleGate, Preset
from engine.evaluate.calibration import VerdictScores
from engine.records import Descriptors
from engine.search.candidates import pairs_of_videos
from engine.search.comparison import ranked
from engine.search.exact_copies import resolve
from engine.search.localization import localize_candidates
from engine.search.score_norm import ScoreNormalizer, unit_length

_Result = TypeVar("_Result")


class Share(Protocol):
    """One share of a catalogue: `engine.catalog.share_search.ShareSearch`, or what asks one elsewhere."""

    def search(self, query: Descriptors, ready: Descriptors, *, sha256: str | None) -> ShareAnswer:
        """See `ShareSearch.search`."""

    def nearest_cosine(self, query: Descriptors) -> np.float32 | None:
        """See `ShareSearch.nearest_cosine`."""

    def videos(self) -> list[CatalogVideo]:
        """See `ShareSearch.videos`."""


class Matcher:
    """Answers what uploads have in common with a catalogue. Several threads may ask at once.

    ``normalizer`` is None for a catalogue without score normalization.
    """

    def __init__(self, shares: Sequence[Share], *, preset: Preset, normalizer: ScoreNormalizer | None) -> None:
        self._shares = shares
        self._preset = preset
        self._normalizer = normalizer

    def answer(self, query: Descriptors, *, sha256: str | None = None) -> CatalogAnswer:
        """Compare one upload, described as a query, with the newest state.

        ``sha256``: of the bytes of its file; videos with the same are its duplicates. Raises ``StoreError`` for damaged
        tables and if D differs.
        """
        resolved = self._resolved(query)
        (ready,) = unit_length([resolved]) if self._normalizer is None else self._normalizer.queries([resolved])
        answers = self._ask(lambda share: share.search(query, ready, sha256=sha256))
        found = Found.best_of([answer.found for answer in answers], k=self._preset.search.retrieve_per_query)
        candidates = pairs_of_videos(
            found.pairs, {ready.video_id: len(ready)}, found.num_rows(), config=self._preset.search
        )
        # Here, not where the shares are: matrix products round differently on machines with other numbers of threads.
        matches = localize_candidates(
            [ready],
            [reference for answer in answers for reference in answer.references],
            candidates,
            config=self._preset.localization,
            use_score_norm=self._normalizer is not None,
        )
        candidates, matches = ranked(candidates, matches, preset=self._preset)
        duplicates = sorted(
            (video for answer in answers for video in answer.duplicates), key=lambda video: video.video_id
        )
        known = {video.video_id: video for video in (*found.videos, *duplicates)}
        told = {*(pair.ref_id for pair in candidates), *(video.video_id for video in duplicates)}
        return CatalogAnswer(
            query.video_id,
            len(query),
            tuple(candidates),
            tuple(matches),
            {ref_id: video for ref_id, video in known.items() if ref_id in told},
            query.warnings,
            self._thresholds(sum(answer.num_videos for answer in answers)),
            tuple(video.video_id for video in duplicates),
        )

    def snapshot(self) -> Snapshot:
        """The newest state. Raises ``StoreError`` for damaged tables."""
        videos = sorted(chain(*self._ask(lambda share: share.videos())), key=lambda video: video.video_id)
        return Snapshot({video.video_id: video for video in videos}, self._thresholds(len(videos)))

    def _resolved(self, query: Descriptors) -> Descriptors:
        gate = self._preset.gate
        limit = gate.near_identical_cosine if isinstance(gate, EnsembleGate) else None
        cosines: list[np.float32 | None] = []
        if query.gate == "stopped_rows_kept" and limit is not None:
            cosines = self._ask(lambda share: share.nearest_cosine(query))
        nearest = max((cosine for cosine in cosines if cosine is not None), default=None)
        return resolve(query, nearest_cosine=nearest, near_identical_cosine=limit)

    def _thresholds(self, num_references: int) -> VerdictScores | None:
        return VerdictScores.of_preset(
            self._preset, num_references=num_references, use_score_norm=self._normalizer is not None
        )

    def _ask(self, question: Callable[[Share], _Result]) -> list[_Result]:
        """What each share answers, in order."""
        if len(self._shares) == 1:
            return [question(self._shares[0])]
        with ThreadPoolExecutor(len(self._shares)) as pool:
            return list(pool.map(question, self._shares))
