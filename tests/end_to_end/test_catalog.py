"""The daily job on the command line, and catalogues whose writer was killed at any moment."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from engine.catalog.catalog import Catalog
from engine.records import Descriptors
from engine.store.tables import read_candidates, read_matches
from tests.catalog_writers import write
from tests.catalogs import contents, npz, video
from tests.end_to_end.conftest import FPS, Catalogue, RunCli, footage, montage
from tests.videos import write_video


def documents(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


@pytest.fixture(params=["folder", pytest.param("milvus", marks=pytest.mark.long)])
def rows_at(request: pytest.FixtureRequest) -> str | None:
    """The address of a Milvus server where rows may lie."""
    return request.getfixturevalue("milvus") if request.param == "milvus" else None


def test_the_daily_job(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path, rows_at: str | None
) -> None:
    folder, uploads = tmp_path / "catalogue", tmp_path / "uploads"
    options = [] if rows_at is None else ["--milvus", rows_at]
    run_cli("catalog", "create", folder, "--engines", tiny_engines, *options)
    result = run_cli("catalog", "add", folder, catalogue.norm_set)
    assert "6 added, 0 replaced, 0 kept, 0 failed" in result.stderr
    assert documents(result.stdout)[-1] == {
        "catalog": str(folder), "added": 6, "replaced": 0, "kept": 0, "num_failures": 0, "num_known_failures": 0
    }  # fmt: skip
    assert documents(run_cli("catalog", "add", folder, catalogue.norm_set).stdout)[-1]["kept"] == 6

    uploads.mkdir()
    write_video(uploads / "upload.mp4", montage(203)[2 * FPS :], fps=FPS)
    run = ["--queries", uploads, "--references", catalogue.norm_set, "--engines", tiny_engines]
    run_cli("run", *run, "--output", tmp_path / "run")
    answer, summary = documents(run_cli("catalog", "match", folder, uploads, "--all").stdout)
    assert summary.pop("verdicts") == {answer["verdict"]: 1}
    assert summary == {"catalog": str(folder), "num_uploads": 1, "num_failures": 0}
    candidates = read_candidates(tmp_path / "run" / "candidates.csv")
    assert [(pair.ref_id, pair.score) for pair in candidates] == [
        (item["ref_id"], item["score"])  # type: ignore[index]
        for item in answer["candidates"]  # type: ignore[attr-defined]
    ]
    matches = read_matches(tmp_path / "run" / "matches.csv")
    assert matches[0].ref_id == "N3"
    for match, item in zip(matches, answer["matches"], strict=True):  # type: ignore[call-overload]
        assert {key: value for key, value in vars(match).items() if key != "query_id"}.items() <= item.items()
        assert item["path"] == str(catalogue.norm_set / f"{match.ref_id}.mp4")


def test_the_same_bytes_are_named_and_scripts_get_an_exit_status(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    folder, other = tmp_path / "catalogue", tmp_path / "other.mp4"
    run_cli("catalog", "create", folder, "--engines", tiny_engines)
    run_cli("catalog", "add", folder, catalogue.norm_set)
    shutil.copy(catalogue.norm_set / "N3.mp4", other)
    page = tmp_path / "report.html"
    result = run_cli("catalog", "match", folder, other, "--exit-code", "--report", page, expect=0)
    assert f"other: copy, the same bytes as {catalogue.norm_set / 'N3.mp4'}" in result.stderr
    answer, _ = documents(result.stdout)
    assert page.read_text(encoding="utf-8").count("other.mp4") > 0
    assert answer["duplicates"] == [{"ref_id": "N3", "path": str(catalogue.norm_set / "N3.mp4")}]
    assert {item["verdict"] for item in answer["candidates"]} <= {"copy", "review"}  # type: ignore[attr-defined]
    run_cli("catalog", "remove", folder, *(f"N{number}" for number in range(6)))
    result = run_cli("catalog", "match", folder, other, "--exit-code", expect=11)
    assert documents(result.stdout)[0]["verdict"] == "no match"


def test_sampling_belongs_to_the_catalogue(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    """Rows of key frames and of all frames are not of one kind: a store of the other is refused."""
    folder, store, engines = tmp_path / "catalogue", tmp_path / "store", ["--engines", tiny_engines]
    run_cli("catalog", "create", folder, *engines, "--sampling", "keyframes", "--max-pixels", "100000")
    preset = Catalog.open(folder).manifest.preset
    assert (preset.sampling.frames, preset.decoding.max_pixels) == ("keyframes", 100_000)
    video = catalogue.references / "R0.mp4"
    run_cli("extract", video, "--role", "reference", "--output", store, *engines)
    assert "different are settings" in run_cli("catalog", "add", folder, store, expect=1).stderr
    run_cli("extract", video, "--role", "reference", "--output", tmp_path / "keys", *engines, "--sampling", "keyframes")
    assert "1 added" in run_cli("catalog", "add", folder, tmp_path / "keys").stderr


def test_what_a_catalogue_holds_and_what_is_taken_out(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    folder = tmp_path / "catalogue"
    run_cli("catalog", "create", folder, "--engines", tiny_engines, process=True)
    run_cli("catalog", "add", folder, catalogue.references)
    run_cli("catalog", "remove", folder, "R0", "R1")
    listed = documents(run_cli("catalog", "list", folder).stdout)
    assert [item["video_id"] for item in listed] == ["R2", "R3", "R4", "R5"]
    (info,) = documents(run_cli("catalog", "info", folder).stdout)
    assert (info["num_videos"], info["num_rows"]) == (4, 36)
    (verified,) = documents(run_cli("catalog", "verify", folder).stdout)
    assert verified == {"num_videos": 4, "num_rows": 36, "num_orphan_rows": 0, "problems": []}


def test_bad_input_is_one_line_and_costs_no_other_its_result(
    catalogue: Catalogue, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    folder, uploads = tmp_path / "catalogue", tmp_path / "uploads"
    result = run_cli("catalog", "info", folder, expect=1)
    assert result.stderr.startswith(f"vsc-engine: {folder} is not a catalogue")
    assert result.stderr.count("\n") == 1
    run_cli("catalog", "create", folder, "--engines", tiny_engines)
    uploads.mkdir()
    (uploads / "empty.mp4").write_bytes(b"")
    write_video(uploads / "good.mp4", footage(100, num_seconds=3), fps=FPS)
    result = run_cli("catalog", "add", folder, uploads, expect=3)
    assert "failed: empty" in result.stderr
    assert documents(result.stdout)[-1] == {
        "catalog": str(folder), "added": 1, "replaced": 0, "kept": 0, "num_failures": 1, "num_known_failures": 0
    }  # fmt: skip
    assert "the file is empty" in (folder / "failures.csv").read_text()
    result = run_cli("catalog", "match", folder, uploads, expect=3)
    first, second, last = documents(result.stdout)
    assert first["error"] == f"{uploads / 'empty.mp4'}: the file is empty"
    assert second["candidates"]
    assert last["num_failures"] == 1
    assert "Traceback" not in result.stderr
    (tmp_path / "list.txt").write_text(f"{uploads / 'good.mp4'}\n{uploads / 'gone.mp4'}\n")
    (tmp_path / "nothing").mkdir()
    result = run_cli("catalog", "match", folder, f"@{tmp_path / 'list.txt'}", tmp_path / "nothing", expect=3)
    first, second, last = documents(result.stdout)
    assert first == {"query_id": "gone", "path": str(uploads / "gone.mp4"), "error": "No such file or directory"}
    assert second["candidates"]
    assert (last["num_uploads"], last["num_failures"]) == (2, 1)
    assert f"{tmp_path / 'nothing'}: no videos there" in result.stderr
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "good.mp4", footage(101, num_seconds=3), fps=FPS)
    result = run_cli("catalog", "add", folder, tmp_path / "other", expect=3)
    assert "failed: good (add): the id 'good' is that of" in result.stderr
    result = run_cli("catalog", "remove", folder, "nobody", expect=1)
    assert "has no video 'nobody'" in result.stderr


BEFORE = [video(f"v{n}", 9) for n in range(4)]
AFTER = [video("v0", 9), *(video(f"v{n}", 12, seed=1) for n in (1, 2)), *(video(f"n{n}", 9) for n in range(4))]
Contents = dict[str, tuple[str, int, bytes]]


def started(tmp_path: Path, engines: Path, name: str, *, rows_at: str | None) -> tuple[Path, Path]:
    """A catalogue with the videos of `BEFORE`, and a file at their place with those of `AFTER`."""
    folder, source = tmp_path / name, tmp_path / f"{name}.npz"
    Catalog.create(folder, engines=engines, milvus=rows_at).add([npz(source, *BEFORE)])
    return folder, npz(source, *AFTER)


def assert_whole(folder: Path, *states: list[Descriptors]) -> Contents:
    """Every video that is there is as in one of the states, with all its rows, and can be matched."""
    catalog = Catalog.open(folder)
    assert catalog.verify().problems == ()
    found = contents(catalog)
    known = {(item.video_id, item.descriptors.tobytes()) for state in states for item in state}
    assert {(video_id, rows) for video_id, (_, _, rows) in found.items()} <= known
    if found:
        assert catalog.match_descriptors(video("q")).candidates
    return found


@pytest.mark.long
def test_an_add_that_is_killed_after_any_operation_goes_on(
    tiny_engines: Path, tmp_path: Path, rows_at: str | None
) -> None:
    folder, source = started(tmp_path, tiny_engines, "whole", rows_at=rows_at)
    writer = write(folder, "add", [source])
    assert writer.said.recv() == "open"
    num_operations = writer.said.recv()
    assert writer.process.wait() == 0
    assert num_operations > 6
    expected = assert_whole(folder, BEFORE, AFTER)
    assert {video_id: rows for video_id, (_, _, rows) in expected.items()} == {
        item.video_id: item.descriptors.tobytes() for item in (*BEFORE, *AFTER)
    }
    seen = set()
    for kill_after in range(1, num_operations + 1):
        folder, source = started(tmp_path, tiny_engines, f"killed_{kill_after}", rows_at=rows_at)
        assert write(folder, "add", [source], kill_after=kill_after).process.wait() == -signal.SIGKILL
        found = assert_whole(folder, BEFORE, AFTER)
        assert {item.video_id for item in BEFORE} <= found.keys()
        seen.add(len(found))
        resumed = Catalog.open(folder)
        resumed.add([source])
        assert contents(resumed) == expected
        assert resumed.verify().num_orphan_rows == 0
    assert len(seen) > 2  # some kills came before the first commit, some between two


def test_a_remove_that_is_killed_after_any_operation_took_all_or_none(
    tiny_engines: Path, tmp_path: Path, rows_at: str | None
) -> None:
    num_before = 0 if rows_at is None else 1  # a property of the collection is changed first
    for kill_after in range(1, 3 + num_before):
        folder, _ = started(tmp_path, tiny_engines, f"killed_{kill_after}", rows_at=rows_at)
        assert write(folder, "remove", ["v1", "v3"], kill_after=kill_after).process.wait() == -signal.SIGKILL
        gone = {"v1", "v3"} if kill_after > num_before else set()
        assert assert_whole(folder, BEFORE).keys() == {"v0", "v1", "v2", "v3"} - gone
        catalog = Catalog.open(folder)
        catalog.remove(["v0"])
        assert catalog.verify().num_orphan_rows == 0
        assert {item.video_id for item in catalog.list()} == {"v1", "v2", "v3"} - gone


@pytest.mark.parametrize("seed", range(6))
def test_an_add_that_is_killed_at_any_moment_goes_on(
    tiny_engines: Path, tmp_path: Path, seed: int, rows_at: str | None
) -> None:
    folder, source = started(tmp_path, tiny_engines, "killed", rows_at=rows_at)
    writer = write(folder, "add", [source])
    assert writer.said.recv() == "open"
    time.sleep(np.random.default_rng(seed).uniform(0, 0.3))
    writer.process.kill()
    writer.process.wait()
    assert_whole(folder, BEFORE, AFTER)
    resumed = Catalog.open(folder)
    resumed.add([source])
    rows = {video_id: rows for video_id, (_, _, rows) in contents(resumed).items()}
    assert rows == {item.video_id: item.descriptors.tobytes() for item in (*BEFORE, *AFTER)}
    assert resumed.verify().num_orphan_rows == 0
