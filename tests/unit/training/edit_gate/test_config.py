"""Presets of edit-score training: strict, and those that ship fit presets of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import NoGate, load_preset
from engine.errors import ConfigError
from training.edit_gate.config import PRESETS_FOLDER, load_edit_score_preset
from training.recipes import recipe_names


def test_vsc22_has_the_figures_of_the_reference() -> None:
    assert recipe_names(PRESETS_FOLDER) == ["lite", "vsc22"]
    preset = load_edit_score_preset("vsc22")
    settings = preset.optimization
    assert (settings.lr, settings.warmup, settings.epochs, settings.videos_per_rank) == (5e-5, 0.1, 10, 64)
    assert not isinstance(load_preset(preset.engine_preset).gate, NoGate)


def test_wrong_presets_fail(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nengine_preset = "lite"\nseed = 1\n[optimization]\nlr = 1\nepoch = 3\n')
    with pytest.raises(ConfigError, match=r"unknown key optimization\.epoch, did you mean 'epochs'"):
        load_edit_score_preset(str(path))
    path.write_text("name =")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_edit_score_preset(str(path))
    with pytest.raises(ConfigError, match=r"unknown preset 'light'; expected one of \['lite', 'vsc22'\]"):
        load_edit_score_preset("light")
    with pytest.raises(ConfigError, match="does not exist"):
        load_edit_score_preset(str(tmp_path / "none.toml"))
