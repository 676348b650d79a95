"""Engines in the user's cache: built on first use, for each version of settings and weights."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from engine.build import cache, engines
from engine.config import Preset
from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
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


def test_other_weights_of_the_package_have_a_folder_of_their_own(package: Path, tmp_path: Path) -> None:
    before = cache.user_engines("tiny")
    package.rename(tmp_path / "old")
    write_packaged(package, seed=1)
    after = cache.user_engines("tiny")
    assert after.manifest.identity != before.manifest.identity
    assert EnginesDirectory.open(before.folder).manifest == before.manifest


def test_other_settings_have_a_folder_of_their_own(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.user_engines("tiny")
    other = before.manifest.preset.with_fps(2.0)
    monkeypatch.setattr(cache, "load_preset", lambda _: other)
    assert cache.user_engines("tiny").manifest.preset == other
    assert EnginesDirectory.open(before.folder).manifest == before.manifest
    assert package.is_dir()


class TestNoUsableHome:
    @pytest.fixture(autouse=True)
    def nobody(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert package.is_dir()
        monkeypatch.delenv("XDG_CACHE_HOME")

    @staticmethod
    def error() -> str:
        with pytest.raises(ConfigError) as caught:
            cache.user_engines("tiny")
        assert "XDG_CACHE_HOME" in str(caught.value)
        assert "--engines" in str(caught.value)
        return str(caught.value)

    def test_a_user_without_an_entry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(_: int) -> None:
            raise KeyError

        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        assert "no home folder" in self.error()

    @pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null"])
    def test_a_home_that_cannot_be(self, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", home)
        assert f"cannot keep built engines in {home}/.cache/vsc-engine/engines/tiny-" in self.error()

    def test_a_home_that_may_not_be_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        folder = tmp_path / ".cache" / "vsc-engine" / "engines"
        monkeypatch.setenv("HOME", str(tmp_path))
        # Root may write all.
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or not path.is_relative_to(folder))
        assert "not writable" in self.error()
