"""Engines in the user's cache: built on first use, and again when the package brings other weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.build import cache, engines
from engine.config import Preset
from engine.runtime.manifest import MANIFEST_NAME
from tests.packaged import tiny_preset, write_packaged


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose only weights are tiny."""
    preset = tiny_preset().model_copy(update={"weights": "tiny"})

    def load(_: str) -> Preset:
        return preset

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "load_preset", load)
    for module in (cache, engines):
        monkeypatch.setattr(module, "packaged_folder", lambda name: tmp_path / name)
    return write_packaged(tmp_path / "tiny")


def test_engines_are_built_once(package: Path) -> None:
    folder = cache.user_engines("tiny").folder
    written_ns = (folder / MANIFEST_NAME).stat().st_mtime_ns
    assert cache.user_engines("tiny").folder == folder
    assert (folder / MANIFEST_NAME).stat().st_mtime_ns == written_ns
    assert package.is_dir()


def test_other_weights_of_the_package_are_built_again(package: Path, tmp_path: Path) -> None:
    before = cache.user_engines("tiny").manifest.identity
    package.rename(tmp_path / "old")
    write_packaged(package, seed=1)
    assert cache.user_engines("tiny").manifest.identity != before
