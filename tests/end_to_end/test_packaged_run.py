"""A run on engines that bring their PCA and norm set, as preset lite does: no torch, no norm set of the user's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from engine.build.engines import build_engines
from engine.config import load_preset
from engine.store.store import read_descriptors
from engine.store.tables import read_candidates, read_matches
from tests.end_to_end.conftest import FPS, Catalogue, RunCli, footage
from tests.packaged import NUM_COMPONENTS, norm_rows
from tests.videos import write_video


def sides(catalogue: Catalogue, engines: Path) -> list[str | Path]:
    return ["--queries", catalogue.queries, "--references", catalogue.references, "--engines", engines]


def test_the_norm_set_of_the_engines_is_used_and_named(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    result = run_cli("run", *sides(catalogue, tiny_engines), "--output", tmp_path / "run")
    assert f"norm set: the one that came with the engines, {len(norm_rows())} rows" in result.stderr
    assert re.search(r"queries: 6, with a copy: \d, to review: \d; see .*matches\.csv", result.stderr)
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
    run_cli("search", *normalized, "--output", tmp_path / "searched.csv")
    localized = ["--candidates", tmp_path / "searched.csv", "--output", tmp_path / "matches.csv"]
    videos = ["--query-videos", catalogue.queries, "--reference-videos", catalogue.references]
    run_cli("localize", *normalized, *localized, "--rescored", tmp_path / "candidates.csv", *videos)
    assert any(match.num_inliers for match in read_matches(tmp_path / "matches.csv"))
    for table in ("matches.csv", "candidates.csv"):
        assert (tmp_path / table).read_bytes() == (tmp_path / "run" / table).read_bytes()


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


def test_a_black_slate_in_two_unrelated_videos_never_outranks_a_copy(run_cli: RunCli, tmp_path: Path) -> None:
    build_engines(load_preset("lite"), tmp_path / "engines")
    black = [np.zeros((144, 192, 3), np.uint8)] * 3 * FPS
    for side, (plain_seed, slate_seed) in {"queries": (1, 2), "references": (1, 3)}.items():
        (tmp_path / side).mkdir()
        write_video(tmp_path / side / "copy.mp4", footage(plain_seed), fps=FPS)
        write_video(tmp_path / side / "slate.mp4", black + footage(slate_seed, num_seconds=4) + black, fps=FPS)
    folders = ["--queries", tmp_path / "queries", "--references", tmp_path / "references"]
    run_cli("run", *folders, "--engines", tmp_path / "engines", "--output", tmp_path / "run")
    scores = {(pair.query_id, pair.ref_id): pair.score for pair in read_candidates(tmp_path / "run" / "candidates.csv")}
    assert scores.pop(("copy", "copy")) > 0.5
    assert max(scores.values()) < 0.2  # black on black would have more, were no black picture in the norm set


@pytest.mark.torch
def test_engines_without_a_norm_set_ask_for_one(
    catalogue: Catalogue, lite_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    result = run_cli("run", *sides(catalogue, lite_engines), "--output", tmp_path / "run", expect=1)
    assert "bring no norm set; name one with --norm-set" in result.stderr
    stores = ["--queries", tmp_path, "--references", tmp_path, "--engines", lite_engines, "--output", tmp_path / "sn"]
    assert "bring no norm set; name one with --norm-set" in run_cli("normalize", *stores, expect=1).stderr
