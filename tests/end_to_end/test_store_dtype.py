"""Descriptors kept as float16: what a store says, what it refuses, and what a search finds in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.cli import main
from engine.store.store import read_descriptors, read_manifest
from engine.store.tables import read_candidates, read_matches
from tests.conftest import MakeOnce
from tests.end_to_end.conftest import Catalogue, RunCli


@pytest.fixture(scope="module")
def stores(make_once: MakeOnce, catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli) -> Path:
    """The descriptors of a catalogue, queries and references, each as float32 and as float16."""

    def write(folder: Path) -> None:
        for role, videos in (("query", catalogue.queries), ("reference", catalogue.references)):
            for dtype in ("float32", "float16"):
                options = ["--role", role, "--engines", tiny_engines, "--store-dtype", dtype]
                run_cli("extract", videos, *options, "--output", folder / f"{role}_{dtype}")

    return make_once("stores_of_both_dtypes", write)


def refusal(arguments: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_rows_are_those_of_float32_rounded(stores: Path) -> None:
    for role in ("query", "reference"):
        found, expected = (read_descriptors(stores / f"{role}_{dtype}") for dtype in ("float16", "float32"))
        assert [item.video_id for item in found] == [item.video_id for item in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.descriptors.dtype == np.float32
            np.testing.assert_array_equal(one.descriptors, other.descriptors.astype(np.float16))
            np.testing.assert_array_equal(one.timestamps, other.timestamps)


@pytest.mark.parametrize("dtypes", [("float16", "float16"), ("float32", "float16"), ("float16", "float32")])
def test_both_meet_in_a_search(stores: Path, tiny_engines: Path, tmp_path: Path, dtypes: tuple[str, str]) -> None:
    found, expected = {}, {}
    for of_store, tables in ((dtypes, found), (("float32", "float32"), expected)):
        folder = tmp_path / "_".join(of_store)
        sides = [
            *("--queries", stores / f"query_{of_store[0]}"),
            *("--references", stores / f"reference_{of_store[1]}"),
        ]
        normalized = ["--queries", folder / "queries.npz", "--references", folder / "references.npz"]
        localized = ["--candidates", folder / "searched.csv", "--rescored", folder / "candidates.csv"]
        for command in (
            ["normalize", *sides, "--engines", tiny_engines, "--output", folder],
            ["search", *normalized, "--output", folder / "searched.csv"],
            ["localize", *normalized, *localized, "--output", folder / "matches.csv"],
        ):
            with pytest.raises(SystemExit) as ended:
                main([*map(str, command)])
            assert ended.value.code == 0
        for pair in read_candidates(folder / "candidates.csv"):
            tables[pair.query_id, pair.ref_id] = pair.score
        assert read_matches(folder / "matches.csv")
    assert found.keys() == expected.keys()
    for pair, score in found.items():
        assert score == pytest.approx(expected[pair], abs=0.01)


def test_the_option_is_needed_once_and_another_dtype_is_refused(
    stores: Path, catalogue: Catalogue, tiny_engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stores / "query_float16"
    command: list[str | Path] = ["extract", catalogue.queries, "--role", "query", "--engines", tiny_engines, "--output"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command), str(store)])
    assert ended.value.code == 0
    assert "0 described, 6 there already" in capsys.readouterr().err
    assert read_manifest(store).dtype == "float16"
    line = refusal([*command, store, "--store-dtype", "float32"], capsys)
    assert f"{store} keeps descriptors as float16, float32 was asked for" in line
    line = refusal([*command, stores / "q.npz", "--store-dtype", "float16"], capsys)
    assert "--store-dtype is of a store" in line


def test_a_merge_of_both_is_refused(stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [stores / "query_float32", stores / "query_float16"]
    line = refusal(["merge", *both, "--output", tmp_path / "all"], capsys)
    assert f"{both[0]} keeps descriptors as float32, {both[1]} as float16, which are never mixed" in line
