"""Evaluation sets are found by their layout, and other folders are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data_sets import DataSet, find_data_set
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("queries", "references", "prefix"), [("query", "reference", "val_"), ("queries", "references", "")]
)
def test_both_layouts_are_found(tmp_path: Path, queries: str, references: str, prefix: str) -> None:
    folder = tmp_path / "val"
    for name in (queries, references):
        (folder / name).mkdir(parents=True)
    ground_truth = folder / f"{prefix}matching_ground_truth.csv"
    ground_truth.touch()
    assert find_data_set(folder) == DataSet("val", folder / queries, folder / references, ground_truth)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"is not an evaluation set: expected exactly one of query or queries, got \[\]"
    ):
        find_data_set(tmp_path)
    for name in ("query", "queries"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=r"got \['queries', 'query'\]"):
        find_data_set(tmp_path)
