"""What a run folder keeps, gives back to the run that made it, and refuses to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from engine.errors import ConfigError, StoreError  # noqa: E402
from training.run_folder import CHECKPOINT, LOG, TENSORBOARD, RunFolder  # noqa: E402

pytestmark = pytest.mark.torch


def open_folder(path: Path, *, writes: bool = True, **identity: Any) -> RunFolder:
    whose = {"preset": {"lr": 0.1}} | identity
    return RunFolder(path, identity=whose, unit="step", best="b.safetensors", writes=writes)


def write_lines(folder: RunFolder, *numbers: int, last: int) -> None:
    with folder.open_log(last=last) as log:
        for number in numbers:
            log(number, {"loss": number / 8})


def logged(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (path / LOG).read_text(encoding="utf-8").splitlines()]


def test_a_new_folder_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    assert open_folder(tmp_path / "new").resume() is None


def test_the_run_gets_back_what_it_saved(tmp_path: Path) -> None:
    rows = torch.arange(6.0).reshape(2, 3)
    tensors = {"model": {"w": rows}, "none": {}, "average": {"n": torch.tensor(3)}}
    open_folder(tmp_path, sizes=(1, 2)).save(tensors=tensors, values={"step": 7, "scaler": {}})
    stopped = open_folder(tmp_path, sizes=[1, 2]).resume()
    assert stopped is not None
    assert stopped.values == {"step": 7, "scaler": {}}
    assert stopped.tensors["model"]["w"].equal(rows)
    assert stopped.tensors["average"]["n"].item() == 3
    assert "none" not in stopped.tensors


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"preset": {"lr": 0.2}, "length": 8}, "a run of another preset; choose another --output folder"),
        ({"preset": {"lr": 0.2}, "length": 9}, "a run of another preset or length"),
        ({}, "a run of another length"),
        ({"length": 8, "number of ranks": 2}, "a run of another number of ranks"),
    ],
)
def test_another_run_is_refused_in_words(tmp_path: Path, identity: dict[str, Any], message: str) -> None:
    open_folder(tmp_path, length=8).save(tensors={"model": {"w": torch.zeros(1)}}, values={})
    with pytest.raises(ConfigError, match=message):
        open_folder(tmp_path, **identity).resume()


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_text("no tensors")
    with pytest.raises(StoreError, match="not a readable checkpoint"):
        open_folder(tmp_path).resume()


@pytest.mark.parametrize("torn", ["", '{"step": 4, "lo', '{"step": 4, "loss": 0.5}'])
def test_what_was_logged_after_the_checkpoint_is_dropped(tmp_path: Path, torn: str) -> None:
    write_lines(open_folder(tmp_path), 1, 2, 3, last=0)
    with (tmp_path / LOG).open("a", encoding="utf-8") as file:
        file.write(torn)
    write_lines(open_folder(tmp_path), 3, 4, last=2)
    assert logged(tmp_path) == [1, 2, 3, 4]


def test_a_run_killed_before_its_first_checkpoint_starts_its_log_anew(tmp_path: Path) -> None:
    write_lines(open_folder(tmp_path), 1, 2, last=0)
    write_lines(open_folder(tmp_path), 1, 2, 3, last=0)
    assert logged(tmp_path) == [1, 2, 3]


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    write_lines(open_folder(tmp_path), 1, 2, 3, last=0)
    write_lines(open_folder(tmp_path), 3, 4, last=2)
    events = EventAccumulator(str(tmp_path / TENSORBOARD)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(n, n / 8) for n in (1, 2, 3, 4)]


def test_the_best_weights_are_replaced(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    for value in (1.0, 2.0):
        torch.nn.init.constant_(model.weight, value)
        open_folder(tmp_path).keep_best(model)
    assert load_file(tmp_path / "b.safetensors")["weight"].tolist() == [[2.0, 2.0]]


def test_other_ranks_read_and_leave_no_files(tmp_path: Path) -> None:
    other = open_folder(tmp_path, writes=False)
    write_lines(other, 1, 2, last=0)
    other.save(tensors={"model": {"w": torch.zeros(1)}}, values={"step": 2})
    other.keep_best(torch.nn.Linear(2, 1))
    assert not list(tmp_path.iterdir())
    open_folder(tmp_path).save(tensors={"model": {"w": torch.zeros(1)}}, values={"step": 3})
    stopped = other.resume()
    assert stopped is not None
    assert stopped.values == {"step": 3}
