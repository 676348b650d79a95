"""Tiny training runs for tests: a store of made pictures, and the recipe `lite` with few and small pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image
from typer.testing import CliRunner, Result

from tests.conftest import REPOSITORY

NUM_PICTURES = 20


def make_store(folder: Path) -> Path:
    """A store of 20 pictures of colored blocks."""
    from training.store.frame_store import build_store, find_sources

    (folder / "pictures").mkdir(parents=True)
    for seed in range(NUM_PICTURES):
        blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST).save(folder / "pictures" / f"{seed:02d}.png")
    build_store(find_sources([folder / "pictures"]), folder / "store")
    return folder / "store"


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """The values of the recipe `lite` in small; ``changes`` are of keys such as ``optimization__epochs``."""
    path = REPOSITORY / "training" / "presets" / "lite.toml"
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    small = {
        "name": 'my "best" run',
        "validation_share": 0.2,
        "num_validations": 2,
        "model__input_px": 64,
        "model__whiten_projection": False,
        "losses__memory_rows": 16,
        "optimization__pairs_per_rank": 4,
        "optimization__epochs": 2.0,
        "optimization__precision": "fp32",
        "resolutions": [{"start": 0.0, "input_px": 32}],
    }
    for key, value in (small | changes).items():
        section, _, name = key.rpartition("__")
        (recipe[section] if section else recipe)[name] = value
    return recipe


def write_preset(folder: Path, **changes: Any) -> Path:
    """Write `tiny_recipe` as TOML."""
    path = folder / "preset.toml"
    path.write_text(tomli_w.dumps(tiny_recipe(**changes)), encoding="utf-8")
    return path


def command(preset: Path, store: Path, output: Path, *, num_processes: int = 1) -> list[str]:
    """The command line of a run, under ``torchrun`` for more processes than one."""
    launcher = [sys.executable, "-m"]
    if num_processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
    return [*launcher, "training.descriptor.train", *arguments(preset, store, output)]


def arguments(preset: Path, store: Path, output: Path) -> list[str]:
    """What follows the name of the command."""
    return ["--preset", str(preset), "--store", str(store), "--output", str(output), "--workers", "0"]


def launch(preset: Path, store: Path, output: Path, *, num_processes: int) -> list[dict[str, float]]:
    """Run in processes of their own to the end and return the lines of the log."""
    started = command(preset, store, output, num_processes=num_processes)
    subprocess.run(started, env=environment(), check=True, cwd=REPOSITORY)
    return read_log(output)


def train(preset: Path, store: Path, output: Path) -> list[dict[str, float]]:
    """Run the command in this process to the end and return the lines of the log."""
    result = _invoke(preset, store, output)
    assert result.exit_code == 0, result.output
    return read_log(output)


def refusal(preset: Path, store: Path, output: Path) -> str:
    """What the command says of wrong input, run in this process: it fails before it trains."""
    result = _invoke(preset, store, output)
    assert result.exit_code == 1, result.output
    return result.stderr


def _invoke(preset: Path, store: Path, output: Path) -> Result:
    from training.descriptor.train import app

    return CliRunner().invoke(app, arguments(preset, store, output), catch_exceptions=False)


def environment() -> dict[str, str]:
    """One thread, so that sums are added in one order."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def one_torch_thread() -> Iterator[None]:
    """To make a fixture of: one thread for what runs in this process. Tiny models gain nothing from more."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def read_log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
