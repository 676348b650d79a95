"""Evaluation sets made from another one: hard copies, the share of plain queries, exact copies."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.val_hard import RECIPES, STRONG, make_exact_copies, make_set, make_synthetic, plain_queries
from engine.errors import ConfigError
from engine.store.tables import read_ground_truth
from tests.videos import moving_frames, write_video
from training.descriptor.views import NEVER_TRAINED
from training.footage.edits import EDITS
from training.footage.query_plans import Source, plan_queries


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Three references, two plain queries and one copy."""
    folder = tmp_path_factory.mktemp("sets") / "val"
    for number, path in enumerate(["reference/R1", "reference/R2", "reference/R3", "query/Q1", "query/Q2", "query/Q3"]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{path}.mp4", moving_frames(36, height=64, width=80, seed=number), fps=12)
    with (folder / "val_matching_ground_truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end"], ["Q2", "R1", 0, 3, 0, 3]]
        )
    return find_data_set(folder)


def test_plain_queries_are_those_without_a_copy(source: DataSet) -> None:
    assert [media.video_id for media in plain_queries(source)] == ["Q1", "Q3"]


def test_a_set_of_copies_only_is_refused(source: DataSet, tmp_path: Path) -> None:
    ground_truth = tmp_path / "truth.csv"
    ground_truth.write_text("query_id,ref_id\nQ1,R1\nQ2,R1\nQ3,R2\n")
    with pytest.raises(ConfigError, match=r"every query of .* is a copy"):
        plain_queries(dataclasses.replace(source, ground_truth=ground_truth))


def test_a_recipe_becomes_a_set_of_its_own(source: DataSet, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["val-hard"], num_copies=2, num_plain=1)
    make_set(tmp_path / "hard", lambda folder: make_synthetic(source, folder, recipe))
    data = find_data_set(tmp_path / "hard")
    assert len(list(data.queries.iterdir())) == 3
    assert data.references.resolve() == source.references.resolve()
    truth = read_ground_truth(data.ground_truth)
    assert len({query_id for query_id, _ in truth.pairs}) == 2
    provenance = json.loads((tmp_path / "hard" / "provenance.json").read_text())
    kinds = Counter(query["kind"] == "plain" for query in provenance["queries"].values())
    assert kinds == {True: 1, False: 2}


def test_copies_of_val_hard_have_three_or_four_strong_edits_of_all_kinds() -> None:
    recipe = RECIPES["val-hard"]
    sources = [Source(f"V{k}", Path(f"V{k}.mp4"), 20.0, 25) for k in range(8)]  # type: ignore[arg-type]
    plans = plan_queries(
        sources[:6], distractors=sources[6:], num_copies=60, num_plain=0, seed=1, difficulty=recipe.difficulty
    )
    copies = [segment for plan in plans for segment in plan.segments if segment.is_copy]
    assert {len(segment.edits) for segment in copies} == {3, 4}
    edits = [edit for segment in copies for edit in segment.edits]
    assert {edit.name for edit in edits} == set(EDITS) > NEVER_TRAINED
    crops = [dataclasses.asdict(edit) for edit in edits if edit.name == "crop"]
    assert crops
    assert all(0.45 <= crop[side] <= 0.7 for crop in crops for side in ("width", "height"))


def test_strong_strengths_are_of_fields_that_exist() -> None:
    for name, draws in STRONG.items():
        assert draws.keys() <= {field.name for field in dataclasses.fields(EDITS[name])}


def test_77_percent_of_the_shape_of_vsc_are_plain() -> None:
    recipe = RECIPES["vsc-shape"]
    assert recipe.num_plain / (recipe.num_plain + recipe.num_copies) == pytest.approx(0.77)


def test_exact_copies_are_references_under_another_name(source: DataSet, tmp_path: Path) -> None:
    make_set(tmp_path / "exact", lambda folder: make_exact_copies(source, folder))
    data = find_data_set(tmp_path / "exact")
    queries = {path.stem: path.read_bytes() for path in data.queries.iterdir()}
    assert queries.keys() == {"Q1", "Q2", "Q3", "XR1", "XR2", "XR3"}
    assert all(queries[f"X{path.stem}"] == path.read_bytes() for path in source.references.iterdir())
    truth = read_ground_truth(data.ground_truth)
    assert truth.pairs == {("Q2", "R1"), ("XR1", "R1"), ("XR2", "R2"), ("XR3", "R3")}
    assert truth.matches is not None
    assert [match.query_end_s for match in truth.matches if match.query_id == "XR2"] == [3.0]


def test_a_set_that_is_there_is_left_alone_and_half_a_set_is_none(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        make_set(tmp_path / "set", fail)
    assert not (tmp_path / "set").exists()
    make_set(tmp_path / "set", lambda folder: (folder / "whole").touch())
    make_set(tmp_path / "set", fail)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["whole"]
