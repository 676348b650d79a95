"""Writes matches as one page that a reviewer can open anywhere: pictures, times, scores. It needs no network.

Every text on the page is escaped, and the page forbids itself all scripts but its own: names of files are no markup.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from engine.console import printable
from engine.evidence.frames import Viewer, matching_times
from engine.evidence.score_matrix import draw_score_matrix
from engine.files import written_aside
from engine.records import Descriptors, Frames, Match
from engine.storage.location import Location
from engine.version import __version__

MAX_PICTURED = 100
MAX_LISTED = 5000

_NUM_PAIRS = 4
_THUMBNAIL_PX = 120
_JPEG_QUALITY = 70
_MAX_SPANS = 20
_ORDER = {"copy": 0, "review": 1}
_TEMPLATES = resources.files("engine") / "evidence" / "templates"

Rows = Mapping[str, Descriptors]


@dataclass(frozen=True)
class _Span:
    """A copied part of a video, in percent of its length; ``is_own``: of the match that is shown."""

    left: float
    width: float
    is_own: bool


@dataclass(frozen=True)
class _Side:
    """A video of a match. ``note``: why there are no pictures of it."""

    role: str
    video_id: str
    path: str
    uri: str
    start_s: float
    end_s: float
    length_s: float
    spans: list[_Span]
    pictures: list[tuple[float, str | None]]
    note: str


@dataclass(frozen=True)
class _Entry:
    """A match as the page shows it."""

    number: int
    match: Match
    verdict: str
    sides: tuple[_Side, _Side]
    is_pictured: bool
    matrix: str | None


def write_report(
    path: Location,
    matches: Sequence[Match],
    query_paths: Mapping[str, Location],
    ref_paths: Mapping[str, Location],
    *,
    verdicts: Mapping[tuple[str, str], str] | None = None,
    query_rows: Rows | None = None,
    ref_rows: Rows | None = None,
    title: str = "Copies found",
    max_pictured: int = MAX_PICTURED,
    names_queries: bool = True,
    viewer: Viewer | None = None,
) -> None:
    """Write an HTML page of the matches that holds all it shows: first verdict ``copy``, then ``review``, by score.

    ``query_paths`` and ``ref_paths``: the files by video id; one that is missing or damaged, or takes minutes to look
    at, gives a line in place of its pictures. ``verdicts``: a word for some pairs of query id and reference id, such as
    ``copy`` or ``review``. ``query_rows`` and ``ref_rows``: descriptors by video id, for a picture of the score matrix.
    The best ``max_pictured`` matches have pictures (about 80 KB each), the best `MAX_LISTED` are listed; the page says
    what it leaves out. ``names_queries``: whether the page tells the paths of queries; those of a service are passing.
    ``viewer`` looks at the files, by default one of its own.

    Raises ``OSError`` where the page cannot be written; what was there before then stays.
    """
    words = verdicts or {}
    ordered = sorted(
        matches,
        key=lambda match: (_ORDER.get(words.get((match.query_id, match.ref_id), ""), len(_ORDER)), -match.score),
    )
    pictured, listed = ordered[:max_pictured], ordered[:MAX_LISTED]
    with viewer or Viewer() as viewer:
        videos = {
            "query": _Videos("query", query_paths, listed, pictured=pictured, viewer=viewer, tells_paths=names_queries),
            "reference": _Videos("reference", ref_paths, listed, pictured=pictured, viewer=viewer, tells_paths=True),
        }
    entries = [
        _Entry(
            number=number,
            match=match,
            verdict=printable(words.get((match.query_id, match.ref_id), "")),
            sides=(videos["query"].side(match), videos["reference"].side(match)),
            is_pictured=number <= len(pictured),
            matrix=_matrix(match, query_rows, ref_rows) if number <= len(pictured) else None,
        )
        for number, match in enumerate(listed, start=1)
    ]
    environment = Environment(
        loader=PackageLoader("engine", "evidence/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock}
    script, style = (_TEMPLATES.joinpath(name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pieces = environment.get_template("report.html.j2").generate(
        title=title,
        version=__version__,
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        script_sha256=digest,
        entries=entries,
        verdicts=sorted({entry.verdict for entry in entries if entry.verdict}),
        num_matches=len(ordered),
        num_pictured=len(pictured),
        num_queries=len({match.query_id for match in ordered}),
        num_refs=len({match.ref_id for match in ordered}),
    )
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def clock(seconds: float) -> str:
    """A time as people read it: ``0:07.5``, ``12:00.0``, ``1:02:03.0``."""
    tenths = max(0, round(seconds * 10))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    before = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{before}:{rest // 10:02d}.{rest % 10}"


class _Videos:
    """What is known of the videos of one side; each file is opened once for its length and once for its pictures."""

    def __init__(
        self,
        role: str,
        paths: Mapping[str, Location],
        matches: Sequence[Match],
        *,
        pictured: Sequence[Match],
        viewer: Viewer,
        tells_paths: bool,
    ) -> None:
        self._role = role
        self._tells_paths = tells_paths
        self._paths = paths
        self._segments: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._pair_segments: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for match in matches:
            self._segments[self._video_id(match)].append(self._segment(match))
            self._pair_segments[match.query_id, match.ref_id].append(self._segment(match))
        self._lengths_s = {video_id: self._length_s(video_id, viewer) for video_id in self._segments}
        self._pictures: dict[str, dict[float, str] | str] = {}
        times_s: dict[str, set[float]] = defaultdict(set)
        for match in pictured:
            times_s[self._video_id(match)].update(self._times_s(match))
        for video_id, wanted in times_s.items():
            found = viewer.look_at(paths.get(video_id), sorted(wanted), short_side_px=_THUMBNAIL_PX)
            self._pictures[video_id] = (
                found if isinstance(found, str) else {time_s: _thumbnail(picture) for time_s, picture in found.items()}
            )

    def side(self, match: Match) -> _Side:
        video_id, (start_s, end_s) = self._video_id(match), self._segment(match)
        path, length_s = self._paths.get(video_id) if self._tells_paths else None, self._lengths_s[video_id]
        others = [span for span in self._pair_segments[match.query_id, match.ref_id] if span != (start_s, end_s)]
        spans = [*others[:_MAX_SPANS], (start_s, end_s)]
        found = self._pictures.get(video_id, {})
        return _Side(
            role=self._role,
            video_id=printable(video_id),
            path="" if path is None else printable(str(path)),
            uri="" if path is None else path.absolute().as_uri(),
            start_s=start_s,
            end_s=end_s,
            length_s=length_s,
            spans=[
                _Span(100 * start / length_s, 100 * (end - start) / length_s, is_own=number == len(spans) - 1)
                for number, (start, end) in enumerate(spans)
            ],
            pictures=[]
            if isinstance(found, str)
            else [(time_s, found[time_s]) for time_s in self._times_s(match) if time_s in found],
            note=printable(found) if isinstance(found, str) else "",
        )

    def _video_id(self, match: Match) -> str:
        return match.query_id if self._role == "query" else match.ref_id

    def _segment(self, match: Match) -> tuple[float, float]:
        if self._role == "query":
            return match.query_start_s, match.query_end_s
        return match.ref_start_s, match.ref_end_s

    def _times_s(self, match: Match) -> list[float]:
        return [times[0 if self._role == "query" else 1] for times in matching_times(match, _NUM_PAIRS)]

    def _length_s(self, video_id: str, viewer: Viewer) -> float:
        """As the header claims it, but no shorter than what matches."""
        path = self._paths.get(video_id)
        claimed_s = 0.0 if path is None else viewer.claimed_duration_s(path)
        return max(claimed_s, 0.1, *(end_s for _, end_s in self._segments[video_id]))


def _matrix(match: Match, query_rows: Rows | None, ref_rows: Rows | None) -> str | None:
    query, reference = (query_rows or {}).get(match.query_id), (ref_rows or {}).get(match.ref_id)
    if query is None or reference is None:
        return None
    return _data_uri("image/png", draw_score_matrix(query, reference, match))


def _thumbnail(picture: Frames) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((2 * _THUMBNAIL_PX, 2 * _THUMBNAIL_PX))  # of a very wide or tall picture
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_JPEG_QUALITY)
    return _data_uri("image/jpeg", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
