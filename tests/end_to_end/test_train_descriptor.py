"""Training as a user runs it: the command line, two processes, and a run that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.cli import main
from tests.conftest import REPOSITORY
from tests.training_runs import (
    command,
    environment,
    launch,
    make_store,
    one_torch_thread,
    read_log,
    refusal,
    tiny_recipe,
    train,
    write_preset,
)
from training.checkpoint import load_checkpoint
from training.descriptor.config import TrainingPreset
from training.descriptor.start import start_model
from training.store.frame_store import FrameStore

pytestmark = pytest.mark.torch

one_thread = pytest.fixture(scope="module", autouse=True)(one_torch_thread)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def whole_run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(write_preset(folder), store, folder / "run")
    return folder / "run"


def losses(log: list[dict[str, float]]) -> list[float]:
    return [line["loss"] for line in log]


def test_a_run_leaves_weights_a_log_a_report_and_a_preset_that_builds_engines(whole_run: Path, tmp_path: Path) -> None:
    log = read_log(whole_run)
    assert [line["step"] for line in log] == list(range(1, 9))
    assert 0 <= log[-1]["validation_uap"] <= 1
    assert "best validation uAP" in (whole_run / "report.html").read_text(encoding="utf-8")
    assert (whole_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((whole_run / "tensorboard").iterdir())
    options = ["--preset", str(whole_run / "preset.toml"), "--checkpoints", str(whole_run)]
    with pytest.raises(SystemExit) as ended:
        main(["build", *options, "--output", str(tmp_path / "engines")])
    assert ended.value.code == 0
    manifest = json.loads((tmp_path / "engines" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["preset"]["name"] == 'my "best" run'
    assert manifest["preset"]["models"][0]["checkpoint"] == "best.safetensors"


def test_what_is_frozen_keeps_its_values_and_the_rest_learns(whole_run: Path, store: Path) -> None:
    recipe = TrainingPreset.model_validate(tiny_recipe())
    with FrameStore.open(store) as pictures:
        first = start_model(recipe.model, seed=recipe.seed, store=pictures, pictures=np.arange(2)).state_dict()
    # Not the best weights: those of the first step may be.
    last = load_checkpoint(whole_run / "checkpoint.safetensors")[0]["model"]
    changed = {name for name in first if not first[name].equal(last[name])}
    assert "projection.weight" in changed
    assert "backbone.head.weight" in changed
    assert not [name for name in changed if ".stem." in name or ".depthwise." in name or ".stages.1." in name]


@pytest.mark.long
def test_two_processes_with_half_the_batch_each_compute_what_one_computes(
    whole_run: Path, store: Path, tmp_path: Path
) -> None:
    halved = launch(write_preset(tmp_path, optimization__pairs_per_rank=2), store, tmp_path / "run", num_processes=2)
    # Sums over two halves round differently; a wrong gradient would show from the second step on.
    np.testing.assert_allclose(losses(halved), losses(read_log(whole_run)), rtol=2e-4)


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_losses(whole_run: Path, store: Path, tmp_path: Path) -> None:
    preset, output = write_preset(tmp_path), tmp_path / "run"
    arguments = [*command(preset, store, output), "--save-seconds", "0"]
    process = subprocess.Popen(arguments, env=environment(), cwd=REPOSITORY)
    deadline_s = time.monotonic() + 120
    while not (output / "log.jsonl").exists() or len(read_log_so_far(output)) < 3:
        assert time.monotonic() < deadline_s
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= len(read_log_so_far(output)) < 8, "it ended before it was killed"
    resumed = train(preset, store, output)
    assert losses(resumed) == losses(read_log(whole_run))


def read_log_so_far(output: Path) -> list[str]:
    return [line for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines() if line.endswith("}")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses__temprature": 1}, "unknown key losses.temprature, did you mean 'temperature'?"),
        ({"model__frozen": ["backbone.stm.*"]}, "no parameter is called 'backbone.stm.*'"),
        ({"optimization__pairs_per_rank": 40}, "fewer than a batch of 40"),
        ({"model__whiten_projection": True}, "whiten_projection needs more than 512 pictures to train on, got 16"),
        ({"augmentation__max_edits": 2, "augmentation__min_edits": 3}, "min_edits is 3, more than max_edits, 2"),
        ({"model__start": "absent.safetensors"}, "there is no checkpoint absent.safetensors"),
    ],
)
def test_a_wrong_recipe_is_said(store: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert message in refusal(write_preset(tmp_path, **change), store, tmp_path / "run")


def test_a_missing_store_and_another_recipe_in_the_folder_are_said(
    whole_run: Path, store: Path, tmp_path: Path
) -> None:
    cases = [
        (write_preset(tmp_path), tmp_path / "absent", tmp_path / "run", "holds no finished frame store"),
        (write_preset(tmp_path, optimization__epochs=1.0), store, whole_run, "a run of another preset or length"),
    ]
    for preset, folder, output, message in cases:
        assert message in refusal(preset, folder, output)
