"""What a folder holds: found, passed over or a failure, each counted."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from engine.errors import ConfigError, RemoteError
from engine.records import Media
from engine.storage.location import RemotePath, WebAccess
from engine.video import discovery
from engine.video.container import holds_video
from engine.video.discovery import OTHER_SUFFIXES, VIDEO_SUFFIXES, Discovery, discover, find_videos
from tests.object_store import Failure, ObjectStore
from tests.videos import moving_frames, write_video


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")


def ids(discovery: Discovery) -> list[str]:
    return [media.video_id for media in discovery.media]


def holds_video_or_ends(path: Path) -> bool:
    """What a library does with content that it cannot cope with."""
    if path.stem == "hangs":
        time.sleep(600)
    if path.stem == "crashes":
        os.abort()
    return holds_video(path)


class TestPaths:
    def test_files_are_taken_as_they_are_and_folders_are_listed(self, tmp_path: Path) -> None:
        touch(
            tmp_path / "Q3.txt", tmp_path / "in" / "Q2.MKV", tmp_path / "in" / "Q1.mp4", tmp_path / "in" / "notes.txt"
        )
        assert find_videos([tmp_path / "Q3.txt", tmp_path / "in"]) == [
            Media("Q1", tmp_path / "in" / "Q1.mp4"),
            Media("Q2", tmp_path / "in" / "Q2.MKV"),
            Media("Q3", tmp_path / "Q3.txt"),
        ]

    @pytest.mark.parametrize(
        ("name", "video_id"),
        [
            ("zwei Wörter.mp4", "zwei Wörter"),
            ("视频.webm", "视频"),
            ("a.b.c.ts", "a.b.c"),
            ("x", "x"),
            (".x.mp4", ".x"),
        ],
    )
    def test_the_id_is_the_name_without_its_last_suffix(self, tmp_path: Path, name: str, video_id: str) -> None:
        touch(tmp_path / name)
        assert find_videos([tmp_path / name]) == [Media(video_id, tmp_path / name)]

    def test_what_is_reached_twice_counts_once(self, tmp_path: Path) -> None:
        touch(tmp_path / "Q1.mp4", tmp_path / "in" / "Q2.mp4")
        again = [tmp_path / "Q1.mp4", tmp_path / "." / "Q1.mp4", tmp_path / "in", tmp_path]
        assert ids(discover([tmp_path, *again])) == ["Q1", "in/Q2"]

    def test_two_files_with_one_id_fail(self, tmp_path: Path) -> None:
        touch(tmp_path / "a" / "Q1.mp4", tmp_path / "a" / "Q1.webm", tmp_path / "b" / "Q1.mp4")
        with pytest.raises(
            ConfigError, match=r"a/Q1\.mp4 and .*a/Q1\.webm have the same video id, 'Q1'; rename one of them$"
        ):
            discover([tmp_path / "a"])
        with pytest.raises(
            ConfigError, match=r"a/Q1\.mp4 and .*b/Q1\.mp4 have .*, 'Q1'; rename one of them, or give one folder above"
        ):
            discover([tmp_path / "a" / "Q1.mp4", tmp_path / "b"])

    def test_a_missing_path_fails(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nowhere: no such file or directory"):
            discover([tmp_path / "nowhere"])

    def test_a_folder_without_videos_fails_and_says_what_it_holds(self, tmp_path: Path) -> None:
        touch(tmp_path / "notes.txt", tmp_path / ".a.mp4")
        with pytest.raises(ConfigError, match=r"no videos at .*1 x hidden; 1 x no video by suffix \(\.txt 1\)"):
            discover([tmp_path])

    def test_a_name_that_is_not_utf8_has_escapes_in_its_id(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9.mp4")
        touch(tmp_path / name)
        assert find_videos([tmp_path]) == [Media("caf\\xe9", tmp_path / name)]

    def test_a_name_keeps_its_unicode_form(self, tmp_path: Path) -> None:
        name = unicodedata.normalize("NFD", "é")
        touch(tmp_path / f"{name}.mp4")
        assert ids(discover([tmp_path])) == [name]


class TestFolders:
    def test_sub_folders_are_part_of_the_id(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "s1" / "a.mp4", tmp_path / "s2" / "deep.er" / "a.b.mp4")
        assert ids(discover([tmp_path])) == ["a", "s1/a", "s2/deep.er/a.b"]

    def test_only_the_folder_itself_without_recursion(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "s1" / "b.mp4")
        found = discover([tmp_path], is_recursive=False)
        assert (ids(found), found.passed_over) == (["a"], {"sub-folder": 1})

    def test_hidden_files_and_folders_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "._a.mp4", tmp_path / ".Trashes" / "b.mp4")
        found = discover([tmp_path])
        assert (ids(found), found.passed_over, found.failures) == (["a"], {"hidden": 2}, ())

    def test_what_has_no_known_suffix_is_taken_if_its_content_is_a_video(self, tmp_path: Path) -> None:
        write_video(tmp_path / "plain.mp4", moving_frames(5))
        for name in ("plain", "tape.dat", "old.xyz"):
            (tmp_path / name).write_bytes((tmp_path / "plain.mp4").read_bytes())
        (tmp_path / "plain.mp4").unlink()
        touch(tmp_path / "other.dat", tmp_path / "README")
        (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile tape.dat\n")
        found = discover([tmp_path])
        assert ids(found) == ["old", "plain", "tape"]
        assert found.passed_over == {"no video by content": 3}

    def test_what_was_passed_over_is_said_once_for_a_kind(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "b.JPG", tmp_path / "c.jpg", tmp_path / "d.srt", tmp_path / ".e")
        with caplog.at_level(logging.INFO, logger="engine"):
            discover([tmp_path])
        assert caplog.messages == [f"{tmp_path}: passed over 1 x hidden; 3 x no video by suffix (.jpg 2, .srt 1)"]

    def test_links_that_lead_nowhere_are_failures(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        touch(tmp_path / "a.mp4")
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "b.mp4").symlink_to("gone.mp4")
        (tmp_path / "round.mp4").symlink_to("round.mp4")
        (tmp_path / "notes.txt").symlink_to("gone.txt")
        found = discover([tmp_path])
        assert ids(found) == ["a"]
        assert {failure.video_id: failure.reason for failure in found.failures} == {
            "s/b": "No such file or directory (a link to gone.mp4)",
            "round": "Too many levels of symbolic links (a link to round.mp4)",
        }
        assert all(failure.stage == "find" for failure in found.failures)
        assert "failed: s/b (find): No such file" in caplog.text

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        touch(tmp_path / "in" / "b" / "a.mp4", tmp_path / "else" / "c.mp4")
        (tmp_path / "in" / "a").symlink_to("b")
        (tmp_path / "in" / "b" / "up").symlink_to("..")
        (tmp_path / "in" / "out").symlink_to(tmp_path / "else")
        (tmp_path / "in" / "copy.mp4").symlink_to("b/a.mp4")
        found = discover([tmp_path / "in"])
        assert ids(found) == ["b/a", "copy", "out/c"]
        assert found.passed_over == {"folder reached before": 2}

    def test_program_texts_with_the_suffix_of_a_video_are_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "app.ts").write_text("export const title: string = 'Übersicht';\n" + "é" * 5000, encoding="utf-8")
        (tmp_path / "lib.MTS").write_text("export default 1;\n", encoding="utf-8")
        (tmp_path / "damaged.ts").write_bytes(b"\x47\x40\x11\x10\x00" + b"\xff" * 183)
        (tmp_path / "empty.ts").touch()
        found = discover([tmp_path])
        assert ids(found) == ["damaged", "empty"]
        assert found.passed_over == {"no video by content": 2}

    def test_a_file_that_hangs_its_probe_is_a_failure_and_costs_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_video(tmp_path / "a.mp4", moving_frames(3), fps=10)
        (tmp_path / "a.mp4").rename(tmp_path / "a")
        (tmp_path / "hangs.odd").write_bytes(b"-")
        (tmp_path / "crashes.odd").write_bytes(b"-")
        monkeypatch.setattr(discovery, "holds_video", holds_video_or_ends)
        monkeypatch.setattr(discovery, "_PROBE_LIMIT_S", 5.0)
        found = discover([tmp_path])
        assert ids(found) == ["a"]
        assert [(failure.video_id, failure.stage, failure.reason) for failure in found.failures] == [
            ("crashes", "find", "probing it failed: its process was ended by SIGABRT"),
            ("hangs", "find", "probing it failed: took longer than the limit of 5 s"),
        ]

    def test_what_is_no_regular_file_is_not_opened(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.mp4")
        os.mkfifo(tmp_path / "pipe.mp4")
        os.mkfifo(tmp_path / "pipe")
        found = discover([tmp_path])
        assert (ids(found), found.passed_over) == (["a"], {"no regular file": 2})

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_what_cannot_be_read_is_a_failure(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "closed" / "b.mp4", tmp_path / "barred" / "c.mp4", tmp_path / "tape.dat")
        (tmp_path / "closed").chmod(0)
        (tmp_path / "barred").chmod(0o400)  # its names can be read, and no more
        (tmp_path / "tape.dat").chmod(0)
        failures = discover([tmp_path]).failures
        for folder in ("closed", "barred"):
            (tmp_path / folder).chmod(0o700)
        assert {(failure.video_id, failure.reason) for failure in failures} == {
            ("closed", "Permission denied"),
            ("barred/c", "Permission denied"),
            ("tape", "Permission denied"),
        }

    def test_no_suffix_is_in_both_lists(self) -> None:
        assert not VIDEO_SUFFIXES & OTHER_SUFFIXES


class TestLists:
    def test_a_list_names_a_path_a_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "in" / "b.mp4", tmp_path / "@c.mp4", tmp_path / "@d.mp4")
        monkeypatch.chdir(tmp_path)
        Path("list.txt").write_bytes("\ufeffa.mp4\r\nin\n\n@c.mp4\n".encode())
        assert ids(discover([Path("@list.txt"), Path("@d.mp4")])) == ["@c", "@d", "a", "b"]

    def test_missing_files_of_a_list_are_failures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path / "a.mp4")
        monkeypatch.chdir(tmp_path)
        Path("list.txt").write_text("gone.mp4\na.mp4\n")
        found = discover([Path("@list.txt")])
        assert ids(found) == ["a"]
        assert [(failure.video_id, failure.reason) for failure in found.failures] == [
            ("gone", "No such file or directory")
        ]

    def test_stdin_may_name_any_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ["a\nb.mp4", "c\r.mp4", os.fsdecode(b"\xff.mp4")]
        touch(*(tmp_path / name for name in names))
        content = b"\0".join(os.fsencode(tmp_path / name) for name in names)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert ids(discover([Path("-")])) == ["\\xff", "a\nb", "c\r"]

    def test_a_list_that_is_not_there_fails(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read .*list\.txt as a list of paths: No such file"):
            discover([Path(f"@{tmp_path}/list.txt")])


def test_a_prefix_is_a_folder_of_objects(object_store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    for key in ("b.mp4", "sub/a.webm", "sub/.hidden/c.mp4", "notes.txt", "no_suffix"):
        object_store.put(f"found/{key}", b"x")
    with caplog.at_level("INFO", logger="engine"):
        found = discover([object_store.path("found")])
    assert [(item.video_id, str(item.path)) for item in found.media] == [
        ("b", "s3://videos/found/b.mp4"),
        ("sub/a", "s3://videos/found/sub/a.webm"),
    ]
    assert found.passed_over == {"hidden": 1, "no video by suffix": 2}
    assert "s3://videos/found: passed over 1 x hidden; 2 x no video by suffix" in caplog.text
    flat = discover([object_store.path("found/")], is_recursive=False)
    assert [item.video_id for item in flat.media] == ["b"]
    one = discover([object_store.path("found/no_suffix")])
    assert [item.video_id for item in one.media] == ["no_suffix"]


def test_lists_may_name_objects_and_what_is_missing_fails_alone(object_store: ObjectStore, tmp_path: Path) -> None:
    object_store.put("listed_videos/a", b"x")
    urls = [f"s3://videos/listed_videos/{name}" for name in ("a", "none", "taken_unseen.mp4")]
    (tmp_path / "list.txt").write_text("\n".join([*urls, "https://host/b.mp4?sign=secret"]))
    found = discover([Path(f"@{tmp_path / 'list.txt'}")])
    assert [item.video_id for item in found.media] == ["a", "taken_unseen"]
    assert [(item.video_id, item.stage) for item in found.failures] == [("none", "find"), ("b", "find")]
    assert "no such object" in found.failures[0].reason
    assert "--allow-http" in found.failures[1].reason
    found = discover([Path(f"@{tmp_path / 'list.txt'}")], web=WebAccess())
    assert [item.video_id for item in found.media] == ["a", "b", "taken_unseen"]


def test_what_is_not_there_is_refused_at_once(object_store: ObjectStore) -> None:
    with pytest.raises(RemoteError, match=r"s3://videos/nowhere/x\.mp4: no such object, and none below it"):
        discover([object_store.path("nowhere/x.mp4")])
    object_store.failures["denied"] = Failure(403, "AccessDenied")
    with pytest.raises(RemoteError, match=r"s3://videos/denied.*: access is denied"):
        discover([object_store.path("denied/")])
    with pytest.raises(RemoteError, match=r"^https://host/x\.mp4: .*--allow-http"):
        discover([RemotePath("https://host/x.mp4?sign=secret")])
