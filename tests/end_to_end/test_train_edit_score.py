"""Training of the edit gate as a user runs it: labelled videos in, weights that build engines out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")

from engine.build.engines import build_engines  # noqa: E402
from engine.config import load_preset  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.end_to_end.conftest import FPS, footage  # noqa: E402
from tests.gate_presets import write_gate_preset  # noqa: E402
from tests.imagenet import write_imagenet_weights  # noqa: E402
from tests.training_runs import environment, one_torch_thread, read_log  # noqa: E402
from tests.videos import write_video  # noqa: E402
from training.edit_gate.train import app, passing_threshold  # noqa: E402

pytestmark = pytest.mark.torch

one_thread = pytest.fixture(scope="module", autouse=True)(one_torch_thread)

NUM_VIDEOS = 20
LABELLED = {"videos": "videos", "ground_truth": "labels.csv"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, of which the even ones are framed in black; labels; a checkpoint; a preset."""
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
    (work / "features").mkdir()
    return work


def write_labels(path: Path, query_ids: list[str]) -> None:
    lines = [f"{query_id},R1,0,3,0,3" for query_id in query_ids]
    path.write_text("\n".join(["query_id,ref_id,query_start,query_end,ref_start,ref_end", *lines]) + "\n")


def prepare(work: Path, folder: Path, *, epochs: int = 8, videos_per_rank: int = 4, **data: Any) -> list[str]:
    """The arguments of a run in ``folder / "run"`` with ``data`` in its recipe; all runs share computed features."""
    recipe = {
        "name": "test",
        "engine_preset": str(work / "engine.toml"),
        "seed": 1,
        "validation_share": 0.3,
        "optimization": {"lr": 3e-3, "epochs": epochs, "videos_per_rank": videos_per_rank},
    }
    path, output = folder / "recipe.toml", folder / "run"
    path.write_text(tomli_w.dumps(recipe | data), encoding="utf-8")
    if not output.exists():
        output.mkdir()
        (output / "features").symlink_to(work / "features")
    options = {"--preset": path, "--data": work, "--checkpoints": work, "--output": output}
    return [str(word) for option in options.items() for word in option]


def run(arguments: list[str], *, expect: int = 0) -> Result:
    """The command, run in this process."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == expect, result.output
    return result


def figures_of(stdout: str) -> dict[str, float]:
    """The last line of what the command prints."""
    figures: dict[str, float] = json.loads(stdout.splitlines()[-1])
    return figures


def launch(arguments: list[str], *, num_processes: int) -> dict[str, float]:
    """The figures that as many processes print."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [*launcher, "-m", "training.edit_gate.train", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    return figures_of(result.stdout)


@pytest.mark.long
def test_labelled_videos_give_weights_that_build_engines(work: Path, tmp_path: Path) -> None:
    arguments = prepare(work, tmp_path, labelled=[LABELLED])
    figures = figures_of(run(arguments).stdout)
    assert figures["validation_ap"] > 0.9
    assert (figures["num_training"], figures["num_validation"]) == (14, 6)
    assert len(read_log(tmp_path / "run")) == 8
    again = run(arguments)
    assert "going on after epoch 8 of 8" in again.stderr
    assert figures_of(again.stdout) == figures
    (tmp_path / "run" / "small.safetensors").symlink_to(work / "small.safetensors")
    manifest = build_engines(load_preset(work / "engine.toml"), tmp_path / "engines", checkpoints=tmp_path / "run")
    assert set(manifest.engines) == {"ensemble", "edit_score"}


@pytest.mark.long
def test_queries_are_synthesized_from_those_without_a_copy(work: Path, tmp_path: Path) -> None:
    made = [{"source": "videos", "num_queries": 6}]
    figures = figures_of(run(prepare(work, tmp_path, epochs=1, labelled=[LABELLED], synthesized=made)).stdout)
    assert figures["num_training"] + figures["num_validation"] == NUM_VIDEOS + 6
    provenance = json.loads((tmp_path / "run" / "synthesized" / "0" / "provenance.json").read_text())
    segments = [segment for query in provenance["queries"].values() for segment in query["segments"]]
    sources = {segment["source"] for segment in segments}
    assert sources
    assert sources <= {f"Q{number:02d}" for number in range(1, NUM_VIDEOS, 2)}


def test_queries_are_synthesized_where_no_labels_are(work: Path, tmp_path: Path) -> None:
    made = [{"source": "videos", "num_queries": 12}]
    validation = prepare(work, tmp_path, epochs=1, synthesized=made, validation=LABELLED)
    figures = figures_of(run(validation).stdout)
    assert (figures["num_training"], figures["num_validation"]) == (12, NUM_VIDEOS)
    assert len(list((tmp_path / "run" / "synthesized" / "0" / "queries").glob("*.mp4"))) == 12


@pytest.mark.long
def test_two_processes_share_the_batches(work: Path, tmp_path: Path) -> None:
    epochs = 3
    data = {"labelled": [LABELLED], "synthesized": [{"source": "videos", "num_queries": 4}]}
    figures = launch(prepare(work, tmp_path, epochs=epochs, videos_per_rank=2, **data), num_processes=2)
    assert figures["num_training"] + figures["num_validation"] == NUM_VIDEOS + 4
    halves = read_log(tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    run(prepare(work, tmp_path, epochs=epochs, **data))
    whole = read_log(tmp_path / "run")
    assert [line["epoch"] for line in halves] == list(range(epochs))
    # Sums over two halves round differently; a wrong gradient would show from the second epoch on.
    np.testing.assert_allclose([line["loss"] for line in halves], [line["loss"] for line in whole], rtol=1e-4)


def test_wrong_input_fails_with_one_line(work: Path, tmp_path: Path) -> None:
    write_labels(work / "other.csv", ["Q00", "Q77"])
    (work / "pairs.csv").write_text("query_id,ref_id\nQ00,R1\n", encoding="utf-8")
    write_labels(work / "all.csv", [f"Q{number:02d}" for number in range(NUM_VIDEOS)])
    for data, message in (
        ({}, "nothing to train on"),
        ({"labelled": [{"videos": "videos"}]}, "labelled.0.ground_truth: Field required"),
        ({"labelled": [LABELLED | {"ground_truth": "other.csv"}]}, "names 1 queries that"),
        ({"labelled": [LABELLED | {"ground_truth": "pairs.csv"}]}, "the matching ground truth is needed"),
        ({"synthesized": [{"source": "videos"}]}, "synthesized.0.num_queries: Field required"),
        ({"synthesized": [{"source": "absent", "num_queries": 2}]}, "absent: no such file or directory"),
        ({"labelled": [LABELLED | {"ground_truth": "all.csv"}]}, "training needs queries with a copy and without"),
    ):
        assert message in run(prepare(work, tmp_path, **data), expect=1).stderr


def test_the_threshold_lets_the_asked_share_pass() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.7])
    assert [passing_threshold(scores, share=share) for share in (1.0, 0.75, 0.5)] == [0.1, 0.5, 0.7]
