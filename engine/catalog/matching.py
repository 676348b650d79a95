"""Compares the descriptors of an upload with the newest state of a catalogue, as `engine.search` compares two sides.

Rows that are in no index are held in memory, normalized, and every upload is compared with all of them: without an
index the answer is that of a run with this one query. Of the rows in the index, the nearest of each row of the upload
tell which videos are compared. Those are neighbours among raw rows because score normalization drops a dimension and
depends on the query; it follows, on whole videos, and nothing is cut before it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.catalog.records import CatalogAnswer, Snapshot
from engine.catalog.tables import Entry, Tables, Version
from engine.config import EnsembleGate, Preset
from engine.errors import StoreError
from engine.evaluate.calibration import VerdictScores
from engine.records import Descriptors
from engine.search.comparison import compare
from engine.search.exact_copies import resolve_stopped
from engine.search.score_norm import ScoreNormalizer, unit_length

_NEIGHBOURS = 30
"""Of each row of an upload; the 10 best normalized rows lay among the 30 best raw ones wherever that was measured."""


@dataclass(frozen=True, eq=False)
class _State:
    """The videos of one version: ``entries`` by id; ``recent`` by revision, normalized: those that no index holds."""

    version: Version
    entries: Mapping[str, Entry]
    recent: Mapping[int, Descriptors]


class _Superseded(Exception):  # noqa: N818 - no error: the rows of a version are gone because there is a newer one
    pass


class Matcher:
    """Answers what uploads have in common with a catalogue. Several threads may ask at once.

    ``normalizer`` is None for a catalogue without score normalization.
    """

    def __init__(self, tables: Tables, *, preset: Preset, normalizer: ScoreNormalizer | None) -> None:
        self._tables = tables
        self._preset = preset
        self._normalizer = normalizer
        self._state: _State | None = None
        self._lock = threading.Lock()

    def answer(self, query: Descriptors, *, sha256: str | None = None) -> CatalogAnswer:
        """Compare one upload, described as a query, with the newest state.

        ``sha256``: of the bytes of its file; videos with the same are its duplicates. Raises ``StoreError`` for damaged
        tables.
        """
        while True:
            state = self._newest()
            try:
                answer = self._answer(query, state)
            except _Superseded:
                continue
            same = {
                entry.video.video_id: entry.video.path
                for entry in state.entries.values()
                if entry.video.sha256 == sha256
            }
            return replace(answer, duplicates=tuple(same), paths={**answer.paths, **same})

    def snapshot(self) -> Snapshot:
        """The newest state. Raises ``StoreError`` for damaged tables."""
        entries = self._newest().entries
        videos = {video_id: entry.video for video_id, entry in entries.items()}
        return Snapshot(videos, self._thresholds(len(videos)))

    def _answer(self, query: Descriptors, state: _State) -> CatalogAnswer:
        compared = self._to_compare(query, state)
        if not compared:
            return CatalogAnswer(query.video_id, len(query), (), (), {}, query.warnings, self._thresholds(0))
        resolved = query
        if query.gate == "stopped_rows_kept":
            gate = self._preset.gate
            cosine = gate.near_identical_cosine if isinstance(gate, EnsembleGate) else None
            raw = self._read(compared, version=state.version)
            (resolved,) = resolve_stopped([query], raw, near_identical_cosine=cosine)
        old = [entry for entry in compared if entry.revision not in state.recent]
        read = self._normalized(self._read(old, version=state.version))
        found = {**state.recent, **{entry.revision: video for entry, video in zip(old, read, strict=True)}}
        references = [found[entry.revision] for entry in compared]
        queries = unit_length([resolved]) if self._normalizer is None else self._normalizer.queries([resolved])
        candidates, matches = compare(
            queries, references, preset=self._preset, use_score_norm=self._normalizer is not None
        )
        paths = {pair.ref_id: state.entries[pair.ref_id].video.path for pair in candidates}
        return CatalogAnswer(
            query.video_id,
            len(query),
            tuple(candidates),
            tuple(matches),
            paths,
            query.warnings,
            self._thresholds(len(state.entries)),
        )

    def _thresholds(self, num_references: int) -> VerdictScores | None:
        return VerdictScores.of_preset(
            self._preset, num_references=num_references, use_score_norm=self._normalizer is not None
        )

    def _newest(self) -> _State:
        with self._lock:
            version = self._tables.refresh()
            if self._state is None or self._state.version != version:
                self._state = self._loaded(version, self._tables.entries())
            return self._state

    def _loaded(self, version: Version, entries: Mapping[str, Entry]) -> _State:
        """The state of a version; what is in memory is not read again."""
        before = self._state.recent if self._state is not None else {}
        indexed_through = -1 if version.indexed_through is None else version.indexed_through
        recent = [entry for entry in entries.values() if entry.revision > indexed_through]
        missing = [entry for entry in recent if entry.revision not in before]
        read = self._normalized(self._read(missing, version=version))
        new = {entry.revision: video for entry, video in zip(missing, read, strict=True)}
        held = {entry.revision: before.get(entry.revision) or new[entry.revision] for entry in recent}
        return _State(version, entries, held)

    def _to_compare(self, query: Descriptors, state: _State) -> list[Entry]:
        """The videos that a query is compared with, by id: all recent ones, and the nearest of the others."""
        if len(state.recent) == len(state.entries):
            return list(state.entries.values())
        known = {entry.revision for entry in state.entries.values()}
        found = self._tables.nearest(query.descriptors, k=_NEIGHBOURS, known=known)
        return [entry for entry in state.entries.values() if entry.revision in found or entry.revision in state.recent]

    def _read(self, entries: Sequence[Entry], *, version: Version) -> list[Descriptors]:
        """The rows of some videos of a version, as the engines gave them."""
        if not entries:
            return []
        found = self._tables.read_rows([entry.revision for entry in entries])
        videos = []
        for entry in entries:
            rows, video_id = found.get(entry.revision), entry.video.video_id
            if rows is None or len(rows.descriptors) != entry.video.num_rows:
                if self._tables.refresh() != version:
                    raise _Superseded
                raise StoreError(f"rows of {video_id!r} are missing in the catalogue; remove it and add it again")
            videos.append(Descriptors(video_id, rows.timestamps, rows.descriptors))
        return videos

    def _normalized(self, references: Sequence[Descriptors]) -> list[Descriptors]:
        return unit_length(references) if self._normalizer is None else self._normalizer.references(references)
