"""The benchmark of extraction counts what was described, and leaves out what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import bench_extract
from benchmarks.builds import Build
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.records import Media
from tests.conftest import REPOSITORY
from tests.videos import moving_frames, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "v.mp4", moving_frames(75))
    return tmp_path / "v.mp4"


def test_the_pictures_of_a_description_are_counted(tiny_engines: Path, video: Path) -> None:
    media = Media("v", video)
    with Engine.open(tiny_engines, num_threads=1) as engine:
        assert bench_extract._num_pictures(engine, media, "reference") == 3
        assert bench_extract._num_pictures(engine, media, "query") >= 3
        described = engine.describe(media, role="reference")
    assert not hasattr(described, "reason")


def test_what_is_reported(tiny_engines: Path, video: Path) -> None:
    arguments = [str(video), "--engines", str(tiny_engines), "--repeats", "1", "--max-gap-s", "5"]
    done = CliRunner().invoke(bench_extract.app, arguments)
    assert done.exit_code == 0, done.output
    (measured,) = json.loads(done.stdout.splitlines()[-1])["videos"]
    assert measured["duration_s"] == 3.0
    names = list(measured["cpu_s"])
    assert names[:3] == ["decode all frames", "decode non-reference frames left out", "decode key frames"]
    assert "infer 3 pictures of a reference, all" in names
    assert "infer 1 pictures of a reference, keyframes" in names
    assert "1 key frames, up to 3.0 s apart" in done.stdout


def test_other_engines_and_checkouts_stand_beside(tiny_engines: Path, video: Path, tmp_path: Path) -> None:
    arguments = [str(video), "--engines", str(tiny_engines), "--repeats", "1", "--cache", str(tmp_path / "cache")]
    arguments += ["--build", f"same={tiny_engines}", "--build", f"main={REPOSITORY}"]
    done = CliRunner().invoke(bench_extract.app, arguments)
    assert done.exit_code == 0, done.output
    (measured,) = json.loads(done.stdout.splitlines()[-1])["videos"]
    assert {"engine, query, all", "same, query, keyframes", "main, query, all", "main, reference, all"} <= {
        name for name, seconds in measured["cpu_s"].items() if seconds > 0
    }
    assert (tmp_path / "cache" / "main").is_dir()


def test_a_checkout_that_fails_is_told(tmp_path: Path) -> None:
    build = Build("main", REPOSITORY)
    with bench_extract.open_checkout(build, cache=tmp_path) as describe, pytest.raises(ConfigError) as error:
        describe("query", tmp_path / "gone.mp4")
    assert "build main does not describe" in str(error.value)


def test_a_python_without_vpdq_is_told(tiny_engines: Path, video: Path) -> None:
    arguments = [str(video), "--engines", str(tiny_engines), "--vpdq", sys.executable]
    done = CliRunner().invoke(bench_extract.app, arguments)
    assert done.exit_code == 1
    assert "ModuleNotFoundError: No module named 'vpdq'" in done.stderr
