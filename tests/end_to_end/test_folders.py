"""Folders as people have them: sub-folders, strange names, links, other files, lists in place of videos."""

from __future__ import annotations

import csv
import json
import os
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine import Engine
from engine.store.store import read_descriptors, read_manifest
from engine.store.tables import read_candidates, read_matches
from tests.conftest import REPOSITORY, MakeOnce
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.videos import write_video

OBEYED = "a\rb\x1b[31m"


@pytest.fixture(scope="module")
def video(make_once: MakeOnce) -> Path:
    def write(folder: Path) -> None:
        folder.mkdir()
        write_video(folder / "V.mp4", footage(7, num_seconds=6), fps=FPS)

    return make_once("one_video", write) / "V.mp4"


@pytest.fixture
def folder(video: Path, tmp_path: Path) -> Path:
    """Four videos, two that fail, a link to nothing, and what is none."""
    root = tmp_path / "videos"
    for name in ("a.mp4", "s1/a.mp4", "s1/deep/tape", os.fsdecode(b"caf\xe9.mkv")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)
    (root / "s1" / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n", encoding="utf-8")
    (root / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video")
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    (root / "._a.mp4").write_bytes(b"companion")
    (root / "notes.txt").write_bytes(b"notes")
    (root / "README").write_bytes(b"notes")
    return root


def ids(store: Path) -> list[str]:
    return [item.video_id for item in read_descriptors(store)]


def failures(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["video_id"]: row["stage"] for row in csv.DictReader(file)}


def test_a_folder_is_searched_and_what_is_left_out_is_said(
    folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    common = ["--engines", tiny_engines, "--role", "reference", "--output"]
    result = run_cli("extract", folder, *common, tmp_path / "all", expect=3)
    assert ids(tmp_path / "all") == ["a", "caf\\xe9", "s1/a", "s1/deep/tape"]
    assert failures(tmp_path / "all" / "failures.csv") == {"gone": "find", "bad\\xff": "open", "s1/list": "open"}
    assert "passed over 1 x hidden; 1 x no video by content (no suffix 1); 1 x no video by suffix (.txt 1)\n" in (
        result.stderr
    )
    assert len(read_manifest(tmp_path / "all").failures) == 2
    assert json.loads(result.stdout.splitlines()[-1])["num_failures"] == 3
    again = run_cli("extract", folder, *common, tmp_path / "all", expect=3)
    assert "0 described, 4 there already, 1 failed" in again.stderr
    assert "2 files are known to give nothing" in again.stderr

    run_cli("extract", folder, "--no-recursive", *common, tmp_path / "flat", expect=3)
    assert ids(tmp_path / "flat") == ["a", "caf\\xe9"]


def test_lists_of_paths(folder: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    common = ["--engines", tiny_engines, "--role", "reference", "--output"]
    (tmp_path / "list.txt").write_text("videos/a.mp4\nvideos/s1/deep\nvideos/nowhere.mp4\n", encoding="utf-8")
    run_cli("extract", "@list.txt", *common, tmp_path / "listed", expect=3, cwd=tmp_path)
    assert ids(tmp_path / "listed") == ["a", "tape"]
    assert failures(tmp_path / "listed" / "failures.csv") == {"nowhere": "find"}
    piped = {"input": "videos/a.mp4\n", "cwd": tmp_path, "env": environment()}
    run_cli("extract", "-", *common, tmp_path / "piped", **piped)
    assert ids(tmp_path / "piped") == ["a"]


def environment() -> dict[str, str]:
    """For a process in another folder: the package is where this one has it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}


def test_python_takes_one_path_as_text(folder: Path, tiny_engines: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Engine.open(tiny_engines) as engine:
        assert [item.video_id for item in engine.extract(str(folder / "s1"), role="reference")] == ["a", "deep/tape"]
        assert [(failure.video_id, failure.stage) for failure in engine.failures] == [("list", "open")]
        assert [item.video_id for item in engine.extract(folder, role="reference", is_recursive=False)] == [
            "a",
            "caf\\xe9",
        ]
        assert [failure.stage for failure in engine.failures[1:]] == ["find", "open"]
    assert "bad\\xff" in caplog.text.encode().decode()  # which a log file can hold


@pytest.fixture(scope="module")
def strange_run(
    video: Path, tiny_engines: Path, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run over names that a terminal would obey; and its stderr."""
    root = tmp_path_factory.mktemp("strange")
    for side in ("queries", "references", "norm_set"):
        (root / side).mkdir()
    shutil.copy(video, root / "queries" / f"{OBEYED}.mp4")
    shutil.copy(video, root / "references" / f"{OBEYED}.mp4")
    shutil.copy(video, root / "references" / f"{unicodedata.normalize('NFD', 'été')}.mp4")
    (root / "queries" / f"bad{OBEYED}.mp4").write_bytes(b"no video")
    (root / "references" / "gone.mp4").symlink_to("nowhere.mp4")
    write_video(root / "norm_set" / "N.mp4", footage(8, num_seconds=9), fps=FPS)
    sides = [f"--{side}={root / side.replace('-', '_')}" for side in ("queries", "references", "norm-set")]
    result = run_cli("run", *sides, "--engines", tiny_engines, "--output", root / "out", expect=3)
    return root / "out", result.stderr


def test_no_name_reaches_a_terminal_as_it_is(strange_run: tuple[Path, str]) -> None:
    _, stderr = strange_run
    assert "failed: bada\\rb\\x1b[31m (open): " in stderr
    assert "\x1b" not in stderr


def test_a_run_lists_what_folders_lack(strange_run: tuple[Path, str]) -> None:
    out, _ = strange_run
    assert failures(out / "failures.csv") == {"gone": "find", f"bad{OBEYED}": "open"}


def test_localize_reads_the_candidates_of_a_run(strange_run: tuple[Path, str], run_cli: RunCli, tmp_path: Path) -> None:
    out, _ = strange_run
    pairs = {(pair.query_id, pair.ref_id) for pair in read_candidates(out / "candidates.csv")}
    assert (OBEYED, OBEYED) in pairs
    sides: Sequence[str | Path] = ["--queries", out / "queries", "--references", out / "references"]
    result = run_cli("localize", *sides, "--candidates", out / "candidates.csv", "--output", tmp_path / "m.csv")
    assert f"warning: the rows of {out / 'references'} are not score-normalized" in result.stderr
    assert {(match.query_id, match.ref_id) for match in read_matches(tmp_path / "m.csv")} <= pairs


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_ground_truth_of_another_unicode_form(
    strange_run: tuple[Path, str], run_cli: RunCli, tmp_path: Path, form: str
) -> None:
    out, _ = strange_run
    with (tmp_path / "gt.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        table.writerows([["query_id", "ref_id"], [OBEYED, unicodedata.normalize(form, "été")], ["other", OBEYED]])
    result = run_cli("evaluate", "--candidates", out / "candidates.csv", "--ground-truth", tmp_path / "gt.csv")
    assert json.loads(result.stdout)["uap"] >= 0.25  # one of the two true pairs, first or second
    assert result.stderr == "1 of 2 queries of the ground truth are not among the candidates, such as 'other'\n"


def test_numbers_as_ids_are_read_as_the_challenge_does(run_cli: RunCli, tmp_path: Path) -> None:
    segment = "query_start,query_end,ref_start,ref_end"
    (tmp_path / "gt.csv").write_text(f"query_id,ref_id,{segment}\n1,2,0,5,0,5\n", encoding="utf-8")
    (tmp_path / "c.csv").write_text("query_id,ref_id,score\nQ000001,R000002,1\n", encoding="utf-8")
    (tmp_path / "m.csv").write_text(f"query_id,ref_id,{segment},score\nQ000001,R000002,0,5,0,5,1\n", encoding="utf-8")
    for option, table, figure in (("--candidates", "c.csv", "uap"), ("--matches", "m.csv", "segment_ap")):
        result = run_cli("evaluate", option, tmp_path / table, "--ground-truth", tmp_path / "gt.csv")
        assert json.loads(result.stdout)[figure] == 1.0
        assert result.stderr == ""


def test_names_that_are_not_utf8_are_written_in_one_way(trained_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    """The bytes E9 and E8 as the four characters `\\xe9` and `\\xe8`, in ids and paths, wherever they are told of."""
    folder = tmp_path / os.fsdecode(b"f\xe9")
    folder.mkdir()
    for name, seed in ((b"caf\xe9", 1), (b"caf\xe8", 2)):
        write_video(tmp_path / "plain.mp4", footage(seed, num_seconds=4), fps=FPS)
        (tmp_path / "plain.mp4").rename(folder / os.fsdecode(name + b".mp4"))
    (folder / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video")
    output, page = tmp_path / os.fsdecode(b"out\xe9"), tmp_path / os.fsdecode(b"page\xe9.html")
    said = [
        run_cli(*command, "--engines", trained_engines, expect=status)
        for command, status in (
            (("extract", folder, "--role", "reference", "--output", output / "store"), 3),
            (("dedup", folder, "--output", output), 3),
            (("run", "--queries", folder, "--references", folder, "--output", output / "run", "--report", page), 3),
            (("compare", *(folder / os.fsdecode(name) for name in (b"caf\xe9.mp4", b"bad\xff.mp4"))), 3),
        )
    ]
    said.append(run_cli("--log-format", "json", "evaluate", "--ground-truth", folder / "none", expect=1))
    tables = [path for path in output.rglob("*") if path.suffix in {".csv", ".json"}]
    assert len(tables) > 4
    texts = [page.read_text("utf-8"), *(path.read_text("utf-8") for path in tables if path.suffix == ".csv")]
    lines = [line for done in said for line in done.stdout.splitlines() if line.startswith("{")]
    texts += [json.dumps(json.loads(line), ensure_ascii=False) for line in lines]
    texts += [done.stderr for done in said]
    whole = "\n".join(texts).replace("\\\\", "\\")
    assert "\\xe9" in whole
    assert "udce9" not in whole
    assert "udcff" not in whole
    assert not any(0xD800 <= ord(character) <= 0xDFFF for character in whole)
    assert {item.video_id for item in read_descriptors(output / "store")} == {"caf\\xe9", "caf\\xe8"}
    with (output / "run" / "candidates.csv").open(encoding="utf-8") as file:
        assert {row["query_id"] for row in csv.DictReader(file)} == {"caf\\xe9", "caf\\xe8"}
