"""A small catalogue of generated videos with known copies, and the command line as a process."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.command_line import run_command
from tests.conftest import MakeOnce
from tests.videos import write_video

FPS = 10
Picture = NDArray[np.uint8]
RunCli = Callable[..., subprocess.CompletedProcess[str]]


def footage(seed: int, *, num_seconds: int = 9, height: int = 144, width: int = 192) -> list[Picture]:
    """A camera that pans over a striped world of shapes; every seed is another world."""
    generator = np.random.default_rng(seed)
    world = _world(generator, height=3 * height, width=3 * width)
    start, end = generator.uniform(0, 1, (2, 2))
    steps = np.linspace(0, 1, num_seconds * FPS)
    corners = [(start + (end - start) * step) * [height * 2, width * 2] for step in steps]
    return [world[int(y) : int(y) + height, int(x) : int(x) + width].copy() for y, x in corners]


def _world(generator: np.random.Generator, *, height: int, width: int) -> Picture:
    """Worlds differ in colors, stripes and the kind of their shapes: an untrained descriptor must tell them apart."""
    palette = generator.integers(0, 256, (5, 3))
    y, x = np.mgrid[:height, :width]
    angle, period_px = generator.uniform(0, np.pi), generator.uniform(6, 40)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period_px)[..., None]
    world: Picture = (wave * palette[0] + (1 - wave) * palette[1]).astype(np.uint8)
    kind, typical_px = int(generator.integers(3)), generator.uniform(8, 40)
    for _ in range(60):
        corner = generator.integers(0, (width, height))
        color = palette[2 + int(generator.integers(3))].tolist()
        size_px = int(typical_px * generator.uniform(0.6, 1.4))
        if kind == 0:
            cv2.circle(world, corner.tolist(), size_px, color, -1)
        elif kind == 1:
            end = corner + np.array([2 * size_px, size_px])
            cv2.rectangle(world, corner.tolist(), end.tolist(), color, -1)
        else:
            end = corner + generator.integers(-90, 90, 2)
            cv2.line(world, corner.tolist(), end.tolist(), color, max(2, size_px // 3))
    return world


def montage(seed: int, *, num_seconds: int = 9) -> list[Picture]:
    """Another world each second: a norm set of few videos must still determine a PCA."""
    return [frame for second in range(num_seconds) for frame in footage(1000 * seed + second, num_seconds=1)]


def edited(frames: list[Picture]) -> list[Picture]:
    """Brighter, cropped and scaled back."""
    height, width = frames[0].shape[:2]
    crop = (slice(height // 12, -height // 12), slice(width // 12, -width // 12))
    return [cv2.convertScaleAbs(cv2.resize(frame[crop], (width, height)), alpha=1.1, beta=10) for frame in frames]


def beside(frames: list[Picture], other: list[Picture]) -> list[Picture]:
    """Two videos side by side."""
    return [np.hstack(pair) for pair in zip(frames, other, strict=False)]


@dataclass(frozen=True)
class Catalogue:
    """Folders of videos and the ground truth between them."""

    queries: Path
    references: Path
    norm_set: Path
    ground_truth: Path
    num_copies: int


NUM_COPIES = 3


@pytest.fixture(scope="session")
def catalogue(make_once: MakeOnce) -> Catalogue:
    root = make_once("catalogue", write_catalogue)
    folders = (root / name for name in ("queries", "references", "norm_set"))
    return Catalogue(*folders, root / "ground_truth.csv", NUM_COPIES)


def write_catalogue(root: Path) -> None:
    for name in ("queries", "references", "norm_set"):
        (root / name).mkdir(parents=True)
    references = {f"R{index}": footage(100 + index) for index in range(6)}
    for name, frames in references.items():
        write_video(root / "references" / f"{name}.mp4", frames, fps=FPS)
    for index in range(6):
        write_video(root / "norm_set" / f"N{index}.mp4", montage(200 + index), fps=FPS)
    copies = {
        "Q0": ("R0", edited(references["R0"])),
        "Q1": ("R1", references["R1"][2 * FPS :]),
        "Q2 été": ("R2", beside(references["R2"], footage(300))),
    }
    assert len(copies) == NUM_COPIES
    for name, (_, frames) in copies.items():
        write_video(root / "queries" / f"{name}.mp4", frames, fps=FPS)
    for index in range(3):
        write_video(root / "queries" / f"D{index}.mp4", footage(400 + index), fps=FPS)
    with (root / "ground_truth.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end"])
        for name, (reference, frames) in copies.items():
            start_s = 2.0 if name == "Q1" else 0.0
            length_s = len(frames) / FPS
            table.writerow([name, reference, 0.0, length_s, start_s, start_s + length_s])


@pytest.fixture(scope="session")
def trained_engines(make_once: MakeOnce) -> Path:
    """Engines of preset lite with the weights of the package, whose verdicts mean something."""
    from engine.build.engines import build_engines
    from engine.config import load_preset

    return make_once("trained_engines", lambda folder: build_engines(load_preset("lite"), folder))


@pytest.fixture(scope="session")
def run_cli() -> RunCli:
    """Runs a command and checks its exit status; see `tests.command_line`."""
    return run_command


def kill_while_describing(arguments: Sequence[str | Path], store: Path) -> None:
    """Start a command as a process, and SIGKILL it as soon as there is a store."""
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline_s = time.monotonic() + 120
        while not store.exists() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the command ended before it could be killed"
