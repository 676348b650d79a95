"""The package as it is handed over: built as a wheel, installed without the checkout, used from another folder."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.version import __version__
from tests.conftest import REPOSITORY, MakeOnce
from tests.end_to_end.conftest import FPS, footage
from tests.videos import write_video

MAX_BYTES = 25_000_000
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
NOT_IN_PACKAGES = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"}


@pytest.fixture(scope="module")
def wheel(make_once: MakeOnce) -> Path:
    def build(folder: Path) -> None:
        source = folder / "source"
        for package in ("engine", "training"):
            shutil.copytree(REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in (*NOT_IN_PACKAGES, "build_engines.py"):
            shutil.copyfile(REPOSITORY / name, source / name)
        given = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
        subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)

    (built,) = make_once("wheel", build).glob("vsc_engine-*.whl")
    return built


def test_it_carries_all_of_the_packages_and_is_small(wheel: Path) -> None:
    given = set(json.loads((wheel.parent / "given.json").read_text(encoding="utf-8")))
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
    assert {"engine/py.typed", "engine/weights/lite/manifest.json", "engine/presets/lite.toml"} <= given
    assert given - NOT_IN_PACKAGES <= carried
    assert wheel.stat().st_size < MAX_BYTES


def test_it_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        facts = email.message_from_bytes(archive.read(name))
    assert (facts["Name"], facts["Version"]) == ("vsc-engine", __version__)
    assert (facts["License-Expression"], facts["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert all(facts[field] for field in ("Summary", "Author", "Keywords", "Description-Content-Type"))
    assert {"Typing :: Typed", "Topic :: Multimedia :: Video"} <= set(facts.get_all("Classifier", []))
    assert {"cpu", "gpu", "catalog", "build", "train", "docs", "dev"} <= set(facts.get_all("Provides-Extra", []))


def test_it_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    subprocess.run([*PIP, "install", "--no-deps", "--target", target, wheel], check=True)
    for side, seed in (("queries", 1), ("references", 1), ("references", 2)):
        (elsewhere / side).mkdir(parents=True, exist_ok=True)
        write_video(elsewhere / side / f"{side[0]}{seed}.mp4", footage(seed, num_seconds=5), fps=FPS)
    environment = {**os.environ, "PYTHONPATH": str(target), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def said(*command: str | Path) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    home = said(sys.executable, "-c", "import engine; print(engine.__file__)")
    assert Path(home.strip()).is_relative_to(target)
    program = target / "bin" / "vsc-engine"
    assert said(program, "--version") == f"vsc-engine {__version__}\n"
    said(program, "build", "--preset", "lite", "--output", "engines")
    sides = ["--queries", "queries", "--references", "references"]
    figures = json.loads(said(program, "run", *sides, "--engines", "engines", "--output", "out").splitlines()[-1])
    assert (figures["num_queries"], figures["num_references"], figures["num_failures"]) == (1, 2, 0)
    best = (elsewhere / "out" / "candidates.csv").read_text(encoding="utf-8").splitlines()[1]
    assert best.startswith("q1,r1,")
