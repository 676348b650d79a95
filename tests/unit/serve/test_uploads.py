"""The folder of a service: for one service, without leftovers, and with nothing of others in its hands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.serve.refusals import Refused
from engine.serve.uploads import MAX_REPORTS, UploadFolder


def test_an_upload_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    with UploadFolder.open(tmp_path / "uploads") as folder:
        with folder.incoming("clip.MP4") as path:
            path.write_bytes(b"x")
            assert path.suffix == ".MP4"
        with pytest.raises(ZeroDivisionError), folder.incoming("clip.mp4") as path:
            path.write_bytes(bytes(1 // 0))
        assert list(folder.incoming_folder.iterdir()) == []


@pytest.mark.parametrize("name", ["clip", "clip.../../x", "clip.mp4 x", "clip." + "x" * 300, "clip.\0", ".."])
def test_names_of_clients_are_no_paths(name: str, tmp_path: Path) -> None:
    with UploadFolder.open(tmp_path / "uploads") as folder, folder.incoming(name) as path:
        assert path.name == "upload"
        assert path.parent.parent == folder.incoming_folder


def test_what_a_killed_service_left_is_removed_and_what_it_kept_is_not(tmp_path: Path) -> None:
    for name in ("incoming/x/upload.mp4", "videos/kept.mp4", "reports/page.html", "reports/.page.html.1.aside"):
        path = tmp_path / "uploads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with UploadFolder.open(tmp_path / "uploads"):
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["uploads/.lock", "uploads/reports/page.html", "uploads/videos/kept.mp4"]


def test_one_service_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    with UploadFolder.open(folder), pytest.raises(ConfigError, match="another service uses"), UploadFolder.open(folder):
        pass
    with UploadFolder.open(tmp_path / "uploads"):
        pass


@pytest.mark.parametrize("video_id", ["clip", "../../x", "a/b/ünïcode", "." * 80, "x" * 500])
def test_a_kept_file_lies_where_its_id_says_and_only_such_a_file_is_forgotten(video_id: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(b"mine")
    with UploadFolder.open(tmp_path / "uploads") as folder, folder.incoming("x.mp4") as path:
        path.write_bytes(b"theirs")
        kept = folder.keep(path, video_id)
        assert kept.parent == tmp_path / "uploads" / "videos"
        assert kept.read_bytes() == b"theirs"
        folder.forget(kept)
        folder.forget(mine)
    assert not kept.exists()
    assert mine.exists()


def test_ids_that_look_alike_have_files_of_their_own(tmp_path: Path) -> None:
    with UploadFolder.open(tmp_path / "uploads") as folder:
        kept = set()
        for video_id in ("a/b", "a_b", "a b"):
            with folder.incoming("x.mp4") as path:
                path.write_bytes(video_id.encode())
                kept.add(folder.keep(path, video_id))
        assert len(kept) == 3


def test_the_newest_reports_are_kept(tmp_path: Path) -> None:
    with UploadFolder.open(tmp_path / "uploads") as folder:
        tokens = []
        for number in range(MAX_REPORTS + 3):
            token, page = folder.new_report()
            page.write_text("page")
            os.utime(page, (number, number))
            tokens.append(token)
        for token in tokens[:3]:
            with pytest.raises(Refused, match="no such report"):
                folder.report(token)
        assert folder.report(tokens[3]).read_text() == "page"
        with pytest.raises(Refused):
            folder.report("../../.lock")
