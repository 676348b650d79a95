"""Finds the videos of a ground truth among those that were compared, where a table writes their ids in another way.

Accents may be one character or two (NFC, NFD: file systems and spreadsheets differ), and a table may hold numbers,
which the reader of facebookresearch/vsc2022 (``vsc/metrics.py``) takes for ids: 7 is ``Q000007`` or ``R000007``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from dataclasses import replace

from engine.records import Match
from engine.store.tables import GroundTruth


def in_ids_of(truth: GroundTruth, *, query_ids: Collection[str], ref_ids: Collection[str]) -> GroundTruth:
    """``truth`` with the given ids in place of its own where they differ in form only; all other ids as they are.

    Numbers are read as the challenge does where all ids of a side are numbers, in ``truth`` or among the given ids.
    """
    queries = _renaming({query_id for query_id, _ in truth.pairs}, query_ids, prefix="Q")
    references = _renaming({ref_id for _, ref_id in truth.pairs}, ref_ids, prefix="R")

    def renamed(match: Match) -> Match:
        return replace(match, query_id=queries[match.query_id], ref_id=references[match.ref_id])

    pairs = frozenset((queries[query_id], references[ref_id]) for query_id, ref_id in truth.pairs)
    return GroundTruth(pairs, None if truth.matches is None else tuple(map(renamed, truth.matches)))


def unmatched_lines(
    truth: GroundTruth, *, query_ids: Collection[str], ref_ids: Collection[str], among: str
) -> list[str]:
    """A line for each side of which ``truth`` names videos that are not among the given ids; ``among`` says whose."""
    lines = []
    for role, wanted, known in (
        ("queries", {query_id for query_id, _ in truth.pairs}, query_ids),
        ("references", {ref_id for _, ref_id in truth.pairs}, ref_ids),
    ):
        missing = wanted.difference(known)
        if missing:
            advice = "" if len(missing) < len(wanted) else "; is this the ground truth of these videos?"
            lines.append(
                f"{len(missing)} of {len(wanted)} {role} of the ground truth are not among {among}, such as "
                f"{min(missing)!r}{advice}"
            )
    return lines


def _renaming(wanted: Collection[str], known: Collection[str], *, prefix: str) -> dict[str, str]:
    """What each id that is wanted is called among the known ones; itself where it is not there."""
    of_form = dict(zip(_forms(sorted(known), prefix=prefix), sorted(known), strict=True))
    exact = set(known)
    return {
        video_id: video_id if video_id in exact else of_form.get(form, video_id)
        for video_id, form in zip(wanted, _forms(wanted, prefix=prefix), strict=True)
    }


def _forms(ids: Collection[str], *, prefix: str) -> list[str]:
    if all(video_id.isascii() and video_id.isdigit() for video_id in ids):
        return [f"{prefix}{int(video_id):06d}" for video_id in ids]
    return [unicodedata.normalize("NFC", video_id) for video_id in ids]
