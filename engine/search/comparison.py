"""Compares two sides whose descriptors are ready for it: pairs, their segments, and what those say of the pairs."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import Preset
from engine.records import CandidatePair, Descriptors, Match
from engine.search.candidates import find_candidates
from engine.search.exact import global_top_k
from engine.search.localization import localize_candidates, rescore
from engine.search.rows import RowSearch


def compare(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    preset: Preset,
    use_score_norm: bool,
    search: RowSearch = global_top_k,
) -> tuple[list[CandidatePair], list[Match]]:
    """Candidates and matches, best first each, by the numbers of ``preset``.

    The descriptors are score-normalized, or of unit length where ``use_score_norm`` is false. Raises as
    `engine.search.candidates.find_candidates` does.
    """
    candidates = find_candidates(queries, references, config=preset.search, search=search)
    matches = localize_candidates(
        queries, references, candidates, config=preset.localization, use_score_norm=use_score_norm
    )
    candidates = rescore(candidates, matches, segment_weight=preset.search.segment_weight)
    return candidates, sorted(matches, key=lambda match: match.score, reverse=True)
