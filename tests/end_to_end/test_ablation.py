"""Rows of the ablation are what `vsc-engine run` gives with the same switches, whatever was computed before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w

from benchmarks.ablation import Bench, gate_rows, main, planned_rows, table
from benchmarks.data_sets import DataSet
from engine.config import Localization, Search
from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
from tests.end_to_end.conftest import Catalogue, RunCli

SWITCHES = {
    "base": ["--no-scenes", "--no-score-norm"],
    "+ score normalization": ["--no-scenes"],
    "+ scenes": [],
    "+ shots": [],
    "+ insets": [],
    "+ segments": [],
    "+ pictures": [],
    "+ second model": [],
}
OF_A_PRESET_FILE = ("base", "+ score normalization", "+ scenes", "+ shots", "+ insets", "+ segments")


@pytest.fixture(scope="module")
def engines(tiny_engines: Path) -> EnginesDirectory:
    """Engines of two tiny models that bring a norm set; they also stand for those of the first model alone."""
    return EnginesDirectory.open(tiny_engines)


@pytest.mark.parametrize(
    ("num_rows", "compared"),
    [(3, ["+ score normalization"]), pytest.param(len(SWITCHES), [*SWITCHES], marks=pytest.mark.long)],
    ids=["one", "all"],
)
def test_rows_equal_runs_with_the_same_switches(
    catalogue: Catalogue,
    engines: EnginesDirectory,
    tmp_path: Path,
    run_cli: RunCli,
    num_rows: int,
    compared: list[str],
) -> None:
    data = DataSet("tiny", catalogue.queries, catalogue.references, catalogue.ground_truth)
    (tmp_path / "bench").mkdir()
    bench = Bench(tmp_path / "bench")
    rows = planned_rows(engines, one_model=engines)
    assert [row.name for row in rows] == list(SWITCHES)
    results = [bench.measure(row, data) for row in rows[:num_rows]]
    for number, figures in enumerate(results):
        if figures.row not in compared:
            continue
        sides = {"--queries": data.queries, "--references": data.references, "--ground-truth": data.ground_truth}
        options = sides | {"--engines": engines.folder, "--output": tmp_path / str(number)}
        words = [str(word) for option in options.items() for word in option]
        if figures.row in OF_A_PRESET_FILE:
            (tmp_path / "row.toml").write_text(
                tomli_w.dumps(rows[number].preset.model_dump(exclude_none=True)), "utf-8"
            )
            words += ["--preset", str(tmp_path / "row.toml")]
        expected = json.loads(run_cli("run", *words, *SWITCHES[figures.row]).stdout.splitlines()[-1])
        assert (figures.uap, figures.segment_ap) == (expected["uap"], expected["segment_ap"])
        assert figures.seconds > 0
    assert len({figures.uap for figures in results[:3]}) == 3  # so that a switch that is not set would show
    assert all(row.name in line for row, line in zip(rows[:num_rows], table(results)[1:], strict=True))


def test_two_models_need_engines_of_the_first(engines: EnginesDirectory) -> None:
    preset = engines.manifest.preset
    first = preset.model_copy(update={"models": preset.models[:1]})
    one = EnginesDirectory(engines.folder, engines.manifest.model_copy(update={"preset": first}))
    with pytest.raises(ConfigError, match="have 1 models"):
        planned_rows(one, one_model=one)
    with pytest.raises(ConfigError, match=r"have 2 models: .*--one-model"):
        planned_rows(engines, one_model=None)
    assert [row.name for row in planned_rows(one, one_model=None)][-1] == "+ pictures"


def test_shots_and_insets_are_rows_of_presets_that_describe_them(engines: EnginesDirectory) -> None:
    preset = engines.manifest.preset
    scenes = preset.scenes.model_copy(update={"scope": "shots", "max_insets": 4})
    shots = preset.model_copy(update={"models": preset.models[:1], "scenes": scenes})
    one = EnginesDirectory(engines.folder, engines.manifest.model_copy(update={"preset": shots}))
    rows = {row.name: row.preset.scenes for row in planned_rows(one, one_model=None)}
    assert list(rows) == [
        "base",
        "+ score normalization",
        "+ scenes",
        "+ shots",
        "+ insets",
        "+ segments",
        "+ pictures",
    ]
    assert (rows["+ scenes"].scope, rows["+ scenes"].max_insets) == ("video", 0)
    assert (rows["+ shots"].scope, rows["+ shots"].max_insets) == ("shots", 0)
    assert rows["+ insets"] == rows["+ segments"] == scenes


def test_segments_and_pictures_are_rows_of_presets_that_do_not_localize_as_the_baseline(
    engines: EnginesDirectory,
) -> None:
    preset = engines.manifest.preset.model_copy(update={"models": engines.manifest.preset.models[:1]})
    one = EnginesDirectory(engines.folder, engines.manifest.model_copy(update={"preset": preset}))
    rows = {row.name: row.preset for row in planned_rows(one, one_model=None)}
    assert (rows["+ insets"].localization, rows["+ insets"].search) == (Localization(), Search())
    assert rows["+ pictures"] == preset
    assert rows["+ segments"].localization == preset.localization.model_copy(update={"verified_per_query": 0})
    assert rows["+ segments"].search == preset.search
    as_baseline = preset.model_copy(update={"localization": Localization(), "search": Search()})
    other = EnginesDirectory(engines.folder, engines.manifest.model_copy(update={"preset": as_baseline}))
    assert [row.name for row in planned_rows(other, one_model=None)][-1] == "+ insets"


def test_the_gate_experiment_needs_a_gate(engines: EnginesDirectory) -> None:
    with pytest.raises(ConfigError, match="have no edit gate"):
        gate_rows(engines)


def test_a_row_that_is_not_there_is_refused(engines: EnginesDirectory) -> None:
    with pytest.raises(ConfigError, match=r"no row has the name '\+ magic'; expected base, \+ score normalization, "):
        main(engines=engines.folder, one_model=engines.folder, only=["+ magic"])
