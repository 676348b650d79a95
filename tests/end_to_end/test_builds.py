"""Builds side by side: each is what `vsc-engine run` gives, and a build that fails says so in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.builds import REPOSITORY, STORES, Build, origins, parse_builds, run_build
from engine.errors import ConfigError
from engine.store.tables import read_candidates
from tests.end_to_end.conftest import Catalogue, RunCli


def test_a_path_is_an_engines_directory_or_a_checkout(tiny_engines: Path, tmp_path: Path) -> None:
    builds = parse_builds([f"tiny={tiny_engines}", f"here={REPOSITORY}"])
    assert builds == [Build("tiny", REPOSITORY, tiny_engines), Build("here", REPOSITORY)]
    first, second = origins(builds)
    assert first == "tiny: engines directory tiny_engines"
    assert second.startswith("here: lite of commit ")
    assert parse_builds(None) == parse_builds([]) == [Build("now", REPOSITORY)]
    with pytest.raises(ConfigError, match=r"no engines directory .* and no checkout"):
        parse_builds([f"empty={tmp_path}"])
    with pytest.raises(ConfigError, match="expected --build NAME=PATH, got 'here'"):
        parse_builds(["here"])
    with pytest.raises(ConfigError, match="a name of its own, got a, a"):
        parse_builds([f"a={REPOSITORY}", f"a={tiny_engines}"])


@pytest.mark.long
@pytest.mark.parametrize("score_norm", [True, False])
def test_a_run_equals_that_of_the_command_line(
    catalogue: Catalogue,
    tiny_engines: Path,
    tmp_path: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    *,
    score_norm: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    sides = {"queries": catalogue.queries, "references": catalogue.references}
    build = Build("tiny", REPOSITORY, tiny_engines)
    first = run_build(build, **sides, output=Path("first"), cache=tmp_path, score_norm=score_norm)
    words = [str(word) for name, path in sides.items() for word in (f"--{name}", path)]
    words += ["--engines", str(tiny_engines), "--output", str(tmp_path / "cli")] + ["--no-score-norm"] * (
        not score_norm
    )
    printed = json.loads(run_cli("run", *words).stdout.splitlines()[-1])
    assert first == printed | {"output": str(tmp_path / "first")}
    expected = read_candidates(tmp_path / "cli" / "candidates.csv")
    assert read_candidates(tmp_path / "first" / "candidates.csv") == expected
    described = {name: tmp_path / "first" / name for name in STORES}
    run_build(build, **sides, output=tmp_path / "again", cache=tmp_path, score_norm=score_norm, described=described)
    assert read_candidates(tmp_path / "again" / "candidates.csv") == expected


@pytest.mark.long
def test_a_finished_run_is_not_repeated_and_a_failed_one_is(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    build, output = Build("tiny", REPOSITORY, tiny_engines), tmp_path / "run"
    queries = tmp_path / "queries"
    queries.mkdir()
    (queries / "broken.mp4").write_bytes(b"no video")

    def run() -> int:
        figures = run_build(build, queries=queries, references=catalogue.references, output=output, cache=tmp_path)
        return int(figures["num_queries"])

    with pytest.raises(ConfigError, match=r"^build tiny: `vsc-engine run` on .* ended with \d: [^\n]+$"):
        run()
    (queries / "broken.mp4").unlink()
    for path in catalogue.queries.iterdir():
        shutil.copy(path, queries)
    assert run() == len(list(queries.iterdir()))
    sides = ["--queries", queries, "--references", catalogue.references]
    run_cli("run", *sides, "--engines", tiny_engines, "--output", tmp_path / "cli")
    found, expected = (read_candidates(folder / "candidates.csv") for folder in (output, tmp_path / "cli"))
    assert found == expected
    shutil.rmtree(queries)
    assert run() == len(list(catalogue.queries.iterdir()))
