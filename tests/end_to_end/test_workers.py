"""Worker processes: results that do not depend on them, and workers that are really killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.records import Descriptors
from engine.store.store import read_descriptors, read_manifest
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.videos import write_video
from tests.workers import children, is_alive, wait_until

LONG, LONG_S = "V3", 120


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(5):
        write_video(folder / f"V{index}.mp4", footage(700 + index, num_seconds=LONG_S if index == 3 else 3), fps=FPS)
    (folder / "empty.mp4").touch()
    return folder


def extract_arguments(videos: Path, engines: Path, output: Path, *, workers: int) -> list[str]:
    arguments = ["extract", videos, "--role", "query", "--engines", engines, "--output", output, "--workers", workers]
    return [*map(str, arguments)]


@pytest.fixture(scope="module")
def expected(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory
) -> list[Descriptors]:
    """What one worker makes of the videos."""
    output = tmp_path_factory.mktemp("one") / "store"
    run_cli(*extract_arguments(videos, tiny_engines, output, workers=1), expect=3)
    return read_descriptors(output)


def assert_same(found: Sequence[Descriptors], expected: Sequence[Descriptors]) -> None:
    assert [item.video_id for item in found] == [item.video_id for item in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
        np.testing.assert_array_equal(one.descriptors, other.descriptors)
        assert one.warnings == other.warnings


@contextmanager
def started(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "engine", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process


def opened_by(pid: int, path: Path) -> bool:
    try:
        return any(link.readlink() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended meanwhile
        return False


@contextmanager
def killer(pid: int, video: Path, *, num_kills: int) -> Iterator[list[int]]:
    """While the block runs, SIGKILL every child of ``pid`` that has ``video`` open, ``num_kills`` times at most."""
    killed: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while len(killed) < num_kills and not stop.wait(0.003):
            for child in [child for child in children_or_none(pid) if opened_by(child, video)]:
                os.kill(child, signal.SIGKILL)
                killed.append(child)
                wait_until(lambda child=child: not is_alive(child), limit_s=120)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def children_or_none(pid: int) -> list[int]:
    try:
        return children(pid)
    except OSError:
        return []


def test_results_do_not_depend_on_the_number_of_workers(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path, expected: list[Descriptors]
) -> None:
    result = run_cli(*extract_arguments(videos, tiny_engines, tmp_path / "store", workers=3), expect=3)
    assert_same(read_descriptors(tmp_path / "store"), expected)
    assert [item.video_id for item in expected] == ["V0", "V1", "V2", "V3", "V4"]
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["num_failures"] == 1
    assert set(figures["stages_s"]) >= {"decode", "ensemble"}
    run_cli(*extract_arguments(videos, tiny_engines, tmp_path / "out.npz", workers=2), expect=3)
    assert_same(read_descriptors(tmp_path / "out.npz"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "out_failures.csv", "store"]


def test_the_video_of_a_killed_worker_is_described_after_all(
    videos: Path, tiny_engines: Path, tmp_path: Path, expected: list[Descriptors]
) -> None:
    arguments = extract_arguments(videos, tiny_engines, tmp_path, workers=2)
    with started(arguments) as process, killer(process.pid, videos / f"{LONG}.mp4", num_kills=1) as killed:
        _, stderr = process.communicate()
    assert len(killed) == 1
    assert process.returncode == 3, stderr
    assert "was ended by SIGKILL and is replaced" in stderr
    assert_same(read_descriptors(tmp_path), expected)
    assert [failure.video_id for failure in read_manifest(tmp_path).failures] == ["empty"]


@pytest.mark.long
def test_a_video_that_kills_its_workers_is_recorded_and_costs_no_other_its_result(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path, expected: list[Descriptors]
) -> None:
    arguments = extract_arguments(videos, tiny_engines, tmp_path, workers=2)
    with started(arguments) as process, killer(process.pid, videos / f"{LONG}.mp4", num_kills=99) as killed:
        stdout, stderr = process.communicate()
    assert len(killed) in {2, 3}, f"twice while it was described, and perhaps while its header was read: {stderr}"
    assert process.returncode == 3, stderr
    assert json.loads(stdout.splitlines()[-1])["num_failures"] == 2
    with (tmp_path / "failures.csv").open(encoding="utf-8") as file:
        failures = {row["video_id"]: row for row in csv.DictReader(file)}
    assert set(failures) == {"empty", LONG}
    assert failures[LONG]["stage"] == "worker"
    assert "ended by SIGKILL" in failures[LONG]["reason"]
    assert_same(read_descriptors(tmp_path), [item for item in expected if item.video_id != LONG])
    run_cli(*arguments)  # the empty file is known, and not tried again
    assert_same(read_descriptors(tmp_path), expected)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGKILL, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_no_worker_outlives_the_run_and_the_run_goes_on(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path, expected: list[Descriptors], number: int
) -> None:
    arguments = extract_arguments(videos, tiny_engines, tmp_path / "store", workers=2)
    with started(arguments) as process:
        wait_until(
            lambda: any(opened_by(child, videos / f"{LONG}.mp4") for child in children_or_none(process.pid)),
            limit_s=120,
        )
        workers = children(process.pid)
        process.send_signal(number)
        _, stderr = process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
        last = (
            f"vsc-engine: stopped by {name}; what was written before is kept, and the same command goes on from there"
        )
        assert stderr.splitlines()[-1] == last
        assert "Traceback" not in stderr
    assert len(workers) == 2
    wait_until(lambda: not any(map(is_alive, workers)), limit_s=20)
    run_cli(*arguments, "--retry-failed", expect=3)
    assert_same(read_descriptors(tmp_path / "store"), expected)


def test_a_plan_needs_no_gpu_and_writes_nothing(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    arguments = extract_arguments(videos, tiny_engines, tmp_path / "store", workers=1)[:-2]
    result = run_cli(*arguments, "--gpus", "2", "--plan")
    figures = json.loads(result.stdout)
    assert figures["num_videos"] == 6
    assert [worker["name"] for worker in figures["workers"]] == ["GPU 0", "GPU 1"]
    assert sum(worker["num_videos"] for worker in figures["workers"]) == 6
    assert sum(worker["footage_s"] for worker in figures["workers"]) == pytest.approx(4 * 3 + LONG_S, abs=0.5)
    assert figures["engine_bytes"] > 0
    assert "GPU 1" in result.stderr
    assert not (tmp_path / "store").exists()


def test_numbers_of_workers_that_do_not_fit(videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path) -> None:
    arguments = extract_arguments(videos, tiny_engines, tmp_path / "store", workers=1)
    error = run_cli(*arguments, "--gpus", "8", expect=1).stderr
    assert "exclude each other" in error
    error = run_cli(*arguments[:-2], "--gpus", "8", expect=1).stderr
    assert "these engines are for the CPU" in error
    assert len(error.splitlines()) == 1
