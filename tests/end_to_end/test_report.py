"""Evidence as a user gets it: the mirror flag in the table, and a page of pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from engine.store.tables import read_matches
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.videos import write_video


@pytest.fixture(scope="module")
def finished(trained_engines: Path, tmp_path_factory: pytest.TempPathFactory, run_cli: RunCli) -> Path:
    root = tmp_path_factory.mktemp("evidence")
    for side in ("queries", "references"):
        (root / side).mkdir()
    for seed, query_id in ((1, "plain"), (5, "mirrored")):
        frames = footage(seed)
        write_video(root / "references" / f"R{seed}.mp4", frames, fps=FPS)
        shown = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames] if query_id == "mirrored" else frames
        write_video(root / "queries" / f"{query_id}.mp4", shown, fps=FPS)
    folders = ["--queries", root / "queries", "--references", root / "references"]
    more = ["--engines", trained_engines, "--output", root / "out", "--report", root / "pages" / "report.html"]
    result = run_cli("run", *folders, *more)
    assert re.search(r"pictures of \d of \d matches were compared", result.stderr)
    return root


def num_pictures(page: Path) -> int:
    return page.read_text(encoding="utf-8").count('<img src="data:image/jpeg')


def test_a_run_says_which_copies_are_mirrored(finished: Path) -> None:
    found = {(match.query_id, match.ref_id): match for match in read_matches(finished / "out" / "matches.csv")}
    assert found["plain", "R1"].mirrored is False
    assert found["mirrored", "R5"].mirrored is True


def test_a_run_writes_a_page(finished: Path) -> None:
    page = finished / "pages" / "report.html"
    content = page.read_text(encoding="utf-8")
    num_matches = len(read_matches(finished / "out" / "matches.csv"))
    assert num_pictures(page) == 8 * num_matches
    assert content.count('<img src="data:image/png') == num_matches
    assert content.count('<span class="tag copy">copy</span>') >= 2
    assert 'alt="query mirrored at 0:0' in content


def test_a_page_from_a_table_of_matches(finished: Path, run_cli: RunCli, tmp_path: Path) -> None:
    folders = ["--queries", finished / "queries", "--references", finished / "references"]
    given = ["--matches", finished / "out" / "matches.csv", *folders, "--output", tmp_path / "page.html"]
    result = json.loads(run_cli("report", *given, "--pictures", "1", process=True).stdout)
    assert result == {
        "output": str(tmp_path / "page.html"),
        "num_matches": len(read_matches(finished / "out" / "matches.csv")),
        "num_pictured": 1,
    }
    assert num_pictures(tmp_path / "page.html") == 8


def test_folders_without_the_videos_are_refused(finished: Path, run_cli: RunCli, tmp_path: Path) -> None:
    swapped = ["--queries", finished / "references", "--references", finished / "queries"]
    given = ["--matches", finished / "out" / "matches.csv", *swapped, "--output", tmp_path / "page.html"]
    result = run_cli("report", *given, expect=1)
    assert re.search(r"none of the 2 queries of .*matches\.csv is in .*references, such as 'mirrored'", result.stderr)
    assert not (tmp_path / "page.html").exists()
