"""Two video files: whether the first shows footage of the second, and which seconds of it."""

from __future__ import annotations

import filecmp
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.describe.engine import Engine
from engine.evaluate.calibration import Verdict, VerdictScores
from engine.records import Descriptors, FloatArray, Match
from engine.run.pictures import look_at_best
from engine.search.comparison import compare, prepare
from engine.storage.location import Location


@dataclass(frozen=True, eq=False)
class PairAnswer:
    """What two videos have in common: the first was described as a query, the second as a reference.

    ``score``: of the pair. ``matches``: its segments, best first, also where the verdict is ``no match``: that speaks
    of all of them. ``thresholds``: the scores that verdicts on one pair begin at; None where the preset is not
    calibrated or scores are not normalized. ``query``, ``reference``: as the engines described them.
    """

    query: Descriptors
    reference: Descriptors
    score: float
    matches: tuple[Match, ...]
    thresholds: VerdictScores | None
    has_same_bytes: bool

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the pair; None where there are no thresholds. The same bytes are a copy."""
        if self.has_same_bytes:
            return "copy"
        return None if self.thresholds is None else self.thresholds.verdict(self.score)


def compare_files(engine: Engine, query: Location, reference: Location, *, norm_rows: FloatArray | None) -> PairAnswer:
    """Describe two files at once, one in each role, and compare them.

    ``norm_rows``: as in `engine.search.comparison.prepare`. Raises ``MediaError`` for a file that gives no descriptors,
    ``ConfigError`` for a folder or a path that is none.
    """
    with ThreadPoolExecutor(2, thread_name_prefix="video") as pool:
        first = pool.submit(engine.describe_file, query, role="query")
        second = pool.submit(engine.describe_file, reference, role="reference")
        described = first.result(), second.result()
    (rows,), (ref_rows,) = prepare(described[:1], described[1:], preset=engine.preset, norm_rows=norm_rows)
    candidates, matches = compare([rows], [ref_rows], preset=engine.preset, use_score_norm=norm_rows is not None)
    paths = {rows.video_id: query}, {ref_rows.video_id: reference}
    (pair,), matches = look_at_best(candidates, matches, *paths, preset=engine.preset)
    return PairAnswer(
        *described,
        pair.score,
        tuple(matches),
        VerdictScores.of_preset(engine.preset, num_references=1, use_score_norm=norm_rows is not None),
        _have_same_bytes(query, reference),
    )


def _have_same_bytes(path: Location, other: Location) -> bool:
    """Of remote files only what is one object is known to have."""
    if isinstance(path, Path) and isinstance(other, Path):
        return filecmp.cmp(path, other, shallow=False)
    return path == other
