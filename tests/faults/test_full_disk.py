"""A disk that is full at any moment: one line that names the path, nothing half-written, and the next run goes on."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from engine.catalog.catalog import Catalog
from engine.records import CandidatePair, Descriptors, Match
from engine.store.challenge_npz import write_npz
from engine.store.shards import Fingerprint
from engine.store.store import StoreWriter, read_descriptors
from engine.store.tables import TABLE_SUFFIXES, write_candidates, write_matches
from tests.command_line import run_command
from tests.conftest import MakeOnce
from tests.end_to_end.conftest import FPS, footage
from tests.faults.conftest import rounds
from tests.faults.extraction import arguments
from tests.services import forked_service
from tests.videos import write_video

pytestmark = pytest.mark.torch

NO_ROOM = "cannot be written: No space left on device; make room there or choose another place"


@pytest.fixture(scope="module")
def videos(make_once: MakeOnce) -> Path:
    def write(folder: Path) -> None:
        folder.mkdir()
        for index in range(3):
            write_video(folder / f"V{index}.mp4", footage(900 + index, num_seconds=5), fps=FPS)

    return make_once("full_disk", write)


def assert_said(result: subprocess.CompletedProcess[str], output: Path) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert str(output.parent) in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["store", pytest.param("out.npz", marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", rounds(1))
def test_a_file_that_cannot_grow(videos: Path, lite_engines: Path, tmp_path: Path, name: str, seed: int) -> None:
    """The same as a full disk to a program, but for the number of the error."""
    size_bytes = random.Random(seed).randrange(40_000)  # noqa: S311
    command = arguments(videos, lite_engines, tmp_path / name)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    result = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    print(f"faults: files of {size_bytes} bytes at most: status {result.returncode}")  # noqa: T201
    assert_said(result, tmp_path / name)
    assert not (tmp_path / "out.npz").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert len(read_descriptors(tmp_path / name)) == 3


@contextmanager
def small_disk(folder: Path, *, size_bytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


@pytest.mark.long
@pytest.mark.parametrize("seed", rounds(1))
def test_a_disk_that_is_full(videos: Path, lite_engines: Path, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311
    with small_disk(tmp_path / "disk", size_bytes=1 << 20) as disk:
        (disk / "other").write_bytes(bytes((1 << 20) - 4096 * generator.randint(1, 12)))
        command = arguments(videos, lite_engines, disk / generator.choice(["store", "out.npz"]))
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"faults: full disk: status {result.returncode}")  # noqa: T201
        assert_said(result, disk / "any")
        (disk / "other").unlink()
        subprocess.run(command, check=True, capture_output=True)
        assert len(read_descriptors(Path(command[-3]))) == 3


def described(video_id: str, *, num_dims: int = 8) -> Descriptors:
    times = np.array([[0, 1], [1, 2]], np.float32)
    return Descriptors(video_id, times, np.eye(2, num_dims, dtype=np.float32))


def test_every_writer_names_its_file_and_what_to_do(videos: Path, tmp_path: Path) -> None:
    write_npz(tmp_path / "d.npz", [described("V0"), described("V1")])
    with StoreWriter(tmp_path / "store", identity={"role": "query"}) as writer:
        writer.add(described("V0"), Fingerprint(1, 1))
        writer.finish()
    (tmp_path / "truth.csv").write_text("query_id,ref_id\nV0,V0\n")
    write_candidates(tmp_path / "pairs.csv", [CandidatePair("V0", "V0", 1.0)])
    write_matches(tmp_path / "matches.csv", [Match("V0", "V0", 0.0, 2.0, 0.0, 2.0, 1.0)])
    both = ["--queries", tmp_path / "d.npz", "--references", tmp_path / "d.npz"]
    pairs, footage = ["--candidates", tmp_path / "pairs.csv"], ["--queries", videos, "--references", videos]
    with small_disk(tmp_path / "disk", size_bytes=1 << 20) as disk:
        (disk / "other").write_bytes(bytes(1 << 20))
        commands = [
            *(("search", *both, "--output", disk / f"pairs{suffix}") for suffix in TABLE_SUFFIXES),
            ("localize", *both, *pairs, "--output", disk / "matches.csv"),
            ("localize", *both, *pairs, "--output", tmp_path / "m.csv", "--rescored", disk / "pairs.csv"),
            ("evaluate", *pairs, "--ground-truth", tmp_path / "truth.csv", "--plot", disk / "curve.png"),
            ("report", "--matches", tmp_path / "matches.csv", *footage, "--output", disk / "page.html"),
            ("merge", tmp_path / "store", "--output", disk / "merged"),
            ("build", "--preset", "lite", "--output", disk / "engines"),
        ]
        for command in commands:
            line = run_command(*command, expect=1).stderr.splitlines()[-1]
            assert line.startswith(f"vsc-engine: {command[-1]}"), line
            assert line.endswith(f": {NO_ROOM}")
            assert [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size] == [disk / "other"]


def test_a_catalogue_without_room_keeps_what_it_has(tiny_engines: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_bytes=16 << 20) as disk:
        with Catalog.create(disk / "catalogue", engines=tiny_engines) as catalog:
            num_dims = catalog.manifest.num_dims
        write_npz(tmp_path / "d.npz", [described("V0", num_dims=num_dims)])
        with (disk / "other").open("wb") as file, suppress(OSError):
            shutil.copyfileobj(open("/dev/zero", "rb"), file)  # noqa: SIM115, PTH123
        for command in (
            ("catalog", "add", disk / "catalogue", tmp_path / "d.npz"),
            (
                *("catalog", "backup", disk / "catalogue"),
                disk / "copy",
            ),
        ):
            line = run_command(*command, expect=1).stderr.splitlines()[-1]
            assert str(disk) in line
            assert "No space left on device; make room there" in line
            assert "Errno" not in line
        (disk / "other").unlink()
        run_command("catalog", "add", disk / "catalogue", tmp_path / "d.npz")
        assert json.loads(run_command("catalog", "verify", disk / "catalogue").stdout)["num_videos"] == 1


def test_standard_output_without_room(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "engine", "info"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"vsc-engine: standard output: {NO_ROOM}"


def test_a_service_without_room_refuses_uploads_and_goes_on(videos: Path, tiny_engines: Path, tmp_path: Path) -> None:
    Catalog.create(tmp_path / "catalogue", engines=tiny_engines).close()
    video = videos / "V0.mp4"
    with (
        small_disk(tmp_path / "disk", size_bytes=1 << 20) as disk,
        forked_service(tmp_path / "catalogue", "--uploads", disk / "uploads", "--workers", "1") as server,
    ):
        (disk / "other").write_bytes(bytes((1 << 20) - 20_000))
        assert video.stat().st_size > 20_000
        for path in ("/v1/match", "/v1/videos?id=V0"):
            for reply in (server.post_file(path, video), server.ask("POST", path, body=video.read_bytes())):
                assert reply.status == 507
                assert "no room" in reply.body["error"]
        assert list((disk / "uploads" / "incoming").iterdir()) == []
        (disk / "other").unlink()
        assert server.post_file("/v1/videos?id=V0", video).status == 201
