"""`info` tells the truth about this machine."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from engine import machine
from engine.errors import BackendUnavailable
from engine.machine import capabilities, describe_machine, visible_gpus


def test_installed_parts_are_named_with_their_versions() -> None:
    parts = {part.name: part for part in capabilities()}
    search = parts["search on the CPU (FAISS)"]
    assert search.available
    assert metadata.version("faiss-cpu") in search.detail


def test_what_is_missing_says_why() -> None:
    for part in capabilities():
        assert part.detail
        if not part.available:
            assert "pip install" in part.detail or "driver" in part.detail


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_no_driver_is_said() -> None:
    with pytest.raises(BackendUnavailable, match="NVIDIA driver"):
        visible_gpus()


@pytest.mark.parametrize(
    ("chosen", "expected"), [(None, ("0", "1", "2")), ("4, 6,7", ("4", "6", "7")), ("", ("0", "1", "2"))]
)
def test_gpus_have_the_names_that_the_driver_takes(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: tuple[str, ...]
) -> None:
    class Driver:
        def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 - the driver's name
            count._obj.value = 3
            return 0

    monkeypatch.setattr(machine, "_driver", Driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == expected


def test_the_machine_is_one_line() -> None:
    assert "Python 3" in describe_machine()
    assert "\n" not in describe_machine()
