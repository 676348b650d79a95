"""The compute capability, from a stand-in for the driver and without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = "from engine.runtime.gpu import compute_capability; print(compute_capability())"
DRIVER = """
int cuInit(unsigned flags) { return %d; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device != 0) return 101;
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;
    return 0;
}
"""


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(("status", "answer"), [(0, "8.9"), (100, "answers with error 100 when asked for GPU 0")])
def test_the_driver_is_asked(tmp_path: Path, status: int, answer: str) -> None:
    (tmp_path / "driver.c").write_text(DRIVER % status)
    command = ["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"]
    subprocess.run(command, check=True)
    result = ask(tmp_path)
    assert answer in (result.stderr if status else result.stdout)
    assert result.returncode == (1 if status else 0)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="says what happens without a driver")
def test_without_a_driver_the_way_out_is_named(tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert "BackendUnavailable: no NVIDIA driver" in result.stderr
    assert "--flavour tensorrt_rtx" in result.stderr
