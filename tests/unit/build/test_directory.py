"""Files of an engines directory: whole or absent, found again, and gone when out of use."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.build.directory import open_build_directory
from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import FileRecord, Manifest
from tests.conftest import REPOSITORY
from tests.manifests import make_manifest

STEM = f"graphs/ensemble-{'1' * 16}"
SUFFIXES = (".onnx", ".onnx.data")


def write(path: Path) -> None:
    path.write_text("main")
    path.with_suffix(".onnx.data").write_text("data")


def refuse(path: Path) -> None:
    raise AssertionError(f"{path} was made again")


def obtain(folder: Path, make: Callable[[Path], None], *, lines: list[str] | None = None) -> tuple[FileRecord, ...]:
    progress = [].append if lines is None else lines.append
    with open_build_directory(folder, progress=progress) as directory:
        return directory.obtain(STEM, SUFFIXES, step="ensemble: export", make=make)


def manifest_with(folder: Path, files: tuple[FileRecord, ...]) -> Manifest:
    graph = make_manifest(folder).graphs["ensemble"].model_copy(update={"files": files})
    return make_manifest(folder, graphs={"ensemble": graph})


def commit(folder: Path, manifest: Manifest) -> Manifest:
    with open_build_directory(folder, progress=print) as directory:
        return directory.commit(manifest)


def test_files_are_made_once_and_found_again(tmp_path: Path) -> None:
    lines: list[str] = []
    made = obtain(tmp_path / "new" / "engines", write, lines=lines)
    assert [record.path for record in made] == [STEM + suffix for suffix in SUFFIXES]
    assert (tmp_path / "new" / "engines" / made[1].path).read_text() == "data"
    assert obtain(tmp_path / "new" / "engines", refuse, lines=lines) == made
    assert lines[0] == "ensemble: export ..."
    assert lines[1].startswith("ensemble: export: ")
    assert lines[1].endswith(" s")
    assert lines[2:] == ["ensemble: export: already done"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_made_again(tmp_path: Path, suffix: str) -> None:
    made = obtain(tmp_path, write)
    (tmp_path / (STEM + suffix)).unlink()
    assert obtain(tmp_path, write) == made


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_differs_from_the_manifest_is_made_again(tmp_path: Path, suffix: str) -> None:
    made = obtain(tmp_path, write)
    commit(tmp_path, manifest_with(tmp_path, made))
    (tmp_path / (STEM + suffix)).write_text("mail")
    assert obtain(tmp_path, write) == made


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        write(path)
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        obtain(tmp_path, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.build.test_directory import obtain, write

def make(path):
    write(path)
    os.kill(os.getpid(), signal.SIGKILL)

obtain(Path(sys.argv[1]), make)
"""


def test_what_a_killed_process_left_is_not_taken_for_finished_and_is_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / ".building" / Path(STEM).with_suffix(".onnx").name).exists()
    assert obtain(tmp_path, write)
    assert not (tmp_path / ".building").exists()


def test_killed_between_two_files_counts_as_missing(tmp_path: Path) -> None:
    made = obtain(tmp_path, write)
    (tmp_path / made[0].path).unlink()  # the main file comes last
    lines: list[str] = []
    obtain(tmp_path, write, lines=lines)
    assert lines[0] == "ensemble: export ..."


def test_commit_removes_what_the_manifest_does_not_name_and_nothing_of_others(tmp_path: Path) -> None:
    made = obtain(tmp_path, write)
    stale = [tmp_path / f"pca-{'2' * 16}.npz", tmp_path / "openvino" / f"ensemble-{'3' * 16}.xml"]
    others = [
        tmp_path / "notes.txt",
        tmp_path / "graphs" / "ensemble.onnx",
        tmp_path / "openvino" / "a" / stale[0].name,
    ]
    for path in (*stale, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    manifest = manifest_with(tmp_path, made)
    assert commit(tmp_path, manifest) == manifest == EnginesDirectory.open(tmp_path).manifest
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in others)
    assert all((tmp_path / record.path).exists() for record in made)


def test_a_manifest_that_only_says_another_time_is_not_written(tmp_path: Path) -> None:
    first = commit(tmp_path, make_manifest(tmp_path))
    again = commit(tmp_path, make_manifest(tmp_path, created="2030-01-01T00:00:00+00:00"))
    assert again == first == EnginesDirectory.open(tmp_path).manifest


def test_intact_paths_refuses_damage(tmp_path: Path) -> None:
    made = obtain(tmp_path, write)
    with open_build_directory(tmp_path, progress=print) as directory:
        assert directory.intact_paths(made) == [tmp_path / record.path for record in made]
        (tmp_path / made[1].path).write_text("dataa")
        with pytest.raises(ConfigError, match=r"\.onnx\.data is missing or damaged; build the engines again"):
            directory.intact_paths(made)


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    lines: list[str] = []
    waits = threading.Event()

    def progress(line: str) -> None:
        lines.append(line)
        waits.set()

    def second() -> None:
        with open_build_directory(tmp_path, progress=progress):
            lines.append("entered")

    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
        assert lines == [f"waiting for another build in {tmp_path}"]
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join(60)
    assert lines[1:] == ["entered"]


def test_a_place_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot write engines to .*file"),
        open_build_directory(tmp_path / "file", progress=print),
    ):
        pass
