"""A run on engines that bring their PCA and norm set, as preset lite does: no torch, no norm set of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.build.engines import build_engines
from engine.store.store import read_descriptors
from tests.end_to_end.conftest import Catalogue, RunCli
from tests.packaged import NUM_COMPONENTS, norm_rows, tiny_preset, write_packaged


@pytest.fixture(scope="module")
def tiny_engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    build_engines(tiny_preset(), folder / "engines", packaged=write_packaged(folder / "tiny"))
    return folder / "engines"


def sides(catalogue: Catalogue, engines: Path) -> list[str | Path]:
    return ["--queries", catalogue.queries, "--references", catalogue.references, "--engines", engines]


def test_the_norm_set_of_the_engines_is_used_and_named(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    result = run_cli("run", *sides(catalogue, tiny_engines), "--output", tmp_path / "run")
    assert f"norm set: the one that came with the engines, {len(norm_rows())} rows" in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["num_failures"] == 0
    assert not (tmp_path / "run" / "norm_set").exists()
    assert not (tmp_path / "run" / "engines").exists()
    assert read_descriptors(tmp_path / "run" / "queries")[0].descriptors.shape[1] == NUM_COMPONENTS


def test_normalize_gives_the_scores_of_the_run(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    run_cli("run", *sides(catalogue, tiny_engines), "--output", tmp_path / "run")
    stores = ["--queries", tmp_path / "run" / "queries", "--references", tmp_path / "run" / "references"]
    result = run_cli("normalize", *stores, "--engines", tiny_engines, "--output", tmp_path / "sn")
    assert "norm set: the one that came with the engines" in result.stderr
    normalized = ["--queries", tmp_path / "sn" / "queries.npz", "--references", tmp_path / "sn" / "references.npz"]
    run_cli("search", *normalized, "--output", tmp_path / "candidates.csv")
    assert (tmp_path / "candidates.csv").read_bytes() == (tmp_path / "run" / "candidates.csv").read_bytes()


def test_a_norm_set_of_ones_own_replaces_it_and_the_pca_stays(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    own = run_cli("run", *sides(catalogue, tiny_engines), "--output", tmp_path / "own")
    given = ["--norm-set", catalogue.norm_set, "--output", tmp_path / "given"]
    result = run_cli("run", *sides(catalogue, tiny_engines), *given)
    assert f"norm set: {catalogue.norm_set}" in result.stderr
    assert "PCA of the engines" in result.stderr
    assert own.stdout != result.stdout
    for one, other in zip(*(read_descriptors(tmp_path / name / "queries") for name in ("own", "given")), strict=True):
        np.testing.assert_array_equal(one.descriptors, other.descriptors)


@pytest.mark.torch
def test_engines_without_a_norm_set_ask_for_one(
    catalogue: Catalogue, lite_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    result = run_cli("run", *sides(catalogue, lite_engines), "--output", tmp_path / "run", expect=1)
    assert "bring no norm set; name one with --norm-set" in result.stderr
    stores = ["--queries", tmp_path, "--references", tmp_path, "--engines", lite_engines, "--output", tmp_path / "sn"]
    assert "bring no norm set; name one with --norm-set" in run_cli("normalize", *stores, expect=1).stderr
