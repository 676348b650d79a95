"""Candidates, matches, ground truth and failures as tables. It knows columns, not what the numbers mean.

The columns are those of the VSC2022 challenge (facebookresearch/vsc2022, ``metrics.py``), in any order; times are in
seconds. The suffix of a file tells its form: ``.jsonl``, a JSON object a line; ``.parquet``; ``.csv``, UTF-8 with one
header line, in which form a file of any other name is read, and none is written.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from engine.errors import ConfigError, StoreError
from engine.files import written_aside
from engine.records import CandidatePair, Failure, Match
from engine.storage.location import Location, as_text
from engine.store.arrow import read_parquet, write_parquet

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")

_PAIR = ("query_id", "ref_id")
_SEGMENT = ("query_start", "query_end", "ref_start", "ref_end")
_CANDIDATE = (*_PAIR, "score")
_MATCH = (*_PAIR, *_SEGMENT, "score")
_MATCH_OF_BEFORE = (*_MATCH, "speed", "mirrored")
_MATCH_WITH_TRAITS = (*_MATCH_OF_BEFORE, "num_inliers")
_FAILURE = ("video_id", "path", "stage", "reason")
_IDS_NAMED = 3
_KINDS: dict[str, type] = {**dict.fromkeys((*_SEGMENT, "score", "speed"), float), "mirrored": bool, "num_inliers": int}
_FLAGS = {"": None, "true": True, "false": False}


@dataclass(frozen=True)
class GroundTruth:
    """The copies that exist: ``pairs`` of (query id, reference id), and their segments where the file holds them."""

    pairs: frozenset[tuple[str, str]]
    matches: tuple[Match, ...] | None


@dataclass(frozen=True)
class _Row:
    """One line of a table; ``where`` names the file and the line."""

    where: str
    values: dict[str, str]

    def text(self, column: str) -> str:
        value = self.values[column]
        if not value:
            raise StoreError(f"{self.where}: column {column} is empty")
        return value

    def number(self, column: str) -> float:
        value = self.values[column]
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise StoreError(f"{self.where}: column {column} holds {value!r}, expected a finite number")
        return number

    def optional_number(self, column: str) -> float | None:
        return self.number(column) if self.values[column] else None

    def optional_count(self, column: str) -> int | None:
        value = self.values.get(column, "")
        if value and not (value.isascii() and value.isdigit()):
            raise StoreError(f"{self.where}: column {column} holds {value!r}, expected a count or nothing")
        return int(value) if value else None

    def optional_flag(self, column: str) -> bool | None:
        value = self.values[column]
        if value not in _FLAGS:
            raise StoreError(f"{self.where}: column {column} holds {value!r}, expected true, false or nothing")
        return _FLAGS[value]


def read_candidates(path: Location) -> list[CandidatePair]:
    """Read candidate pairs in the order of the file.

    This and the other readers raise ``StoreError``, with file, line and column, for a file that is missing, has other
    columns, lines of another length, empty ids, or anything but finite numbers.
    """
    _, rows = _read(path, headers=[_CANDIDATE])
    return [CandidatePair(row.text("query_id"), row.text("ref_id"), row.number("score")) for row in rows]


def write_candidates(path: Location, candidates: Iterable[CandidatePair]) -> None:
    """Write candidate pairs, in the order given: ``query_id, ref_id, score``.

    This and the other writers raise ``ConfigError`` for a suffix that is not one of `TABLE_SUFFIXES`.
    """
    _write(path, _CANDIDATE, candidates)


def read_matches(path: Location) -> list[Match]:
    """Read localized matches in the order of the file, with what `write_matches` adds or as the challenge's files are.

    A file of an older version lacks ``num_inliers``.

    Raises ``StoreError``, see `read_candidates`.
    """
    columns, rows = _read(path, headers=[_MATCH, _MATCH_OF_BEFORE, _MATCH_WITH_TRAITS])
    matches = [_match(row, score=row.number("score")) for row in rows]
    if "speed" not in columns:
        return matches
    return [
        replace(
            match,
            speed=row.optional_number("speed"),
            mirrored=row.optional_flag("mirrored"),
            num_inliers=row.optional_count("num_inliers"),
        )
        for match, row in zip(matches, rows, strict=True)
    ]


def write_matches(path: Location, matches: Iterable[Match]) -> None:
    """Write matches, in the order given.

    The columns are ``query_id, ref_id, query_start, query_end, ref_start, ref_end, score`` as in the challenge, then
    ``speed``, ``mirrored`` (``true`` or ``false``) and ``num_inliers``, empty where they are not known.
    """
    _write(path, _MATCH_WITH_TRAITS, matches)


def read_ground_truth(path: Location) -> GroundTruth:
    """Read the ground truth of either track: pairs of ids, or segments with or without a score.

    A score says nothing here; every match gets 1. Raises ``StoreError``, see `read_candidates`.
    """
    columns, rows = _read(path, headers=[(*_PAIR, *_SEGMENT), _PAIR, _MATCH, _MATCH_OF_BEFORE, _MATCH_WITH_TRAITS])
    pairs = frozenset((row.text("query_id"), row.text("ref_id")) for row in rows)
    has_segments = columns.issuperset(_SEGMENT)
    return GroundTruth(pairs, tuple(_match(row, score=1.0) for row in rows) if has_segments else None)


def write_failures(path: Location, failures: Sequence[Failure]) -> None:
    """Write the videos that gave no result: ``video_id, path, stage, reason``."""
    _write(path, _FAILURE, failures)


def read_failures(path: Location) -> list[Failure]:
    """Read what `write_failures` wrote. Raises ``StoreError``, see `read_candidates`."""
    _, rows = _read(path, headers=[_FAILURE])
    return [
        Failure(row.text("video_id"), Path(row.text("path")), row.text("stage"), row.text("reason")) for row in rows
    ]


def check_ids(
    rows: Iterable[CandidatePair | Match], *, query_ids: Collection[str], ref_ids: Collection[str], source: Location
) -> None:
    """Raise ``StoreError``, naming a few, if rows read from ``source`` speak of videos that are not among the ids."""
    rows = list(rows)
    for role, found, known in (
        ("queries", {row.query_id for row in rows}, query_ids),
        ("references", {row.ref_id for row in rows}, ref_ids),
    ):
        unknown = sorted(found.difference(known))
        if unknown:
            named = ", ".join(unknown[:_IDS_NAMED]) + (", ..." if len(unknown) > _IDS_NAMED else "")
            raise StoreError(
                f"{source} names {len(unknown)} of {len(found)} {role} for which there are no descriptors: {named}; "
                "use the descriptors that the table was made from"
            )


def _match(row: _Row, *, score: float) -> Match:
    query_start_s, query_end_s, ref_start_s, ref_end_s = (row.number(column) for column in _SEGMENT)
    return Match(
        row.text("query_id"), row.text("ref_id"), query_start_s, query_end_s, ref_start_s, ref_end_s, score=score
    )


def check_table_suffix(path: Location) -> None:
    """Raise ``ConfigError`` unless a table can be written to ``path``; for those who compute much before they write."""
    if path.suffix not in TABLE_SUFFIXES:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise ConfigError(f"{path} has {found}; a table is written as {', '.join(TABLE_SUFFIXES)}")


def _read(path: Location, *, headers: Sequence[tuple[str, ...]]) -> tuple[frozenset[str], list[_Row]]:
    """The columns of a table, which in any order are those of one of ``headers``, and its lines but blank ones."""
    form = path.suffix.removeprefix(".") if path.suffix in TABLE_SUFFIXES else "csv"
    try:
        lines = _LINES[form](path)
        _, columns = next(lines, (0, list(headers[0])))
        if sorted(columns) not in [sorted(header) for header in headers]:
            expected = " or ".join(", ".join(header) for header in headers)
            found = repr(", ".join(columns))[1:-1] or "none"  # what is no table may hold any character
            raise StoreError(f"{path}: line 1: expected the columns {expected}; got {found}")
        rows = []
        for number, values in lines:
            where = f"{path}: line {number}"
            if len(values) != len(columns):
                raise StoreError(f"{where}: expected {len(columns)} values, got {len(values)}")
            rows.append(_Row(where, dict(zip(columns, values, strict=True))))
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(f"cannot read {path} as a {_FORMS[form]} table: {error}") from error
    return frozenset(columns), rows


def _csv_lines(path: Location) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its values as text, first of all the columns; so the other two."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        yield 1, next(lines, [])
        for values in filter(None, lines):
            yield lines.line_num, values


def _json_lines(path: Location) -> Iterator[tuple[int, list[str]]]:
    columns: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict) or (columns and row.keys() != set(columns)):
                raise ValueError(f"line {number}: expected an object with the keys of the first line")
            if not columns:
                columns = list(row)
                yield number, columns
            yield number, [_as_text(row[column]) for column in columns]


def _parquet_lines(path: Location) -> Iterator[tuple[int, list[str]]]:
    columns, rows = read_parquet(path)
    yield 0, columns
    for number, row in enumerate(rows, start=1):
        yield number, [_as_text(value) for value in row.values()]


_LINES = {"csv": _csv_lines, "jsonl": _json_lines, "parquet": _parquet_lines}
_FORMS = {"csv": "CSV", "jsonl": "JSON lines", "parquet": "Parquet"}


def _as_text(value: object) -> str:
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"expected text, numbers, true, false or null, got {type(value).__name__}")
    return "" if value is None else str(_text(value))


def _write(path: Location, columns: tuple[str, ...], rows: Iterable[CandidatePair | Match | Failure]) -> None:
    """Write records whose first fields are the columns, in this order."""
    kinds = {column: _KINDS.get(column, str) for column in columns}
    write_rows(path, kinds, (astuple(row)[: len(columns)] for row in rows))


def write_rows(path: Location, columns: Mapping[str, type], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; ``columns``: name to ``str``, ``float``, ``int`` or ``bool``. None is left empty.

    Raises ``ConfigError`` for a suffix that is not one of `TABLE_SUFFIXES`.
    """
    check_table_suffix(path)
    rows = ([as_text(value) for value in row] for row in rows)
    with written_aside(path) as aside:
        if path.suffix == ".parquet":
            write_parquet(aside, columns, rows)
        elif path.suffix == ".jsonl":
            with aside.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        else:
            _write_csv(aside, columns, rows)


def _write_csv(path: Path, columns: Iterable[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, lineterminator="\n")
        # The module leaves a bare carriage return unquoted, and takes it for the end of a line when it reads.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(columns)
        for row in rows:
            values = [_text(value) for value in row]
            writer = quoted if any("\r" in str(value) for value in values) else plain
            writer.writerow(values)


def _text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
