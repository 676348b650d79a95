"""Training of the edit gate as a user runs it: labelled videos in, weights that build engines out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")

from engine.build.engines import build_engines  # noqa: E402
from engine.config import load_preset  # noqa: E402
from engine.records import Match  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.end_to_end.conftest import FPS, footage  # noqa: E402
from tests.gate_presets import write_gate_preset  # noqa: E402
from tests.imagenet import write_imagenet_weights  # noqa: E402
from tests.training_runs import environment, read_log  # noqa: E402
from tests.videos import write_video  # noqa: E402
from training.edit_gate.train import app, copied_frames, passing_threshold  # noqa: E402

pytestmark = pytest.mark.torch

NUM_VIDEOS = 20


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, of which the even ones are framed in black; labels; a checkpoint; two presets."""
    work = tmp_path_factory.mktemp("work")
    (work / "videos").mkdir()
    for number in range(NUM_VIDEOS):
        frames = footage(number, num_seconds=3)
        if number % 2 == 0:
            frames = [cv2.copyMakeBorder(frame, 24, 24, 32, 32, cv2.BORDER_CONSTANT) for frame in frames]
        write_video(work / "videos" / f"Q{number:02d}.mp4", frames, fps=FPS)
    write_labels(work / "labels.csv", [f"Q{number:02d}" for number in range(0, NUM_VIDEOS, 2)])
    write_imagenet_weights(work / "small.safetensors")
    write_gate_preset(work / "engine.toml")
    (work / "recipe.toml").write_text(recipe(work, epochs=8), encoding="utf-8")
    return work


def recipe(work: Path, *, epochs: int) -> str:
    return (
        f'name = "test"\nengine_preset = {json.dumps(str(work / "engine.toml"))}\nseed = 1\nvalidation_share = 0.3\n'
        f"[optimization]\nlr = 3e-3\nepochs = {epochs}\nvideos_per_rank = 4\n"
    )


def write_labels(path: Path, query_ids: list[str]) -> None:
    lines = [f"{query_id},R1,0,3,0,3" for query_id in query_ids]
    path.write_text("\n".join(["query_id,ref_id,query_start,query_end,ref_start,ref_end", *lines]) + "\n")


def arguments(work: Path, *options: str | Path) -> list[str]:
    return list(map(str, ("--preset", work / "recipe.toml", "--checkpoints", work, *options)))


def run(work: Path, *options: str | Path, expect: int = 0) -> Result:
    """The command, run in this process."""
    result = CliRunner().invoke(app, arguments(work, *options), catch_exceptions=False)
    assert result.exit_code == expect, result.output
    return result


def train(work: Path, *options: str | Path) -> dict[str, float]:
    return figures_of(run(work, *options).stdout)


def figures_of(stdout: str) -> dict[str, float]:
    """The last line of what the command prints."""
    figures: dict[str, float] = json.loads(stdout.splitlines()[-1])
    return figures


