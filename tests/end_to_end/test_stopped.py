"""A command that is stopped says so in one line; that it goes on, where it does, is in `test_workers`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_ctrl_c_is_told_of_in_one_line(tmp_path: Path, log_format: str) -> None:
    """The command waits for what nobody writes into a pipe."""
    truth = tmp_path / "truth.csv"
    os.mkfifo(truth)
    command = [sys.executable, "-m", "engine", "--log-format", log_format, "evaluate", "--matches", "none.csv"]
    command += ["--ground-truth", str(truth)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with process, truth.open("w"):  # opened by both
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(stderr.splitlines()) == 1
    assert "vsc-engine: stopped by Ctrl-C" in stderr
    assert "goes on" not in stderr, "nothing was written"
