"""Two Ray nodes on this machine, one of them killed in mid-run, against one process: the same rows, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.catalog.catalog import Catalog
from engine.catalog.tables import Tables
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.store import read_descriptors, read_manifest, stored_videos
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.end_to_end.test_workers import assert_same, opened_by
from tests.ray_clusters import add_node, kill_node, ray_cluster
from tests.videos import write_video
from tests.workers import children, wait_until

NUM_VIDEOS = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(NUM_VIDEOS):
        write_video(folder / f"V{index}.mp4", footage(900 + index, num_seconds=12), fps=FPS)
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture(scope="module")
def one(videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one process."""
    output = tmp_path_factory.mktemp("one") / "store"
    run_cli(*extract(tiny_engines, output), expect=3, cwd=videos)
    return output


def extract(engines: Path, output: Path, *options: str) -> list[str]:
    """The command line, for the folder of the videos: paths of theirs are relative there."""
    arguments = ["extract", ".", "--role", "query", "--engines", engines, "--output", output, *options]
    return [*map(str, arguments)]


@pytest.mark.long
def test_a_killed_node_costs_nothing(
    cluster: Any, videos: Path, tiny_engines: Path, one: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    arguments = extract(tiny_engines, tmp_path / "store", "--cluster", cluster.address)
    command = [sys.executable, "-m", "engine", *arguments]
    with subprocess.Popen(command, cwd=videos, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        (node,) = cluster.worker_nodes
        raylet = node.all_processes["raylet"][0].process.pid

        def is_in_mid_run() -> bool:
            assert process.poll() is None, process.communicate()
            if not (tmp_path / "store" / "journal").exists():
                return False
            busy = [pid for pid in children(raylet) for path in videos.glob("V*.mp4") if opened_by(pid, path)]
            for pid in busy:
                os.kill(pid, signal.SIGSTOP)  # it must not end its video before the node ends
            return bool(busy)

        wait_until(is_in_mid_run, limit_s=120)
        kill_node(cluster, node)
        stdout, stderr = process.communicate(timeout=120)
    add_node(cluster)
    assert process.returncode == 3, stderr
    assert "was lost with it" in stderr
    assert_same(read_descriptors(tmp_path / "store"), read_descriptors(one))
    assert len(list(stored_videos(tmp_path / "store"))) == NUM_VIDEOS
    assert read_manifest(tmp_path / "store").failures == read_manifest(one).failures
    assert (tmp_path / "store" / "failures.csv").read_bytes() == (one / "failures.csv").read_bytes()
    figures = json.loads(stdout.splitlines()[-1])
    assert figures["num_failures"] == 1
    assert set(figures["stages_s"]) >= {"decode", "ensemble"}


@pytest.mark.long
def test_a_catalogue_takes_the_same_rows(
    cluster: Any, videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    paths = [videos / name for name in ("V0.mp4", "V1.mp4", "empty.mp4")]
    for name in ("one", "cluster"):
        Catalog.create(tmp_path / name, engines=EnginesDirectory.open(tiny_engines))
    with Catalog.open(tmp_path / "one") as catalog:
        catalog.add(paths)
    run_cli("catalog", "add", tmp_path / "cluster", *paths, "--cluster", cluster.address, expect=3, process=True)
    first, second = (rows_of(tmp_path / name) for name in ("one", "cluster"))
    assert first == second
    assert first.keys() == {"V0", "V1"}


def rows_of(folder: Path) -> dict[str, str]:
    """The checksums of the rows by id."""
    entries = Tables.open(folder, num_dims=Catalog.open(folder).manifest.num_dims).entries()
    return {video_id: entry.rows_sha256 for video_id, entry in entries.items()}


def test_an_address_that_does_not_answer_is_said_in_one_line(
    videos: Path, tiny_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    process = run_cli(
        *extract(tiny_engines, tmp_path / "store", "--cluster", "127.0.0.1:1"), expect=1, cwd=videos, process=True
    )
    (line,) = process.stderr.splitlines()
    assert "no Ray cluster answers at" in line
