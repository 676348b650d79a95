from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.files import exclusive, load_arrays, save_arrays, written_aside


def test_replaces_the_file_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    for text in ("first", "second"):
        with written_aside(path) as aside:
            aside.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def interrupted_writer() -> None:
        with written_aside(path) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_writer()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_keeps_the_permissions_that_new_files_get(tmp_path: Path) -> None:
    with written_aside(tmp_path / "a") as aside:
        aside.write_text("a")
    (tmp_path / "b").write_text("b")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_lock_is_held_against_other_processes_and_can_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    script = (
        "import sys, pathlib; from engine.files import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=r"\.lock"), exclusive(path):
            pass
        waited = []

        def let_go() -> None:
            waited.append(True)
            holder.stdin.close()

        with exclusive(path, on_wait=let_go):
            assert waited == [True]
    with exclusive(path):
        assert path.is_file()


def test_round_trip_is_exact_and_repeatable(tmp_path: Path) -> None:
    arrays = {
        "ids": np.array(["a", "übung"]),
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "flag": np.array(True),
    }
    save_arrays(tmp_path / "a.npz", arrays)
    save_arrays(tmp_path / "b.npz", arrays)
    loaded = load_arrays(tmp_path / "a.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_object_arrays_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", good=np.zeros(2), video_ids=np.array(["a", 1], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: array 'video_ids' holds Python objects.*dtype 'U'"):
        load_arrays(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save_arrays(tmp_path / "b.npz", {"ids": np.array([None])})
    assert not (tmp_path / "b.npz").exists()


def test_other_files_fail(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_arrays(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("mean,components\n")
    with pytest.raises(ValueError, match=r"not a NumPy \.npz archive"):
        load_arrays(tmp_path / "text.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"not a NumPy \.npz archive"):
        load_arrays(tmp_path / "single.npy")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_fail(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, rows=np.random.default_rng(0).random(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        load_arrays(path)
    path.write_bytes(whole[:4000] + bytes(16) + whole[4016:])
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        load_arrays(path)


class TestFoldersThatCannotBeFlushed:
    """Some network and FUSE mounts answer EINVAL to ``fsync`` of a folder; none can be made here, so the call is."""

    @staticmethod
    def answer(monkeypatch: pytest.MonkeyPatch, number: int, *, to_folders: bool) -> None:
        fsync = os.fsync

        def failing(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) == to_folders:
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_they_hold_files_all_the_same(self, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer(monkeypatch, number, to_folders=True)
        with written_aside(tmp_path / "a.csv") as aside:
            aside.write_text("whole")
        assert (tmp_path / "a.csv").read_text() == "whole"

    @pytest.mark.parametrize(("number", "to_folders"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False)])
    def test_other_errors_and_those_of_files_count(
        self, tmp_path: Path, number: int, to_folders: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.answer(monkeypatch, number, to_folders=to_folders)
        with pytest.raises(OSError, match=os.strerror(number)), written_aside(tmp_path / "a.csv") as aside:
            aside.write_text("whole")
