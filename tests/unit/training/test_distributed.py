"""Two ranks with half of the rows each have the gradients of one process with all rows."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.ranks import gradients, send_gradients

pytestmark = pytest.mark.torch


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_gradients_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((8, 4), dtype=np.float32)
    expected = gradients(rows, tmp_path / "alone")
    processes = multiprocessing.get_context("spawn")
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    answer, theirs = processes.Pipe(duplex=False)
    other = processes.Process(
        target=send_gradients, args=(theirs, common | {"RANK": "1"}, rows, tmp_path / "note"), daemon=True
    )
    other.start()
    theirs.close()
    for name, value in (common | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    mine = gradients(rows, tmp_path / "note")
    for found in (mine, answer.recv()):
        assert len(found) == len(expected) == 2
        for one, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, wanted, rtol=1e-5)
    other.join()
    assert other.exitcode == 0
