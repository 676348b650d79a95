"""What an answer says of an upload and of each pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.catalog.records import CatalogAnswer, CatalogVideo
from engine.evaluate.calibration import VerdictScores
from engine.records import CandidatePair

THRESHOLDS = VerdictScores(act=0.4, review=0.1)


def answer(
    *scores: float, thresholds: VerdictScores | None = THRESHOLDS, duplicates: tuple[str, ...] = ()
) -> CatalogAnswer:
    pairs = tuple(CandidatePair("q", f"r{place}", score) for place, score in enumerate(scores))
    videos = {pair.ref_id: CatalogVideo(pair.ref_id, Path(pair.ref_id), "", 1.0, 1, ()) for pair in pairs}
    return CatalogAnswer("q", 3, pairs, (), videos, (), thresholds, duplicates)


@pytest.mark.parametrize(
    ("scores", "verdict"), [((0.5, 0.2), "copy"), ((0.2, 0.0), "review"), ((0.0,), "no match"), ((), "no match")]
)
def test_the_best_pair_decides(scores: tuple[float, ...], verdict: str) -> None:
    assert answer(*scores).verdict == verdict


def test_each_pair_has_its_own_verdict() -> None:
    found = answer(0.5, 0.2, 0.0)
    assert [found.verdict_on(f"r{place}") for place in range(4)] == ["copy", "review", "no match", "no match"]


def test_the_same_bytes_are_a_copy_whatever_the_score() -> None:
    found = answer(0.2, 0.0, duplicates=("r1",))
    assert (found.verdict, found.verdict_on("r0"), found.verdict_on("r1")) == ("copy", "review", "copy")
    assert answer(thresholds=None, duplicates=("r9",)).verdict == "copy"


def test_without_thresholds_there_is_no_verdict() -> None:
    assert (answer(9.0, thresholds=None).verdict, answer(9.0, thresholds=None).verdict_on("r0")) == (None, None)
