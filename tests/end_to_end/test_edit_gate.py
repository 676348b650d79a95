"""The edit gate from the command line: on, off, and which queries count all the same."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from engine.build.engines import build_engines  # noqa: E402
from engine.config import load_preset  # noqa: E402
from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.edit_score import build_edit_score  # noqa: E402
from engine.records import Descriptors  # noqa: E402
from engine.store.store import read_descriptors  # noqa: E402
from engine.store.tables import read_candidates, read_matches  # noqa: E402
from tests.end_to_end.conftest import Catalogue, RunCli  # noqa: E402
from tests.gate_presets import write_gate_preset  # noqa: E402
from tests.imagenet import write_imagenet_weights  # noqa: E402

pytestmark = pytest.mark.torch

EXACT_COPY = "Q1"
NOTHING_PASSES = 1.0


@dataclass(frozen=True)
class GatedEngines:
    """Engines whose gate stops every query, and the same preset without the rule that exact copies count."""

    folder: Path
    preset: Path
    without_exact_copies: Path


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> GatedEngines:
    folder = tmp_path_factory.mktemp("gate")
    write_imagenet_weights(folder / "small.safetensors")
    score = build_edit_score("edit_score_pooled")
    random_weights(score, seed=1)
    save_file(score.state_dict(), folder / "edit_score.safetensors")
    preset = write_gate_preset(folder / "gated.toml", score_threshold=NOTHING_PASSES, near_identical_cosine=0.98)
    build_engines(load_preset(preset), folder / "engines", checkpoints=folder)
    other = write_gate_preset(folder / "other.toml", score_threshold=NOTHING_PASSES, near_identical_cosine=None)
    return GatedEngines(folder / "engines", preset, other)


def by_id(videos: list[Descriptors]) -> dict[str, Descriptors]:
    return {video.video_id: video for video in videos}


def run(
    run_cli: RunCli,
    catalogue: Catalogue,
    engines: Path,
    output: Path,
    *options: str | Path,
    described: Path | None = None,
) -> dict[str, str]:
    """``described``: the output of a run whose references and norm set are those of this one."""
    for name in ("norm_set", "references") if described is not None else ():
        shutil.copytree(described / name, output / name)
    arguments = ["--queries", catalogue.queries, "--references", catalogue.references]
    arguments += ["--norm-set", catalogue.norm_set, "--engines", engines, "--output", output, *options]
    run_cli("run", *arguments)
    return best_references(output)


def best_references(output: Path) -> dict[str, str]:
    """Best candidate of each query that has one with a score above that of stopped queries."""
    best: dict[str, str] = {}
    with (output / "candidates.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if float(row["score"]) > -50:
                best.setdefault(row["query_id"], row["ref_id"])
    return best


@pytest.fixture(scope="module")
def stopping_run(
    gated: GatedEngines, catalogue: Catalogue, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output of a run with the gate on."""
    output = tmp_path_factory.mktemp("stopping") / "run"
    run(run_cli, catalogue, gated.folder, output, "--gate")
    return output


@pytest.mark.long
def test_a_gate_that_is_off_stops_nothing(
    gated: GatedEngines, catalogue: Catalogue, run_cli: RunCli, stopping_run: Path, tmp_path: Path
) -> None:
    best = run(run_cli, catalogue, gated.folder, tmp_path / "run", described=stopping_run)
    assert len(best) == 6
    described = read_descriptors(tmp_path / "run" / "queries")
    assert all(item.edit_score is None and not item.is_stopped for item in described)


@pytest.mark.long
def test_only_an_exact_copy_comes_through_a_gate_that_stops_all(
    gated: GatedEngines, catalogue: Catalogue, run_cli: RunCli, stopping_run: Path, tmp_path: Path
) -> None:
    assert best_references(stopping_run) == {EXACT_COPY: "R1"}
    options = ["--gate", "--preset", gated.without_exact_copies]
    without = run(run_cli, catalogue, gated.folder, tmp_path / "other", *options, described=stopping_run)
    assert without == {}


@pytest.mark.long
def test_the_single_commands_give_what_run_gives(
    gated: GatedEngines, catalogue: Catalogue, run_cli: RunCli, stopping_run: Path, tmp_path: Path
) -> None:
    engines = ("--engines", stopping_run / "engines")  # with the PCA
    for name, role, videos, *options in (
        ("norm_set", "reference", catalogue.norm_set),
        ("refs", "reference", catalogue.references),
        ("queries", "query", catalogue.queries, "--gate"),
    ):
        run_cli("extract", videos, "--role", role, "--output", tmp_path / name, *engines, *options)
    stopped = read_descriptors(tmp_path / "queries")
    assert all(item.gate == "stopped_rows_kept" and len(item) > 1 for item in stopped)
    sides = ("--queries", tmp_path / "queries", "--references", tmp_path / "refs")
    run_cli("normalize", *sides, "--norm-set", tmp_path / "norm_set", *engines, "--output", tmp_path / "normalized")
    normalized = by_id(read_descriptors(tmp_path / "normalized" / "queries.npz"))
    assert {name for name, item in normalized.items() if not item.is_stopped} == {EXACT_COPY}
    placeholders = [item for item in normalized.values() if item.is_stopped]
    assert all((item.descriptors[:, -1] == -100).all() and len(item) == 1 for item in placeholders)
    sides = ("--queries", tmp_path / "normalized" / "queries.npz")
    sides += ("--references", tmp_path / "normalized" / "references.npz")
    run_cli("search", *sides, "--output", tmp_path / "searched.csv")
    outputs = ["--output", tmp_path / "matches.csv", "--rescored", tmp_path / "candidates.csv"]
    preset = ["--preset", gated.preset]
    run_cli("localize", *sides, "--candidates", tmp_path / "searched.csv", *outputs, *preset)
    # The norm set differs in the last digits: `run` projects its embeddings outside of the engine.
    for read, name in ((read_candidates, "candidates.csv"), (read_matches, "matches.csv")):
        found, expected = (
            {astuple(replace(row, score=0.0)): row.score for row in read(folder / name)}
            for folder in (tmp_path, stopping_run)
        )
        assert found == pytest.approx(expected, abs=1e-5), name
    figures = [
        json.loads(run_cli("evaluate", "--ground-truth", catalogue.ground_truth, *what).stdout)["uap"]
        for what in (("--candidates", stopping_run / "candidates.csv"), sides)
    ]
    assert figures[0] == figures[1] > 0


@pytest.mark.long
def test_a_challenge_file_holds_placeholders(
    gated: GatedEngines, catalogue: Catalogue, run_cli: RunCli, tmp_path: Path
) -> None:
    output = tmp_path / "queries.npz"
    run_cli("extract", catalogue.queries, "--role", "query", "--output", output, "--engines", gated.folder, "--gate")
    videos = read_descriptors(output)
    assert all(item.is_stopped and len(item) == 1 and np.abs(item.descriptors).max() < 1e-5 for item in videos)


@pytest.mark.long
def test_engines_without_a_gate_cannot_turn_it_on(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    arguments = ["extract", catalogue.queries, "--role", "query", "--output", tmp_path / "store"]
    result = run_cli(*arguments, "--engines", tiny_engines, "--gate", expect=1)
    assert "'tiny' has no edit gate to turn on" in result.stderr
