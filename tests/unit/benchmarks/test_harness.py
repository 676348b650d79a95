"""The command line, the facts of the machine and the report that every benchmark shares."""

from __future__ import annotations

import importlib
import json
from importlib import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.harness import PACKAGES, command_line, machine_facts, report
from engine.errors import ConfigError
from tests.conftest import REPOSITORY

COMMANDS = sorted(
    path.stem
    for path in (REPOSITORY / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("absent", ["faiss-cpu", "faiss-gpu"])
def test_versions_are_those_of_what_is_installed(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    versions = {name: f"1.{number}" for number, name in enumerate(PACKAGES) if name != absent}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    assert machine_facts()["packages"] == versions


def test_the_facts_are_of_this_machine() -> None:
    facts = machine_facts()
    assert facts["num_cores"] >= 1
    assert facts["packages"]["numpy"] == metadata.version("numpy")


def test_a_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report("bench", lines=["one", "two"], figures={"rate": 3.5}, output=tmp_path / "new")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["one", "two"]
    document = json.loads(printed[2])
    assert (document["benchmark"], document["rate"]) == ("bench", 3.5)
    assert document["machine"].keys() == machine_facts().keys()
    written = (tmp_path / "new" / "bench.md").read_text(encoding="utf-8")
    assert written == f"# bench\n\n```\none\ntwo\n```\n\n```json\n{printed[2]}\n```\n"


def test_a_preset_of_any_name_gets_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report('of_my "best"/run', lines=[], figures={}, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["of_my_best_run.md"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["benchmark"] == 'of_my "best"/run'


def test_an_error_of_the_engine_is_one_line() -> None:
    def main(name: str) -> None:
        """Fail."""
        raise ConfigError(f"no {name}")

    result = CliRunner().invoke(command_line(main), ["engines"])
    assert result.exit_code == 1
    assert result.stderr == "test_harness: no engines\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_benchmark_has_an_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = importlib.import_module(f"benchmarks.{name}").app
    assert isinstance(app, typer.Typer)
    help_text = CliRunner().invoke(app, ["--help"]).output
    assert f"Example: python -m benchmarks.{name} " in help_text
