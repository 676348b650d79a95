"""`info` tells the truth about this machine."""

from __future__ import annotations

from importlib import metadata

from engine.run.machine import capabilities, describe_machine


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


def test_the_machine_is_one_line() -> None:
    assert "Python 3" in describe_machine()
    assert "\n" not in describe_machine()
