"""`extract --shard` for each share and `merge` against one run of all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from engine.cli import main
from engine.store.store import read_descriptors
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.videos import write_video

COUNT = 8


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(6):
        write_video(folder / f"V{index}.mp4", footage(800 + index, num_seconds=2), fps=FPS)
    (folder / "empty.mp4").touch()
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


def extract(videos: Path, engines: Path, output: Path, *options: str) -> list[str]:
    arguments = ["extract", videos, "--role", "query", "--engines", engines, "--output", output, *options]
    return [*map(str, arguments)]


def failures(folder: Path) -> set[tuple[str, ...]]:
    with (folder / "failures.csv").open(encoding="utf-8", newline="") as file:
        return {tuple(row) for row in csv.reader(file)}


def test_all_shards_merged_equal_one_run(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli(*extract(videos, tiny_engines, tmp_path / "one"), expect=3)
    stores = []
    num_failed = 0
    for number in range(1, COUNT + 1):
        stores.append(tmp_path / "shards" / str(number))
        with pytest.raises(SystemExit) as ended:
            main(extract(videos, tiny_engines, stores[-1], "--shard", f"{number}/{COUNT}"))
        figures = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert ended.value.code == (3 if figures["num_failures"] else 0)
        num_failed += figures["num_failures"]
    assert num_failed == 2, "each failure is that of one shard"
    without_third = [*stores[:2], *stores[3:]]
    error = run_cli("merge", *without_third, "--output", tmp_path / "all", expect=1).stderr
    assert "shard 3/8" in error
    assert len(error.splitlines()) == 1
    result = run_cli("merge", *stores, "--output", tmp_path / "all", process=True)
    figures = json.loads(result.stdout)
    assert (figures["num_videos"], figures["num_failures"], figures["missing_shards"]) == (6, 2, [])
    found, expected = read_descriptors(tmp_path / "all"), read_descriptors(tmp_path / "one")
    assert [item.video_id for item in found] == [item.video_id for item in expected] == [f"V{n}" for n in range(6)]
    for one, other in zip(found, expected, strict=True):
        assert one.descriptors.tobytes() == other.descriptors.tobytes()
        assert one.timestamps.tobytes() == other.timestamps.tobytes()
        assert (one.edit_score, one.gate, one.warnings) == (other.edit_score, other.gate, other.warnings)
    assert failures(tmp_path / "all") == failures(tmp_path / "one")
    with pytest.raises(SystemExit) as ended:
        main(extract(videos, tiny_engines, tmp_path / "all"))
    assert (ended.value.code, "0 described, 6 there already" in capsys.readouterr().err) == (3, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard", "1/4"], "holds shard 1/8 of vsc-engine"),
        ([], "holds shard 1/8 of vsc-engine"),
        (["--shard", "9/8"], "expected NUMBER/COUNT"),
    ],
)
def test_what_does_not_fit_the_output_is_said_in_one_line(
    videos: Path,
    tiny_engines: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    empty = videos / "empty.mp4"  # its shard is another, so that nothing is described
    with pytest.raises(SystemExit) as ended:
        main(extract(empty, tiny_engines, tmp_path / "out", "--shard", "1/8"))
    assert ended.value.code == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(extract(empty, tiny_engines, tmp_path / "out", *options))
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_challenge_file_has_no_shards(
    videos: Path, tiny_engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(extract(videos, tiny_engines, tmp_path / "out.npz", "--shard", "1/8"))
    assert ended.value.code == 1
    assert "--shard writes a store" in capsys.readouterr().err
