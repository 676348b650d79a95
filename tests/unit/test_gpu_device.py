"""`make test-gpu` on a machine without a GPU: it fails, with one line that says why."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.gpu.device import why_no_gpu

pytestmark = pytest.mark.skipif(why_no_gpu() is None, reason="this machine has a GPU")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_first_step_of_make_fails_with_one_line() -> None:
    result = run("tests/gpu/device.py")
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("the tests in tests/gpu need an NVIDIA GPU, and they do not skip: ")


def test_the_tests_themselves_fail_and_do_not_skip() -> None:
    result = run("-m", "pytest", "-q", "-m", "gpu", "tests/gpu")
    assert result.returncode == 1, result.stdout
    assert "need an NVIDIA GPU" in result.stdout + result.stderr
    assert not re.search(r"\d passed", result.stdout)
    assert "skipped" not in result.stdout
