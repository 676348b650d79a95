"""The whole path as a user walks it: the command line as a process, on videos made here."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from engine import Engine
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.store import read_descriptors
from tests.end_to_end.conftest import Catalogue, RunCli, kill_while_describing

pytestmark = pytest.mark.torch


def run_arguments(catalogue: Catalogue, engines: Path, output: Path) -> list[str | Path]:
    return [
        "run",
        "--queries", catalogue.queries,
        "--references", catalogue.references,
        "--norm-set", catalogue.norm_set,
        "--ground-truth", catalogue.ground_truth,
        "--engines", engines,
        "--output", output,
    ]  # fmt: skip


FinishedRun = tuple[Path, dict[str, float]]


@pytest.fixture(scope="module")
def finished_run(
    catalogue: Catalogue, lite_engines: Path, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
    output = tmp_path_factory.mktemp("run") / "out"
    result = run_cli(*run_arguments(catalogue, lite_engines, output))
    return output, json.loads(result.stdout.splitlines()[-1])


def test_run_finds_the_copies(finished_run: FinishedRun, catalogue: Catalogue) -> None:
    output, result = finished_run
    assert result["uap"] == pytest.approx(1.0)
    assert result["segment_ap"] > 0.5
    assert result["num_failures"] == 0
    with (output / "candidates.csv").open(encoding="utf-8") as file:
        best = [(row["query_id"], row["ref_id"]) for row in csv.DictReader(file)][: catalogue.num_copies]
    assert set(best) == {("Q0", "R0"), ("Q1", "R1"), ("Q2 été", "R2")}


def test_the_side_by_side_query_was_split_into_scenes(finished_run: FinishedRun) -> None:
    output, _ = finished_run
    split = {item.video_id: item for item in read_descriptors(output / "queries")}["Q2 été"]
    starts = split.timestamps[:, 0].tolist()
    assert len(starts) > len(set(starts)), "timestamps repeat once per scene"


def test_a_second_run_computes_nothing_and_says_the_same(
    finished_run: FinishedRun, catalogue: Catalogue, lite_engines: Path, run_cli: RunCli
) -> None:
    output, first = finished_run
    shards = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    again = run_cli(*run_arguments(catalogue, lite_engines, output))
    assert json.loads(again.stdout.splitlines()[-1]) == first
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")} == shards


def test_the_output_of_another_run_is_refused(
    finished_run: FinishedRun, catalogue: Catalogue, lite_engines: Path, run_cli: RunCli
) -> None:
    output, _ = finished_run
    result = run_cli(*run_arguments(catalogue, lite_engines, output), "--no-scenes", expect=1)
    assert "another preset" in result.stderr


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_result(
    finished_run: FinishedRun,
    catalogue: Catalogue,
    lite_engines: Path,
    run_cli: RunCli,
    tmp_path: Path,
) -> None:
    output = tmp_path / "killed"
    kill_while_describing(run_arguments(catalogue, lite_engines, output), output / "references")
    result = run_cli(*run_arguments(catalogue, lite_engines, output))
    assert json.loads(result.stdout.splitlines()[-1]) == {**finished_run[1], "output": str(output)}


@pytest.mark.long
def test_the_steps_by_hand_give_the_result_of_run(
    finished_run: FinishedRun,
    catalogue: Catalogue,
    lite_engines: Path,
    run_cli: RunCli,
    tmp_path: Path,
) -> None:
    """The same protocol through extract, fit-pca, normalize, search, localize and evaluate, with .npz in between.

    Each command but the first, which others start so, is a process of its own.
    """
    engines = shutil.copytree(lite_engines, tmp_path / "engines")
    run_cli("extract", catalogue.norm_set, "--engines", engines, "--role", "reference", "--output", tmp_path / "raw")
    run_cli("fit-pca", tmp_path / "raw", "--engines", engines, "--num-components", "53", process=True)
    for name, role, videos in (
        ("norm.npz", "reference", catalogue.norm_set),
        ("refs", "reference", catalogue.references),
        ("queries.npz", "query", catalogue.queries),
    ):
        run_cli("extract", videos, "--engines", engines, "--role", role, "--output", tmp_path / name)
    sides = ["--queries", tmp_path / "queries.npz", "--references", tmp_path / "refs"]
    run_cli("normalize", *sides, "--norm-set", tmp_path / "norm.npz", "--output", tmp_path / "sn", process=True)
    sides = ["--queries", tmp_path / "sn" / "queries.npz", "--references", tmp_path / "sn" / "references.npz"]
    run_cli("search", *sides, "--output", tmp_path / "searched.csv", process=True)
    preset = EnginesDirectory.open(engines).manifest.preset
    (tmp_path / "preset.toml").write_text(tomli_w.dumps(preset.model_dump(exclude_none=True)), "utf-8")
    outputs = ["--output", tmp_path / "matches.csv", "--rescored", tmp_path / "candidates.csv"]
    outputs += ["--preset", tmp_path / "preset.toml"]
    run_cli("localize", *sides, "--candidates", tmp_path / "searched.csv", *outputs, process=True)
    truth = ["--ground-truth", catalogue.ground_truth]
    plot = tmp_path / "pr.png"
    uap = run_cli("evaluate", *truth, "--candidates", tmp_path / "candidates.csv", "--plot", plot, process=True)
    segment = run_cli("evaluate", *truth, "--matches", tmp_path / "matches.csv")
    direct = run_cli("evaluate", *truth, *sides)
    expected = finished_run[1]
    assert json.loads(uap.stdout.splitlines()[-1])["uap"] == pytest.approx(expected["uap"])
    assert json.loads(direct.stdout.splitlines()[-1])["uap"] == pytest.approx(expected["uap"])
    assert json.loads(segment.stdout.splitlines()[-1])["segment_ap"] == pytest.approx(expected["segment_ap"], abs=1e-3)
    assert plot.stat().st_size > 1000


@pytest.mark.long
def test_engines_with_a_pca_keep_it(
    finished_run: FinishedRun, catalogue: Catalogue, run_cli: RunCli, tmp_path: Path
) -> None:
    """The engines a run leaves behind describe as that run did, so its references can be searched again later."""
    first, expected = finished_run
    shutil.copytree(first / "queries", tmp_path / "out" / "queries")  # so that they are not described again
    again = run_cli(*run_arguments(catalogue, first / "engines", tmp_path / "out"))
    assert not (tmp_path / "out" / "engines").exists()
    assert json.loads(again.stdout.splitlines()[-1]) == {**expected, "output": str(tmp_path / "out")}
    for one, other in zip(
        read_descriptors(first / "references"), read_descriptors(tmp_path / "out" / "references"), strict=True
    ):
        np.testing.assert_array_equal(one.descriptors, other.descriptors)


def test_results_do_not_depend_on_threads_or_order(catalogue: Catalogue, lite_engines: Path) -> None:
    videos = sorted(catalogue.queries.iterdir())
    found = []
    for num_threads, paths in ((1, videos), (3, videos[::-1])):
        with Engine.open(lite_engines, num_threads=num_threads) as engine:
            found.append(list(engine.extract(paths, role="query")))
    for one, other in zip(*found, strict=True):
        assert one.video_id == other.video_id
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
        np.testing.assert_array_equal(one.descriptors, other.descriptors)


def test_extraction_runs_where_torch_cannot_be_imported(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    for name in ("torch", "timm", "onnxscript", "torchvision"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        text = f"raise ImportError('{name} is blocked in this test')\n"
        (tmp_path / "blocked" / name / "__init__.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
    blocked = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, check=False)
    assert blocked.returncode != 0
    run_cli(
        "extract", catalogue.references, "--engines", tiny_engines, "--role", "reference", "--output", tmp_path / "out",
        env=environment,
    )  # fmt: skip
    assert len(read_descriptors(tmp_path / "out")) == 6
