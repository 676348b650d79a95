"""In CI, fewer tests of recorded behaviour than there are fail the run, even if all that ran passed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ONLY_LONG, REPOSITORY


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("false", 0)])
def test_missing_tests_of_recorded_behaviour_fail_a_run_in_ci(ci: str, status: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "tests/unit/test_timing.py"]
    environment = os.environ | {"CI": ci}
    environment.pop("PYTEST_XDIST_WORKER", None)
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stdout
    assert "; 0 tests on it passed (CI asks for " in result.stdout


def test_what_make_test_long_asks_for_holds_none_of_them() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f'test-long: .venv/ready\n\t$(PYTEST) -m "{ONLY_LONG}"\n' in makefile
