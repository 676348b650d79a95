"""Training of a tiny model on drawn batches: what a killed run goes on with, and which weights are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from engine.errors import ConfigError, EngineError  # noqa: E402
from tests.training_runs import tiny_recipe  # noqa: E402
from training.descriptor.config import Precision, TrainingPreset  # noqa: E402
from training.descriptor.data import Batch  # noqa: E402
from training.descriptor.trainer import BEST, Intervals, Trainer, usable_precision  # noqa: E402
from training.distributed import Ranks  # noqa: E402
from training.schedule import learning_rate_factor  # noqa: E402

pytestmark = pytest.mark.torch

NUM_STEPS = 6
ALONE = Ranks(0, 1, torch.device("cpu"))


class KilledError(Exception):
    """Stands for a signal."""


class Answers:
    """A validation with given figures; it looks at the model as a true one does."""

    def __init__(self, *uaps: float) -> None:
        self.uaps = iter(uaps)
        self.rows: list[np.ndarray] = []

    def uap(self, embed: Any) -> float:
        self.rows.append(embed(np.full((1, 8, 8, 3), 90, np.uint8)))
        return next(self.uaps)


def tiny_model() -> torch.nn.Module:
    torch.manual_seed(0)
    pooled = torch.nn.AdaptiveAvgPool2d(2)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), pooled, torch.nn.Flatten(), torch.nn.Linear(16, 6))


def make_trainer(folder: Path, *, num_steps: int = NUM_STEPS, **changes: Any) -> Trainer:
    recipe = tiny_recipe(model__frozen=["0.bias"], losses__memory_rows=10, optimization__ema_decay=0.7, **changes)
    preset = TrainingPreset.model_validate(recipe)
    return Trainer(tiny_model(), preset, num_steps=num_steps, ranks=ALONE, folder=folder)


def batches(*, first: int = 0) -> Iterator[Batch]:
    for step in range(first, NUM_STEPS):
        views = np.random.default_rng(step).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
        yield Batch(torch.from_numpy(views), (torch.arange(4) + 4 * step)[:, None])


def run(trainer: Trainer, validation: Any = None, *, validate_steps: int = 2, kill_after: int | None = None) -> None:
    def advance() -> None:
        if trainer.step == kill_after:
            raise KilledError

    intervals = Intervals(validate_steps=validate_steps, save_s=0.0)
    trainer.run(batches(first=trainer.step), validation=validation, intervals=intervals, advance=advance)


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(tmp_path: Path) -> None:
    whole, killed = make_trainer(tmp_path / "whole"), make_trainer(tmp_path / "killed")
    run(whole)
    with pytest.raises(KilledError):
        run(killed, kill_after=3)
    again = make_trainer(tmp_path / "killed")
    assert again.resume()
    assert again.step == 3
    run(again)
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")
    kept = [load_file(tmp_path / name / BEST) for name in ("whole", "killed")]
    assert all(kept[0][name].equal(kept[1][name]) for name in kept[0])


def test_a_new_run_has_nothing_to_go_on_with_and_another_length_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert not trainer.resume()
    run(trainer)
    with pytest.raises(ConfigError, match="a run of another length;"):
        make_trainer(tmp_path, num_steps=NUM_STEPS + 1).resume()


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    run(trainer)
    settings = trainer.preset.optimization
    rates = [
        settings.lr * learning_rate_factor(step, num_steps=NUM_STEPS, warmup=settings.warmup, decay=settings.decay)
        for step in range(NUM_STEPS)
    ]
    assert [line["lr"] for line in logged(tmp_path)] == pytest.approx(rates)


def test_the_moving_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    trainer, seen = make_trainer(tmp_path), Answers(0.5, 0.6, 0.7)
    run(trainer, seen)
    kept, own = load_file(tmp_path / BEST), trainer.model.state_dict()
    assert not kept["3.weight"].equal(own["3.weight"])
    assert kept["0.bias"].equal(own["0.bias"])  # frozen
    model = tiny_model()
    model.load_state_dict(kept)
    frames = torch.full((1, 3, 8, 8), 90 / 255)
    mean, std = (
        torch.tensor(value).reshape(3, 1, 1) for value in (trainer.preset.model.mean, trainer.preset.model.std)
    )
    expected = torch.nn.functional.normalize(model((frames - mean) / std)).detach().numpy()
    np.testing.assert_allclose(seen.rows[-1], expected, rtol=1e-5, atol=1e-6)


def test_the_weights_of_the_highest_figure_are_kept(tmp_path: Path) -> None:
    figures = (0.5, 0.7, 0.6)
    best, last = make_trainer(tmp_path / "best"), make_trainer(tmp_path / "short", num_steps=NUM_STEPS)
    run(best, Answers(*figures))
    assert best.best_uap == 0.7
    assert [line["validation_uap"] for line in logged(tmp_path / "best") if "validation_uap" in line] == [*figures]
    with pytest.raises(KilledError):
        run(last, Answers(*figures), kill_after=4)  # the second validation was its last
    kept, expected = load_file(tmp_path / "best" / BEST), last.validated.state_dict()
    assert all(kept[name].equal(expected[name]) for name in kept)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model[3].weight.fill_(torch.nan)
    with pytest.raises(EngineError, match="the loss of step 0 is nan; lower the learning rate"):
        run(trainer)


def test_a_pattern_that_freezes_nothing_is_refused(tmp_path: Path) -> None:
    preset = TrainingPreset.model_validate(tiny_recipe(model__frozen=["0.bias", "backbone.*"]))
    with pytest.raises(ConfigError, match=r"no parameter is called 'backbone\.\*'; the first ones are \['0\.weight'"):
        Trainer(tiny_model(), preset, num_steps=1, ranks=ALONE, folder=tmp_path)


@pytest.mark.parametrize(
    ("capability", "device", "asked", "expected"),
    [
        ("AVX2", "cpu", "bf16", "fp32"),
        ("DEFAULT", "cpu", "fp16", "fp32"),
        ("AVX512", "cpu", "bf16", "bf16"),
        ("AVX2", "cpu", "fp32", "fp32"),
        ("AVX2", "cuda", "bf16", "bf16"),
    ],
)
def test_bfloat16_and_float16_are_used_where_the_hardware_has_them(
    capability: str,
    device: str,
    asked: Precision,
    expected: Precision,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with caplog.at_level(logging.WARNING):
        assert usable_precision(asked, torch.device(device)) == expected
    assert bool(caplog.records) == (asked != expected)
