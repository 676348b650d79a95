"""Compares two sides whose descriptors are ready for it: pairs, their segments, and what those say of the pairs."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import EnsembleGate, Preset
from engine.records import CandidatePair, Descriptors, FloatArray, Match
from engine.search.candidates import find_candidates
from engine.search.exact import global_top_k
from engine.search.exact_copies import resolve_stopped
from engine.search.localization import localize_candidates, rescore, rescore_seen
from engine.search.rows import RowSearch
from engine.search.score_norm import ScoreNormalizer, unit_length


def prepare(
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    preset: Preset,
    norm_rows: FloatArray | None,
) -> tuple[list[Descriptors], list[Descriptors]]:
    """Both sides as `compare` takes them, of descriptors as the engines gave them.

    ``norm_rows``: float32 ``(M, D)``, the norm set; None for scores that are not normalized. Raises as
    `ScoreNormalizer.fit` does, and ``StoreError`` if D differs.
    """
    cosine = preset.gate.near_identical_cosine if isinstance(preset.gate, EnsembleGate) else None
    resolved = resolve_stopped(queries, references, near_identical_cosine=cosine)
    if norm_rows is None:
        return unit_length(resolved), unit_length(references)
    normalizer = ScoreNormalizer.fit(norm_rows, beta=preset.score_norm.beta, nk=preset.score_norm.nk)
    return normalizer.queries(resolved), normalizer.references(references)


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
    return ranked(candidates, matches, preset=preset)


def ranked(
    candidates: Sequence[CandidatePair], matches: Sequence[Match], *, preset: Preset
) -> tuple[list[CandidatePair], list[Match]]:
    """Candidates, with what their segments say of them, and matches, best first each; equal ones keep their order."""
    rescored = rescore(candidates, matches, segment_weight=preset.search.segment_weight)
    return rescored, sorted(matches, key=lambda match: match.score, reverse=True)


def ranked_by_pictures(
    candidates: Sequence[CandidatePair], matches: Sequence[Match], *, preset: Preset
) -> tuple[list[CandidatePair], list[Match]]:
    """What `ranked` gave, after `engine.evidence.geometry.verify` looked at the best of it; best first each."""
    return rescore_seen(
        candidates,
        matches,
        pair_weight=preset.search.inlier_weight,
        match_weight=preset.localization.inlier_weight,
    )
