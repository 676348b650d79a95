"""What people see goes to stderr, and log lines keep clear of a progress bar."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

import pytest

from engine.console import LogLines, progress, say


def test_lines_go_to_stderr_and_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    with progress("extract", 3) as advance:
        for _ in range(3):
            advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == "hello"
    assert "extract: 3 of 3" in captured.err


def test_nothing_to_do_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("extract", 0):
        pass
    assert capsys.readouterr().err == ""


def test_log_lines_go_where_stderr_points_now(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogLines()
    handler.emit(logging.LogRecord("engine", logging.WARNING, "", 0, "failed: %s", ("Q1",), None))
    assert capsys.readouterr().err == "failed: Q1\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress("extract", 2) as advance:
        advance()
        advance()
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 名前 👩\u200d🚀 e\u0301\u200c", "naïve 名前 👩\u200d🚀 e\u0301\u200c"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\x1b[2J\x07\x7f\x9b31m", "\\x1b[2J\\x07\\x7f\\x9b31m"),
        ("caf\udce9", "caf\\xe9"),
        ("4pm.\u202egpj\u2066\u2028", "4pm.\\u202egpj\\u2066\\u2028"),
    ],
)
def test_a_terminal_obeys_no_name_of_a_file(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    LogLines().emit(logging.LogRecord("engine", logging.WARNING, "", 0, "failed: %s", (text,), None))
    assert capsys.readouterr().err == f"{shown}\nfailed: {shown}\n"


def test_an_exception_is_told_in_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        int("\x1b[2J")
    except ValueError:
        record = logging.LogRecord("engine", logging.DEBUG, "", 0, "unexpected", (), sys.exc_info())
    LogLines().emit(record)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["unexpected", "Traceback (most recent call last):"]
    assert lines[-1] == "ValueError: invalid literal for int() with base 10: '\\x1b[2J'"


def test_programs_get_objects(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.console._log_format", "json")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    say("two\nlines \u202e\udcff")
    record = logging.LogRecord("engine.x", logging.WARNING, "", 0, "failed: %s", ("Q1",), None)
    record.fields = {"status": 500}
    LogLines().emit(record)
    try:
        int("a reason")
    except ValueError:
        LogLines().emit(logging.LogRecord("engine.x", logging.ERROR, "", 0, "failed", (), sys.exc_info()))
    with progress("extract", 1) as advance:
        advance()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"]) for line in lines[:3]] == [
        ("info", "two\nlines \u202e\\xff"), ("warning", "failed: Q1"), ("error", "failed")
    ]  # fmt: skip
    assert lines[1].items() >= {"logger": "engine.x", "status": 500}.items()
    assert "ValueError: invalid literal" in lines[2]["exception"]
    assert lines[3]["message"].startswith("extract: 1 of 1")
    assert all(datetime.fromisoformat(line["time"]).tzinfo is not None for line in lines)
