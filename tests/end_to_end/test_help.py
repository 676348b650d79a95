"""What a person reads and a shell completes: help of each command within 80 columns, with an example that it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from engine.cli import app, main
from engine.config import preset_names

Command = TyperCommand | TyperGroup


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    yield path, command
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def said(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "itself")
def test_help_fits_and_its_example_is_valid(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = said(*path, "--help", capsys=capsys).splitlines()
    assert max(map(len, lines)) <= 80
    found = re.search(r"Example: (.*?) *\n *\n", "\n".join(lines), re.DOTALL)
    assert found is not None
    for example in found[1].split("&&"):
        program, *words = shlex.split(example)
        assert program == "vsc-engine"
        name = max((known for known in COMMANDS if tuple(words[: len(known)]) == known), key=len)
        COMMANDS[name].make_context("example", words[len(name) :])  # refuses what it does not know or lacks
        if path and not isinstance(COMMANDS[path], TyperGroup):
            assert name == path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vsc-engine cat", {"catalog"}),
        ("vsc-engine catalog re", {"remove"}),
        ("vsc-engine run --sampl", {"--sampling"}),
        ("vsc-engine run --sampling ", {"all", "keyframes"}),
        ("vsc-engine run --preset vsc", {name for name in preset_names() if name.startswith("vsc")}),
    ],
)
def test_a_shell_completes(
    words: str, expected: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_VSC_ENGINE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert set(said(capsys=capsys).split()) == expected


def test_the_script_for_a_shell_calls_the_program_by_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_VSC_ENGINE_COMPLETE", "source_bash")  # `--show-completion` finds out which shell it runs in
    assert "complete -o default -F _vsc_engine_completion vsc-engine" in said(capsys=capsys)
