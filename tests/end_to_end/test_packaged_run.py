"""A run on engines that bring their PCA and norm set, as preset lite does: no torch, no norm set of the user's."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.store.store import read_descriptors
from engine.store.tables import read_candidates, read_matches
from tests.end_to_end.conftest import FPS, Catalogue, RunCli, footage, kill_while_describing
from tests.packaged import NUM_COMPONENTS, norm_rows
from tests.videos import write_video


def sides(catalogue: Catalogue, engines: Path) -> list[str | Path]:
    return ["--queries", catalogue.queries, "--references", catalogue.references, "--engines", engines]


FinishedRun = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def finished_run(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
    """The output of a run without a norm set of the user's, and what it said."""
    output = tmp_path_factory.mktemp("packaged") / "run"
    return output, run_cli("run", *sides(catalogue, tiny_engines), "--output", output)


def test_the_norm_set_of_the_engines_is_used_and_named(finished_run: FinishedRun) -> None:
    output, result = finished_run
    assert f"norm set: the one that came with the engines, {len(norm_rows())} rows" in result.stderr
    assert re.search(r"queries: 6, with a copy: \d, to review: \d; see .*matches\.csv", result.stderr)
    assert json.loads(result.stdout.splitlines()[-1])["num_failures"] == 0
    assert not (output / "norm_set").exists()
    assert not (output / "engines").exists()
    assert read_descriptors(output / "queries")[0].descriptors.shape[1] == NUM_COMPONENTS


def test_a_killed_run_goes_on_to_the_same_result(
    finished_run: FinishedRun, catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    _, whole = finished_run
    arguments = ["run", *sides(catalogue, tiny_engines), "--output", tmp_path / "killed"]
    kill_while_describing(arguments, tmp_path / "killed" / "references")
    figures, expected = (json.loads(done.stdout.splitlines()[-1]) for done in (run_cli(*arguments), whole))
    assert figures == {**expected, "output": str(tmp_path / "killed")}


def test_normalize_gives_the_scores_of_the_run(
    finished_run: FinishedRun, catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    output, _ = finished_run
    stores = ["--queries", output / "queries", "--references", output / "references"]
    result = run_cli("normalize", *stores, "--engines", tiny_engines, "--output", tmp_path / "sn")
    assert "norm set: the one that came with the engines" in result.stderr
    normalized = ["--queries", tmp_path / "sn" / "queries.npz", "--references", tmp_path / "sn" / "references.npz"]
    run_cli("search", *normalized, "--output", tmp_path / "searched.csv")
    localized = ["--candidates", tmp_path / "searched.csv", "--output", tmp_path / "matches.csv"]
    videos = ["--query-videos", catalogue.queries, "--reference-videos", catalogue.references]
    result = run_cli("localize", *normalized, *localized, "--rescored", tmp_path / "candidates.csv", *videos)
    assert "not score-normalized" not in result.stderr
    assert any(match.num_inliers for match in read_matches(tmp_path / "matches.csv"))
    for table in ("matches.csv", "candidates.csv"):
        assert (tmp_path / table).read_bytes() == (output / table).read_bytes()


def test_a_norm_set_of_ones_own_replaces_it_and_the_pca_stays(
    finished_run: FinishedRun, catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    output, own = finished_run
    given = ["--norm-set", catalogue.norm_set, "--output", tmp_path / "given"]
    result = run_cli("run", *sides(catalogue, tiny_engines), *given)
    assert f"norm set: {catalogue.norm_set}" in result.stderr
    assert "PCA of the engines" in result.stderr
    own_figures, figures = (json.loads(done.stdout.splitlines()[-1]) for done in (own, result))
    assert own_figures | {"output": figures["output"]} != figures
    stores = (read_descriptors(folder / "queries") for folder in (output, tmp_path / "given"))
    for one, other in zip(*stores, strict=True):
        np.testing.assert_array_equal(one.descriptors, other.descriptors)


def test_a_black_slate_in_two_unrelated_videos_never_outranks_a_copy(
    trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    black = [np.zeros((144, 192, 3), np.uint8)] * 3 * FPS
    for side, (plain_seed, slate_seed) in {"queries": (1, 2), "references": (1, 3)}.items():
        (tmp_path / side).mkdir()
        write_video(tmp_path / side / "copy.mp4", footage(plain_seed), fps=FPS)
        write_video(tmp_path / side / "slate.mp4", black + footage(slate_seed, num_seconds=4) + black, fps=FPS)
    folders = ["--queries", tmp_path / "queries", "--references", tmp_path / "references"]
    run_cli("run", *folders, "--engines", trained_engines, "--output", tmp_path / "run")
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
