"""Copies within one collection on the command line; nothing of it is touched."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import pytest

from tests.conftest import MakeOnce
from tests.end_to_end.conftest import RunCli
from tests.photographs import FPS, slideshow
from tests.videos import write_video


@pytest.fixture(scope="module")
def collection(make_once: MakeOnce) -> Path:
    """``film`` with a smaller encoding, the same bytes, a link and an excerpt; and another film."""

    def write(folder: Path) -> None:
        film = slideshow("astronaut", "rocket", "coins", "chelsea")
        other = slideshow("gravel", "immunohistochemistry", "page")
        (folder / "deep").mkdir(parents=True)
        write_video(folder / "film.mp4", film, fps=FPS)
        write_video(folder / "film.mkv", [cv2.resize(frame, (128, 96)) for frame in film], fps=FPS)  # type: ignore[misc]
        write_video(folder / "deep" / "excerpt.mp4", film[2 * FPS : 6 * FPS], fps=FPS)
        write_video(folder / "other.mp4", other, fps=FPS)
        shutil.copy(folder / "film.mp4", folder / "deep" / "film.mp4")
        (folder / "link.mp4").symlink_to(folder / "film.mp4")

    return make_once("collection", write)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def state(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (status.st_ino, status.st_size, status.st_mtime_ns) for path, status in found.items()}


def test_each_pair_is_told_once_and_the_best_of_a_cluster_is_named(
    collection: Path, trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    before = state(collection)
    arguments = ["dedup", collection, "--output", tmp_path / "out", "--engines", trained_engines]
    result = run_cli(*arguments)
    film, same, mkv, excerpt, other = (
        str(collection / name) for name in ("film.mp4", "deep/film.mp4", "film.mkv", "deep/excerpt.mp4", "other.mp4")
    )
    pairs = rows(tmp_path / "out" / "pairs.csv")
    found = {(row["first"], row["second"]): row for row in pairs}
    assert len(found) == len(pairs)
    assert {key for key, row in found.items() if row["verdict"] == "copy"} == {
        (same, film), (same, mkv), (excerpt, same), (excerpt, mkv)
    }  # fmt: skip
    assert not any(other in key or str(collection / "link.mp4") in key for key in found)
    assert (found[same, film]["same_bytes"], found[same, film]["score"]) == ("true", "")
    segment = [float(found[excerpt, mkv][name]) for name in ("first_start", "first_end", "second_start", "second_end")]
    assert segment == pytest.approx([0, 4, 2, 6], abs=1)

    members = rows(tmp_path / "out" / "clusters.csv")
    assert [(row["cluster"], row["keep"], row["path"]) for row in members] == [
        ("1", "true", same), ("1", "false", film), ("1", "false", excerpt), ("1", "false", mkv)
    ]  # fmt: skip
    assert [(row["width"], row["height"], float(row["duration_s"])) for row in members] == [
        ("192", "144", 8), ("192", "144", 8), ("192", "144", 4), ("128", "96", 8)
    ]  # fmt: skip
    answer = json.loads(result.stdout)
    assert answer["clusters"] == [{"keep": same, "others": [film, excerpt, mkv]}]
    assert (answer["num_videos"], answer["num_copy"], answer["num_same_bytes"]) == (5, 4, 1)
    assert state(collection) == before

    again = run_cli(*arguments)
    assert "OpenVINO" in result.stderr
    assert "OpenVINO" not in again.stderr  # nothing was described
    assert json.loads(again.stdout) == answer


def test_a_video_that_fails_costs_no_other_its_pairs(
    collection: Path, trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("film.mp4", "film.mkv"):
        shutil.copy(collection / name, videos / name)
    (videos / "bad.mp4").write_text("no video")
    (videos / "bad_too.mp4").write_text("no video")
    result = run_cli("dedup", videos, "--output", tmp_path / "out", "--engines", trained_engines, "--scenes", expect=3)
    answer = json.loads(result.stdout)
    assert answer["clusters"] == [{"keep": str(videos / "film.mp4"), "others": [str(videos / "film.mkv")]}]
    assert {row["path"] for row in rows(tmp_path / "out" / "failures.csv")} == {
        str(videos / "bad.mp4"), str(videos / "bad_too.mp4")
    }  # fmt: skip


def test_one_video_has_no_copies(collection: Path, trained_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    arguments = ["dedup", collection / "other.mp4", "--output", tmp_path / "out", "--engines", trained_engines]
    answer = json.loads(run_cli(*arguments, process=True).stdout)
    assert (answer["num_videos"], answer["num_copy"], answer["clusters"]) == (1, 0, [])
    assert rows(tmp_path / "out" / "pairs.csv") == []