def launch(work: Path, *options: str | Path, num_processes: int) -> dict[str, float]:
    """The figures that as many processes print."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [*launcher, "-m", "training.edit_gate.train", *arguments(work, *options)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    return figures_of(result.stdout)


def test_labelled_videos_give_weights_that_build_engines(work: Path, tmp_path: Path) -> None:
    data = ("--videos", work / "videos", "--ground-truth", work / "labels.csv", "--output", tmp_path / "run")
    figures = train(work, *data)
    assert figures["validation_ap"] > 0.9
    assert (figures["num_training"], figures["num_validation"]) == (14, 6)
    assert len(read_log(tmp_path / "run")) == 8
    again = run(work, *data)
    assert "going on after epoch 8 of 8" in again.stderr
    assert figures_of(again.stdout) == figures
    (tmp_path / "run" / "small.safetensors").symlink_to(work / "small.safetensors")
    manifest = build_engines(load_preset(work / "engine.toml"), tmp_path / "engines", checkpoints=tmp_path / "run")
    assert set(manifest.engines) == {"ensemble", "edit_score"}


def test_queries_are_synthesized_where_no_labels_are(work: Path, tmp_path: Path) -> None:
    options = ("--synthesize-from", work / "videos", "--num-synthesized", "12", "--output", tmp_path / "run")
    assert train(work, *options)["num_training"] == 8
    assert len(list((tmp_path / "run" / "synthesized" / "0" / "queries").glob("*.mp4"))) == 12


def test_queries_are_synthesized_from_those_without_a_copy(work: Path, tmp_path: Path) -> None:
    data = ("--videos", work / "videos", "--ground-truth", work / "labels.csv", "--output", tmp_path / "run")
    more = ("--synthesize-from", work / "videos", "--num-synthesized", "6")
    figures = train(work, *data, *more)
    assert figures["num_training"] + figures["num_validation"] == NUM_VIDEOS + 6
    provenance = json.loads((tmp_path / "run" / "synthesized" / "0" / "provenance.json").read_text())
    segments = [segment for query in provenance["queries"].values() for segment in query["segments"]]
    sources = {segment["source"] for segment in segments}
    assert sources
    assert sources <= {f"Q{number:02d}" for number in range(1, NUM_VIDEOS, 2)}


@pytest.mark.slow
def test_two_processes_share_the_batches(work: Path, tmp_path: Path) -> None:
    halved = (work / "recipe.toml").read_text().replace("videos_per_rank = 4", "videos_per_rank = 2")
    (tmp_path / "halved.toml").write_text(halved)
    data = ("--videos", work / "videos", "--ground-truth", work / "labels.csv", "--output", tmp_path / "run")
    more = ("--synthesize-from", work / "videos", "--num-synthesized", "4")
    figures = launch(work, *data, *more, "--preset", tmp_path / "halved.toml", num_processes=2)
    assert figures["num_training"] + figures["num_validation"] == NUM_VIDEOS + 4
    halves = read_log(tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    train(work, *data, *more)
    whole = read_log(tmp_path / "run")
    assert [line["epoch"] for line in halves] == list(range(8))
    # Sums over two halves round differently; a wrong gradient would show from the second epoch on.
    np.testing.assert_allclose([line["loss"] for line in halves], [line["loss"] for line in whole], rtol=1e-4)


def test_wrong_input_fails_with_one_line(work: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "other.csv", ["Q00", "Q77"])
    (tmp_path / "pairs.csv").write_text("query_id,ref_id\nQ00,R1\n", encoding="utf-8")
    write_labels(tmp_path / "all.csv", [f"Q{number:02d}" for number in range(NUM_VIDEOS)])
    videos = ("--videos", work / "videos")
    output = ("--output", tmp_path / "run")
    for options, message in (
        (output, "nothing to train on"),
        ((*videos, *output), "needs one ground truth, got 1 folders and 0 CSV files"),
        ((*videos, "--ground-truth", tmp_path / "other.csv", *output), "names 1 queries that"),
        ((*videos, "--ground-truth", tmp_path / "pairs.csv", *output), "the matching ground truth is needed"),
        (("--synthesize-from", work / "videos", *output), "needs one --num-synthesized, got 1 folders and 0 numbers"),
        ((*videos, "--ground-truth", tmp_path / "all.csv", *output), "training needs queries with a copy and without"),
    ):
        assert message in run(work, *options, expect=1).stderr


def test_frames_are_copied_whose_seconds_middle_lies_in_a_match() -> None:
    matches = [Match("Q", "R", start_s, end_s, 0, 1, 1.0) for start_s, end_s in ((0.6, 2.4), (4.5, 5.4))]
    assert copied_frames(6, matches).tolist() == [False, True, False, False, True, False]
    assert not copied_frames(3, []).any()


def test_the_threshold_lets_the_asked_share_pass() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.7])
    assert [passing_threshold(scores, share=share) for share in (1.0, 0.75, 0.5)] == [0.1, 0.5, 0.7]
