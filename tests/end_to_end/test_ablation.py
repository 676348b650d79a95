"""Rows of the ablation are what `vsc-engine run` gives with the same switches, whatever was computed before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ablation import Bench, gate_rows, planned_rows, table
from benchmarks.data_sets import DataSet
from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
from tests.end_to_end.conftest import Catalogue, RunCli

pytestmark = pytest.mark.torch

SWITCHES = {
    "base": ["--no-scenes", "--no-score-norm"],
    "+ score normalization": ["--no-scenes"],
    "+ scenes": [],
}


def test_rows_equal_runs_with_the_same_switches(
    catalogue: Catalogue, lite_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    data = DataSet("tiny", catalogue.queries, catalogue.references, catalogue.ground_truth)
    (tmp_path / "bench").mkdir()
    bench = Bench(tmp_path / "bench", norm_set=catalogue.norm_set)
    rows = planned_rows(EnginesDirectory.open(lite_engines), one_model=None)
    assert [row.name for row in rows] == list(SWITCHES)
    results = [bench.measure(row, data) for row in rows]
    for number, figures in enumerate(results):
        run = run_cli(
            "run", "--queries", data.queries, "--references", data.references, "--norm-set", catalogue.norm_set,
            "--ground-truth", data.ground_truth, "--engines", lite_engines, "--output", tmp_path / str(number),
            *SWITCHES[figures.row],
        )  # fmt: skip
        expected = json.loads(run.stdout.splitlines()[-1])
        assert (figures.uap, figures.segment_ap) == (expected["uap"], expected["segment_ap"])
        assert figures.seconds > 0
    assert all(row.name in line for row, line in zip(rows, table(results)[1:], strict=True))


def test_two_models_need_engines_of_the_first(lite_engines: Path, tmp_path: Path) -> None:
    one = EnginesDirectory.open(lite_engines)
    with pytest.raises(ConfigError, match="have 1 models"):
        planned_rows(one, one_model=one)
    preset = one.manifest.preset
    second = preset.models[0].model_copy(update={"name": "second"})
    two_models = preset.model_copy(update={"models": (*preset.models, second)})
    two = EnginesDirectory(tmp_path, one.manifest.model_copy(update={"preset": two_models}))  # engines are not needed
    with pytest.raises(ConfigError, match=r"have 2 models: .*--one-model"):
        planned_rows(two, one_model=None)
    assert [row.name for row in planned_rows(two, one_model=one)][-1] == "+ second model"


def test_the_gate_experiment_needs_a_gate(lite_engines: Path) -> None:
    with pytest.raises(ConfigError, match="have no edit gate"):
        gate_rows(EnginesDirectory.open(lite_engines))
