"""Two files on the command line: a verdict, which seconds show which, and how scripts learn of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from engine.config import load_preset
from engine.evaluate.calibration import VerdictScores
from tests.conftest import REPOSITORY, MakeOnce
from tests.end_to_end.conftest import RunCli, edited
from tests.photographs import FPS, slideshow
from tests.videos import write_video


@pytest.fixture(scope="module")
def videos(make_once: MakeOnce) -> Path:
    """``upload`` shows seconds 2 to 10 of ``film`` between other footage; ``other`` shares nothing with both."""

    def write(folder: Path) -> None:
        film = slideshow("astronaut", "rocket", "coins", "chelsea", "retina", "camera")
        folder.mkdir()
        write_video(folder / "film.mp4", film, fps=FPS)
        write_video(folder / "other.mp4", slideshow("gravel", "immunohistochemistry", "page"), fps=FPS)
        between = slideshow("moon", num_seconds=6), slideshow("hubble_deep_field", num_seconds=3)
        write_video(folder / "upload.mp4", between[0] + edited(film[2 * FPS : 10 * FPS]) + between[1], fps=FPS)

    return make_once("compared", write)


def test_a_copy_is_told_with_its_seconds(videos: Path, trained_engines: Path, run_cli: RunCli) -> None:
    upload, film = videos / "upload.mp4", videos / "film.mp4"
    result = run_cli("compare", upload, film, "--engines", trained_engines, "--exit-code", expect=0)
    (line,) = result.stdout.splitlines()
    answer = json.loads(line)
    assert answer["verdict"] == "copy"
    expected = VerdictScores.of(load_preset("lite").false_matches, num_references=1)  # type: ignore[arg-type]
    assert answer["thresholds"] == {"act": expected.act, "review": expected.review}
    assert answer["score"] >= expected.act
    assert (answer["num_references"], answer["same_bytes"]) == (1, False)
    assert {side: answer[side]["path"] for side in ("query", "reference")} == {
        "query": str(upload), "reference": str(film)
    }  # fmt: skip
    match = answer["matches"][0]
    found = [match[key] for key in ("query_start_s", "query_end_s", "ref_start_s", "ref_end_s")]
    assert found == pytest.approx([6, 14, 2, 10], abs=1)
    assert match["speed"] == pytest.approx(1)
    said = re.search(rf"^copy: 0:0(\d)-0:1(\d) of {upload} show 0:0(\d)-0:(\d\d) of {film}", result.stderr, re.M)
    assert said is not None
    assert [int(text) for text in said.groups()] == pytest.approx([6, 4, 2, 10], abs=1)


def test_times_are_exact_to_a_frame_where_there_are_cuts(
    trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    """What is shown is cut in and out between the seconds that are sampled, by `compare` and from a catalogue."""
    film = slideshow("astronaut", "rocket", "coins", "chelsea", "retina", "camera", num_seconds=3)[FPS // 5 :]
    start, stop = round(3.6 * FPS), round(13.4 * FPS)
    between = slideshow("moon", num_seconds=6)[: round(5.4 * FPS)], slideshow("hubble_deep_field", num_seconds=3)
    upload, folder = tmp_path / "upload.mp4", tmp_path / "catalogue"
    write_video(tmp_path / "film.mp4", film, fps=FPS)
    write_video(upload, between[0] + edited(film[start:stop]) + between[1], fps=FPS)
    expected = [length / FPS for length in (len(between[0]), len(between[0]) + stop - start, start, stop)]
    answers = [run_cli("compare", upload, tmp_path / "film.mp4", "--engines", trained_engines).stdout]
    run_cli("catalog", "create", folder, "--engines", trained_engines)
    run_cli("catalog", "add", folder, tmp_path / "film.mp4")
    answers.append(run_cli("catalog", "match", folder, upload, "--all").stdout)
    for answer in answers:
        match = json.loads(answer.splitlines()[0])["matches"][0]
        found = [match[key] for key in ("query_start_s", "query_end_s", "ref_start_s", "ref_end_s")]
        assert found == pytest.approx(expected, abs=1.5 / FPS)


def test_a_page_shows_the_segments_that_are_told_of(
    videos: Path, trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    pages, engines = [tmp_path / name for name in ("copy.html", "none.html")], ["--engines", trained_engines]
    for place, reason in ((tmp_path, f"{tmp_path} is a folder; name the page"), (tmp_path / "page.txt", "with .html")):
        told = run_cli("compare", videos / "upload.mp4", videos / "film.mp4", *engines, "--report", place, expect=1)
        assert reason in told.stderr
    copy = run_cli("compare", videos / "upload.mp4", videos / "film.mp4", *engines, "--report", pages[0])
    num_matches = len(json.loads(copy.stdout)["matches"])
    run_cli("compare", videos / "other.mp4", videos / "film.mp4", *engines, "--report", pages[1])
    contents = [page.read_text(encoding="utf-8") for page in pages]
    assert [content.count('<img src="data:image/jpeg') for content in contents] == [8 * num_matches, 0]
    assert [content.count('<img src="data:image/png') for content in contents] == [num_matches, 0]
    assert contents[0].count('<span class="tag copy">copy</span>') == num_matches
    assert 'alt="reference film at 0:0' in contents[0]


def test_two_files_are_compared_where_no_catalogue_can_be_kept(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    """LanceDB takes seconds to load, and nothing of it is needed."""
    (tmp_path / "lancedb.py").write_text("raise ImportError('lancedb is blocked in this test')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY)))}
    arguments = [videos / "other.mp4", videos / "film.mp4", "--engines", tiny_engines]
    assert json.loads(run_cli("compare", *arguments, env=environment).stdout)["num_references"] == 1


def test_an_excerpt_is_found_whichever_file_comes_first(videos: Path, trained_engines: Path, run_cli: RunCli) -> None:
    result = run_cli("compare", videos / "film.mp4", videos / "upload.mp4", "--engines", trained_engines)
    match = json.loads(result.stdout)["matches"][0]
    found = [match[key] for key in ("query_start_s", "query_end_s", "ref_start_s", "ref_end_s")]
    assert found == pytest.approx([2, 10, 6, 14], abs=1)


def test_a_mirrored_copy_is_called_so(trained_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    frames = slideshow("rocket", "chelsea", "astronaut")
    write_video(tmp_path / "a.mp4", [frame[:, ::-1].copy() for frame in frames], fps=FPS)
    write_video(tmp_path / "b.mp4", frames, fps=FPS)
    result = run_cli("compare", tmp_path / "a.mp4", tmp_path / "b.mp4", "--engines", trained_engines)
    assert json.loads(result.stdout)["matches"][0]["mirrored"] is True
    assert f"of {tmp_path / 'b.mp4'}, mirrored" in result.stderr


def test_unrelated_videos_are_no_match(videos: Path, trained_engines: Path, run_cli: RunCli) -> None:
    arguments = [videos / "other.mp4", videos / "film.mp4", "--engines", trained_engines]
    result = run_cli("compare", *arguments, "--exit-code", expect=11)
    answer = json.loads(result.stdout)
    assert (answer["verdict"], answer["matches"]) == ("no match", [])
    assert f"no match: {videos / 'other.mp4'} and {videos / 'film.mp4'}" in result.stderr


def test_the_same_bytes_are_a_copy_under_any_name(
    videos: Path, trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    shutil.copy(videos / "film.mp4", tmp_path / "film")
    arguments = [tmp_path / "film", videos / "film.mp4", "--engines", trained_engines]
    result = run_cli("compare", *arguments, "--exit-code", expect=0)
    answer = json.loads(result.stdout)
    assert (answer["verdict"], answer["same_bytes"]) == ("copy", True)
    assert "have the same bytes" in result.stderr


def test_what_cannot_be_compared_is_told_in_one_line(
    videos: Path, trained_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    film, engines = videos / "film.mp4", ["--engines", trained_engines]
    assert (
        f"vsc-engine: {videos} is a folder; name one file"
        in run_cli("compare", videos, film, *engines, expect=1).stderr
    )
    assert "gone.mp4: no such file" in run_cli("compare", film, tmp_path / "gone.mp4", *engines, expect=1).stderr
    (tmp_path / "text.mp4").write_text("no video")
    result = run_cli("compare", tmp_path / "text.mp4", film, *engines, "--exit-code", expect=3)
    assert str(tmp_path / "text.mp4") in json.loads(result.stdout)["error"]
    assert "Traceback" not in result.stderr


def test_engines_without_a_calibration_give_a_score_and_no_verdict(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    """A preset of one's own may say nothing of false matches."""
    engines = tmp_path / "engines"
    shutil.copytree(tiny_engines, engines)
    manifest = json.loads((engines / "manifest.json").read_text(encoding="utf-8"))
    manifest["preset"]["false_matches"] = None
    (engines / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    arguments = ["compare", videos / "upload.mp4", videos / "film.mp4", "--engines", engines]
    answer = json.loads(run_cli(*arguments).stdout)
    assert (answer["verdict"], answer["thresholds"]) == (None, None)
    assert answer["matches"]
    assert "no verdict" in run_cli(*arguments, "--exit-code", expect=1).stderr
