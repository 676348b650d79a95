from __future__ import annotations

from pathlib import Path

import pytest

from engine.files import written_aside


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
