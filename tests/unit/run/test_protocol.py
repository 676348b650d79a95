"""What a run refuses before it starts, and how it sizes its PCA; whole runs are in ``tests/end_to_end``."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.records import Media
from engine.run import protocol
from engine.run.protocol import RunSettings
from engine.runtime.engines_directory import EnginesDirectory
from tests.gate_presets import gate_preset
from tests.manifests import make_manifest


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    (tmp_path / "engines").mkdir()
    engines = EnginesDirectory(tmp_path / "engines", make_manifest(tmp_path / "engines"))
    folders = {name: tmp_path / name for name in ("queries", "references", "output")}
    return RunSettings(**folders, norm_set=None, engines=engines, preset=gate_preset())


def test_references_in_the_norm_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match=r"1 videos are in the norm set and among the references.*a\.mp4"):
        protocol._check_norm_set([Media("a", tmp_path / "a.mp4")], [Media("link", tmp_path / "link.mp4")])
    protocol._check_norm_set([Media("a", tmp_path / "a.mp4")], [Media("b", tmp_path / "b.mp4")])


def test_an_output_folder_belongs_to_one_set_of_settings(settings: RunSettings) -> None:
    protocol._claim(settings, None)
    protocol._claim(settings, None)
    for other, name in (
        (replace(settings, use_score_norm=False), "use_score_norm"),
        (replace(settings, preset=settings.preset.with_fps(2.0)), "preset"),
    ):
        with pytest.raises(ConfigError, match=f"holds a run with another {name}; choose a new --output folder"):
            protocol._claim(other, None)
    (settings.output / "run.json").write_text("[")
    with pytest.raises(ConfigError, match=r"run\.json is not the settings of a run"):
        protocol._claim(settings, None)


def test_an_output_folder_belongs_to_one_norm_set(settings: RunSettings, tmp_path: Path) -> None:
    """The PCA was fitted on it, and another one must not get that."""
    media = []
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
        media.append(Media(name, tmp_path / f"{name}.mp4"))
    protocol._claim(settings, media[:2])
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(b"a")
    protocol._claim(settings, [Media("a", moved), media[1]])
    media[1].path.write_bytes(b"x")
    for other in (media, media[:1], [media[0], media[2]], media[:2], None):
        with pytest.raises(ConfigError, match="holds a run with another norm_set; choose a new --output folder"):
            protocol._claim(settings, other)


def test_the_rule_of_exact_copies_is_that_of_the_gate(settings: RunSettings) -> None:
    assert settings.near_identical_cosine == 0.98
    assert replace(settings, preset=gate_preset(near_identical_cosine=None)).near_identical_cosine is None


@pytest.mark.parametrize(("num_rows", "expected"), [(600, 512), (513, 512), (512, 511), (3, 2)])
def test_a_pca_has_no_more_components_than_the_norm_set_determines(
    settings: RunSettings, caplog: pytest.LogCaptureFixture, num_rows: int, expected: int
) -> None:
    with caplog.at_level(logging.WARNING, logger="engine"):
        assert protocol._num_components(settings.preset, np.zeros((num_rows, 600), np.float32)) == expected
    assert bool(caplog.records) == (expected < 512)
