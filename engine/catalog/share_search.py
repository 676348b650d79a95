"""Searches one share of a catalogue, in its newest state, for what an upload has in common with it.

Rows that are in no index are held in memory, normalized, and every upload is compared with all of them; of a catalogue
with rows in Milvus there are none. Of the rows in the index, the nearest of each row of the upload tell which videos
are compared. Those are neighbours among raw rows because score normalization drops a dimension and depends on the
query; it follows, on whole videos, and nothing is cut before it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from engine.catalog.found import Found, ShareAnswer, nothing_found
from engine.catalog.records import CatalogVideo
from engine.catalog.tables import Entry, Tables, Version, described
from engine.config import Preset
from engine.errors import StoreError
from engine.records import Descriptors, FloatArray
from engine.search.candidates import pairs_of_videos
from engine.search.exact import global_top_k
from engine.search.exact_copies import nearest_cosines
from engine.search.score_norm import ScoreNormalizer, unit_length

_NEIGHBOURS = 30
"""Of each row of an upload; the 10 best normalized rows lay among the 30 best raw ones wherever that was measured."""


@dataclass(frozen=True, eq=False)
class _Held:
    """Normalized videos in the order of their ids, and all their rows in one array, of which they are views."""

    entries: tuple[Entry, ...]
    videos: tuple[Descriptors, ...]
    rows: FloatArray

    @classmethod
    def of(cls, entries: Sequence[Entry], videos: Sequence[Descriptors]) -> Self:
        if not entries:
            return cls((), (), np.empty((0, 0), dtype=np.float32))
        rows = np.concatenate([video.descriptors for video in videos])
        stops = np.cumsum([len(video) for video in videos]).tolist()
        views = tuple(
            replace(video, descriptors=rows[stop - len(video) : stop])
            for video, stop in zip(videos, stops, strict=True)
        )
        return cls(tuple(entries), views, rows)

    def search(self, query: Descriptors, *, k: int) -> Found:
        if not self.entries:
            return nothing_found()
        return Found.among([entry.video for entry in self.entries], global_top_k(query.descriptors, self.rows, k=k))


@dataclass(frozen=True, eq=False)
class _State:
    """The videos of one version by id, and those of them that no index holds, in memory."""

    version: Version
    entries: Mapping[str, Entry]
    recent: _Held


class _Superseded(Exception):  # noqa: N818 - no error: the rows of a version are gone because there is a newer one
    pass


class ShareSearch:
    """One share, searched in this process. Several threads may ask at once.

    ``normalizer`` is None for a catalogue without score normalization. All methods raise ``StoreError`` for damaged
    tables.
    """

    def __init__(self, tables: Tables, *, preset: Preset, normalizer: ScoreNormalizer | None) -> None:
        self._tables = tables
        self._preset = preset
        self._normalizer = normalizer
        self._state: _State | None = None
        self._lock = threading.Lock()

    def search(self, query: Descriptors, ready: Descriptors, *, sha256: str | None) -> ShareAnswer:
        """Compare an upload with the newest state.

        ``query``: as the engines gave it; ``ready``: as `engine.search.candidates.find_candidates` takes it.
        ``sha256``: of the bytes of its file.
        """
        while True:
            try:
                return self._search(query, ready, self._newest(), sha256=sha256)
            except _Superseded:
                continue

    def nearest_cosine(self, query: Descriptors) -> np.float32 | None:
        """The highest cosine of a row of an upload with one of the videos that it is compared with; None without any.

        Rows are compared as they came out of the engines.
        """
        while True:
            try:
                state = self._newest()
                compared = [*state.recent.entries, *self._nearest(query, state)]
                raw = self._read(compared, version=state.version)
                return nearest_cosines([query], raw)[0] if raw else None
            except _Superseded:
                continue

    def videos(self) -> list[CatalogVideo]:
        """The videos of the newest state, by id; those that no index holds are in memory from then on."""
        return [entry.video for entry in self._newest().entries.values()]

    def _search(self, query: Descriptors, ready: Descriptors, state: _State, *, sha256: str | None) -> ShareAnswer:
        near = self._nearest(query, state)
        others = _Held.of(near, self._normalized(self._read(near, version=state.version)))
        k = self._preset.search.retrieve_per_query
        found = Found.best_of([held.search(ready, k=k) for held in (state.recent, others)], k=k)
        candidates = pairs_of_videos(
            found.pairs, {ready.video_id: len(ready)}, found.num_rows(), config=self._preset.search
        )
        by_id = {video.video_id: video for video in (*state.recent.videos, *others.videos)}
        best = candidates[: self._preset.localization.candidates_per_query]
        references = tuple(by_id[pair.ref_id] for pair in best)
        same = tuple(entry.video for entry in state.entries.values() if entry.video.sha256 == sha256)
        return ShareAnswer(len(state.entries), found, references, same)

    def _newest(self) -> _State:
        with self._lock:
            version = self._tables.refresh()
            if self._state is None or self._state.version != version:
                self._state = self._loaded(version, self._tables.entries())
            return self._state

    def _loaded(self, version: Version, entries: Mapping[str, Entry]) -> _State:
        """The state of a version; what is in memory is not read again."""
        indexed_through = -1 if version.indexed_through is None else version.indexed_through
        recent = [entry for entry in entries.values() if entry.revision > indexed_through]
        before = None if self._state is None else self._state.recent
        if before is not None and [entry.revision for entry in before.entries] == [item.revision for item in recent]:
            return _State(version, entries, _Held(tuple(recent), before.videos, before.rows))
        held = (
            {}
            if before is None
            else {entry.revision: video for entry, video in zip(before.entries, before.videos, strict=True)}
        )
        missing = [entry for entry in recent if entry.revision not in held]
        read = self._normalized(self._read(missing, version=version))
        held.update({entry.revision: video for entry, video in zip(missing, read, strict=True)})
        return _State(version, entries, _Held.of(recent, [held[entry.revision] for entry in recent]))

    def _nearest(self, query: Descriptors, state: _State) -> list[Entry]:
        """The videos in the index that an upload is compared with, by id."""
        recent = {entry.revision for entry in state.recent.entries}
        if len(recent) == len(state.entries):
            return []
        known = {entry.revision for entry in state.entries.values()}
        found = self._tables.nearest(query.descriptors, k=_NEIGHBOURS, known=known)
        if self._tables.refresh() != state.version:
            raise _Superseded  # what was replaced meanwhile may be missing among the neighbours, old and new
        return [entry for entry in state.entries.values() if entry.revision in found - recent]

    def _read(self, entries: Sequence[Entry], *, version: Version) -> list[Descriptors]:
        """The rows of some videos of a version, as the engines gave them."""
        if not entries:
            return []
        found = self._tables.read_rows([entry.revision for entry in entries])
        try:
            return [described(entry, found.get(entry.revision)) for entry in entries]
        except StoreError:
            if self._tables.refresh() != version:
                raise _Superseded from None
            raise

    def _normalized(self, references: Sequence[Descriptors]) -> list[Descriptors]:
        return unit_length(references) if self._normalizer is None else self._normalizer.references(references)
