"""Tiny training runs for tests: a store of made pictures, and the recipe `lite` with few and small pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import REPOSITORY
from training.descriptor.train import app
from training.store.frame_store import build_store, find_sources

NUM_PICTURES = 20


def make_store(folder: Path) -> Path:
    """A store of 20 pictures of coloured blocks."""
    (folder / "pictures").mkdir(parents=True)
    for seed in range(NUM_PICTURES):
        blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST).save(folder / "pictures" / f"{seed:02d}.png")
    build_store(find_sources([folder / "pictures"]), folder / "store")
    return folder / "store"


def write_preset(folder: Path, *, pairs_per_rank: int = 4, epochs: float = 2.0, **changes: str) -> Path:
    """The recipe `lite` in small; ``changes`` replace values of its TOML text."""
    text = (REPOSITORY / "training" / "presets" / "lite.toml").read_text(encoding="utf-8")
    lines = {
        "pairs_per_rank": str(pairs_per_rank),
        "epochs": str(epochs),
        "precision": '"fp32"',
        "memory_rows": "16",
        "whiten_projection": "false",
        **changes,
    }
    kept = []
    for line in text.split("\n[[resolutions]]")[0].splitlines():
        key = line.split(" = ")[0]
        kept.append(f"{key} = {lines[key]}" if key in lines else line)
    kept.append("[[resolutions]]\nstart = 0.0\ninput_px = 32\n")
    path = folder / "preset.toml"
    path.write_text("\n".join(kept), encoding="utf-8")
    return path


def command(preset: Path, store: Path, output: Path, *, num_processes: int = 1) -> list[str]:
    """The command line of a run, under ``torchrun`` for more processes than one."""
    launcher = [sys.executable, "-m"]
    if num_processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
    return [*launcher, "training.descriptor.train", *arguments(preset, store, output)]


def arguments(preset: Path, store: Path, output: Path) -> list[str]:
    """What follows the name of the command."""
    paths = ["--preset", str(preset), "--store", str(store), "--output", str(output)]
    return [*paths, "--workers", "0", "--validation-share", "0.2"]


def refusal(preset: Path, store: Path, output: Path) -> str:
    """What the command says of wrong input, run in this process: it fails before it trains."""
    result = CliRunner().invoke(app, arguments(preset, store, output), catch_exceptions=False)
    assert result.exit_code == 1, result.output
    return result.stderr


def environment() -> dict[str, str]:
    """One thread, so that sums are added in one order."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def train(preset: Path, store: Path, output: Path, *, num_processes: int = 1) -> list[dict[str, float]]:
    """Run to the end and return the lines of the log."""
    subprocess.run(
        command(preset, store, output, num_processes=num_processes), env=environment(), check=True, cwd=REPOSITORY
    )
    return read_log(output)


def read_log(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
