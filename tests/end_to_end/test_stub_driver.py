"""GPUs without one: the tests on the stub driver, in a process of their own, and what the command line says.

The suite's own process has no driver, or that of the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runtime.manifest import write_manifest
from tests.conftest import ON_STUB_DRIVER, REPOSITORY
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.manifests import tensorrt_manifest
from tests.stub_driver.build import compile_driver
from tests.stub_driver.control import MIB, VARIABLE
from tests.videos import write_video

FILES = [REPOSITORY / "tests" / name for name in ("contracts/test_runner.py", "unit/run/test_plan.py", *ON_STUB_DRIVER)]
TWO_GPUS = f"devices=8.6:{1024 * MIB},9.0:{1024 * MIB}"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """Arguments of an extraction with engines for compute capability 8.6, which are of no use but to be refused."""
    folder = tmp_path_factory.mktemp("inputs")
    write_video(folder / "video.mp4", footage(1, num_seconds=2), fps=FPS)
    (folder / "engines").mkdir()
    write_manifest(tensorrt_manifest(folder / "engines", compute_capabilities=("8.6",)), folder / "engines")
    return ["extract", folder / "video.mp4", "--engines", folder / "engines", "--role", "reference"]


@pytest.mark.long
def test_the_runner_for_gpus_passes_on_the_stub_driver(library: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *map(str, FILES)]
    environment = os.environ | {VARIABLE: str(library)}
    result = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


def refused(run_cli: RunCli, inputs: list[str | Path], output: Path, *options: str, **environment: str) -> str:
    """The one line that people read."""
    names = {"LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    values = {key: value for key, value in os.environ.items() if key not in names} | {"COLUMNS": "1000"} | environment
    result = run_cli(*inputs, "--output", output, *options, expect=1, env=values, cwd=REPOSITORY)
    assert result.stdout == ""
    assert not output.exists()
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a driver")
def test_without_a_driver(run_cli: RunCli, inputs: list[str | Path], tmp_path: Path) -> None:
    line = refused(run_cli, inputs, tmp_path / "out")
    assert "no NVIDIA driver on this machine (libcuda.so.1: cannot open shared object file" in line


@pytest.mark.parametrize(
    ("machine", "options", "message"),
    [
        ("init=100", (), "the NVIDIA driver finds no GPU: give this machine or container one (cuInit failed"),
        ("version=12040", (), "the NVIDIA driver is too old: it runs CUDA 12.4, and these libraries need CUDA 13.0"),
        (TWO_GPUS, ("--gpus", "8"), "--gpus 8: this machine has 2 (0: Stub 8.6 (8.6, 1024 MiB), 1: Stub 9.0 (9.0"),
        (TWO_GPUS, ("--gpus", "2"), "built for compute capability 8.6, which GPUs 1 do not have"),
        (f"devices=9.0:{MIB}", (), "built for compute capability 8.6, which GPUs 0 do not have"),
    ],
    ids=["no device", "old driver", "too few", "several generations", "another GPU"],
)
def test_what_a_user_reads(
    run_cli: RunCli,
    inputs: list[str | Path],
    library: Path,
    tmp_path: Path,
    machine: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    line = refused(
        run_cli, inputs, tmp_path / "out", *options, LD_LIBRARY_PATH=str(library.parent), VSC_STUB_DRIVER=machine
    )
    assert message in line
