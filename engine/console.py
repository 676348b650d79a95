"""What people see of a long job: a bar on a terminal, plain lines elsewhere. Writes to stderr only.

Programs that read it ask for JSON: then each line is an object.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.records import Failure

logger = logging.getLogger(__name__)

LogFormat = Literal["text", "json"]

_LINE_INTERVAL_S = 15.0
_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


_SURROGATE = re.compile("[\ud800-\udfff]")

_log_format: LogFormat = "text"


def start_logging(*, level: int, log_format: LogFormat = "text") -> None:
    """Say what this package logs from ``level`` up, and the warnings of others; `say` writes in this format too."""
    global _log_format
    _log_format = log_format
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[LogLines()])
    logging.getLogger("engine").setLevel(level)


def log_format() -> LogFormat:
    """The format that was chosen."""
    return _log_format


def say(text: str, *, level: int = logging.INFO) -> None:
    """One line for people; see `printable`. As JSON it has the ``time`` (UTC), the ``level`` and the ``message``."""
    if _log_format == "json":
        _print(_json_line(time.time(), level, {"message": text}))
    else:
        _print(printable(text))


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")  # at once: lines of several processes stay apart
    sys.stderr.flush()


def _json_line(time_s: float, level: int, values: dict[str, object]) -> str:
    values = {key: as_utf8(value) if isinstance(value, str) else value for key, value in values.items()}
    stamp = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": stamp, "level": logging.getLevelName(level).lower(), **values}, default=str)


def as_utf8(text: str) -> str:
    """``text`` that UTF-8 can hold: a byte of a name that is not UTF-8 is ``\\xe9``, as in the id of a video.

    So names are written everywhere. Other half surrogates, which no name holds, are as in JSON.
    """
    return _SURROGATE.sub(lambda found: _escaped(found[0]), text)


def printable(text: str) -> str:
    """``text`` with escapes for what a terminal would obey: names of files may hold any character.

    These are control characters (line feeds too), half surrogates, line separators, and marks that turn the direction
    of writing.
    """
    return "".join(_escaped(character) if _is_obeyed(character) else character for character in text)


def log_failure(failure: Failure) -> None:
    """Say that a video gave no result."""
    # A handler that writes UTF-8 could not write every path.
    logger.warning("failed: %s (%s): %s", printable(failure.video_id), failure.stage, printable(failure.reason))


def _is_obeyed(character: str) -> bool:
    is_control = unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
    return is_control or unicodedata.bidirectional(character) in _TURNS


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", errors="surrogatepass").decode("ascii")


class LogLines(logging.Handler):
    """Says log records. It looks ``sys.stderr`` up each time, because a progress bar puts itself in front of it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record, and in lines of its own the exception that it tells of.

        As JSON the line has the name of the logger, and what the record has as ``fields``.
        """
        told = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        if _log_format == "json":
            fields = {"message": record.getMessage(), "logger": record.name}
            more = {**getattr(record, "fields", {}), **({"exception": told} if told else {})}
            _print(_json_line(record.created, record.levelno, {**fields, **more}))
            return
        for line in (record.getMessage(), *told.splitlines()):
            say(line)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` videos."""
    with _bar(title, total) if sys.stderr.isatty() and _log_format == "text" else _lines(title, total) as advance:
        yield advance


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    from rich import progress as parts
    from rich.console import Console

    times = parts.TimeElapsedColumn(), parts.TimeRemainingColumn()
    columns = parts.TextColumn("{task.description}"), parts.BarColumn(), parts.MofNCompleteColumn(), *times
    with parts.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _lines(title: str, total: int) -> Iterator[Callable[[], None]]:
    start_s = last_s = time.monotonic()
    num_done = 0

    def advance() -> None:
        nonlocal last_s, num_done
        num_done += 1
        if time.monotonic() - last_s > _LINE_INTERVAL_S:
            last_s = time.monotonic()
            say(f"{title}: {num_done} of {total}, {last_s - start_s:.0f} s")

    yield advance
    if total:
        say(f"{title}: {num_done} of {total}, {time.monotonic() - start_s:.1f} s")
