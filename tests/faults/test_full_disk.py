"""A disk that is full at any moment: one line that names the path, nothing half-written, and the next run goes on."""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.catalog.catalog import Catalog
from engine.store.store import read_descriptors
from tests.conftest import MakeOnce
from tests.end_to_end.conftest import FPS, footage
from tests.faults.conftest import rounds
from tests.faults.extraction import arguments
from tests.services import forked_service
from tests.videos import write_video

pytestmark = pytest.mark.torch


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
