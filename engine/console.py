"""What people see of a long job: a bar on a terminal, plain lines elsewhere. Writes to stderr only."""

from __future__ import annotations

import logging
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_INTERVAL_S = 15.0
_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def say(text: str) -> None:
    """One line for people; see `printable`."""
    print(printable(text), file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints for people


def printable(text: str) -> str:
    """``text`` with escapes for what a terminal would obey: names of files may hold any character.

    These are control characters (line feeds too), half surrogates, line separators, and marks that turn the direction
    of writing.
    """
    return "".join(_escaped(character) if _is_obeyed(character) else character for character in text)


def _is_obeyed(character: str) -> bool:
    is_control = unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
    return is_control or unicodedata.bidirectional(character) in _TURNS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", errors="surrogatepass").decode("ascii")


class LogLines(logging.Handler):
    """Says log records. It looks ``sys.stderr`` up each time, because a progress bar puts itself in front of it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record, and in lines of its own the exception that it tells of."""
        say(record.getMessage())
        if record.exc_info:
            for line in "".join(traceback.format_exception(*record.exc_info)).splitlines():
                say(line)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` videos."""
    with _bar(title, total) if sys.stderr.isatty() else _lines(title, total) as advance:
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
