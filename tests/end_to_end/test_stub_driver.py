"""Everything marked ``stub_driver``, in a process whose CUDA driver is the stub; the suite's own process has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ON_STUB_DRIVER, REPOSITORY
from tests.stub_driver.build import compile_driver
from tests.stub_driver.control import VARIABLE

FILES = [REPOSITORY / "tests" / name for name in ("contracts/test_runner.py", *ON_STUB_DRIVER)]


def test_the_runner_for_gpus_passes_on_the_stub_driver(tmp_path: Path) -> None:
    environment = os.environ | {VARIABLE: str(compile_driver(tmp_path))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *map(str, FILES)]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
