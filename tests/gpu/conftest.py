"""Tests that only a GPU can run: `make test-gpu`. All else leaves them out by their mark, and pytest says how many."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import catalogue, run_cli
from tests.gpu.device import why_no_gpu

__all__ = ["catalogue", "run_cli"]


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    """Without a GPU the whole run fails: a skipped test of a GPU would look like one that passed."""
    reason = why_no_gpu()
    if reason:
        pytest.exit(f"the tests in tests/gpu need an NVIDIA GPU, and they do not skip: {reason}", returncode=1)
