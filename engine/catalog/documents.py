"""An answer of a catalogue as what programs and people get: a JSON document, and a page of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.catalog.records import CatalogAnswer, CatalogVideo
from engine.evaluate.calibration import Verdict, VerdictScores
from engine.evidence.frames import Viewer
from engine.evidence.report import write_report
from engine.records import CandidatePair, Match
from engine.storage.location import Location


@dataclass(frozen=True)
class Duplicate:
    """A video of the catalogue whose file has the same bytes as the upload."""

    ref_id: str
    path: str


@dataclass(frozen=True)
class FoundVideo:
    """A video of the catalogue that the upload may share footage with."""

    ref_id: str
    score: float
    path: str
    verdict: Verdict | None


@dataclass(frozen=True)
class FoundSegment:
    """Seconds of the upload that show seconds of a video of the catalogue; see `engine.records.Match`."""

    ref_id: str
    query_start_s: float
    query_end_s: float
    ref_start_s: float
    ref_end_s: float
    score: float
    speed: float | None
    mirrored: bool | None
    num_inliers: int | None
    path: str
    verdict: Verdict | None


@dataclass(frozen=True)
class AnswerDocument:
    """What an upload has in common with a catalogue; see `engine.catalog.records.CatalogAnswer`. ``path``: of the
    upload. Candidates and matches are sorted, the best first.
    """

    query_id: str
    path: str
    verdict: Verdict | None
    thresholds: VerdictScores | None
    duplicates: list[Duplicate]
    num_rows: int
    warnings: list[str]
    candidates: list[FoundVideo]
    matches: list[FoundSegment]

    @classmethod
    def of(cls, answer: CatalogAnswer, *, path: str, every: bool) -> AnswerDocument:
        """``every``: with the pairs and segments that no verdict speaks of."""

        def facts(found: CandidatePair | Match) -> dict[str, object]:
            values = asdict(found)
            del values["query_id"]
            return {**values, "path": str(answer.videos[found.ref_id].path), "verdict": answer.verdict_on(found.ref_id)}

        pairs = [pair for pair in answer.candidates if every or answer.verdict_on(pair.ref_id) != "no match"]
        return cls(
            query_id=answer.query_id,
            path=path,
            verdict=answer.verdict,
            thresholds=answer.thresholds,
            duplicates=[Duplicate(ref_id, str(answer.videos[ref_id].path)) for ref_id in answer.duplicates],
            num_rows=answer.num_rows,
            warnings=list(answer.warnings),
            candidates=[FoundVideo(**facts(pair)) for pair in pairs],  # type: ignore[arg-type]
            matches=[FoundSegment(**facts(match)) for match in _shown(answer, every=every)],  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class VideoDocument:
    """A video of a catalogue; see `engine.catalog.records.CatalogVideo`."""

    video_id: str
    path: str
    sha256: str
    duration_s: float
    num_rows: int
    warnings: list[str]

    @classmethod
    def of(cls, video: CatalogVideo) -> VideoDocument:
        """As `vsc-engine catalog list` prints it."""
        return cls(
            video.video_id, str(video.path), video.sha256, video.duration_s, video.num_rows, list(video.warnings)
        )


def write_answers_report(
    output: Location,
    answers: Sequence[CatalogAnswer],
    query_paths: Mapping[str, Location],
    *,
    every: bool,
    names_queries: bool = True,
    viewer: Viewer | None = None,
) -> None:
    """Write the page of `engine.evidence.report.write_report` for answers, uploads by query id."""
    matches = [match for answer in answers for match in _shown(answer, every=every)]
    ref_paths = {ref_id: path for answer in answers for ref_id, path in answer.paths.items()}
    pairs = [(answer, match.ref_id) for answer in answers for match in answer.matches]
    verdicts = {(answer.query_id, ref_id): answer.verdict_on(ref_id) or "" for answer, ref_id in pairs}
    write_report(output, matches, query_paths, ref_paths, verdicts=verdicts, names_queries=names_queries, viewer=viewer)


def _shown(answer: CatalogAnswer, *, every: bool) -> Sequence[Match]:
    return answer.matches if every else answer.told
