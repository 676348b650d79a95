"""Presets are strict: what is wrong is named, with the nearest right key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.config import ClipGate, Preset, load_preset, parse_preset, preset_names
from engine.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]


def values_of(name: str) -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "engine" / "presets" / f"{name}.toml").read_text(encoding="utf-8"))


def test_shipped_presets_load() -> None:
    assert preset_names() == ["lite", "vsc22"]
    assert load_preset("lite").gate.mode == "off"


def test_vsc22_has_the_figures_of_the_reference() -> None:
    preset = load_preset("vsc22")
    assert [(model.name, model.input_px) for model in preset.models] == [
        ("v115", 256),
        ("v107", 256),
        ("v106", 256),
        ("v68", 384),
    ]
    assert isinstance(preset.gate, ClipGate)
    assert (preset.gate.score_threshold, preset.gate.max_frames) == (0.001, 256)
    assert preset.near_duplicates.max_cosine == 0.975
    assert (preset.pca.num_components, preset.score_norm.beta, preset.score_norm.nk) == (512, 1.2, 1)


def test_a_preset_survives_its_own_dump() -> None:
    preset = load_preset("vsc22")
    assert parse_preset(preset.model_dump(mode="json"), source="dump") == preset


def test_a_preset_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((REPOSITORY / "engine" / "presets" / "lite.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load_preset(path) == load_preset("lite")


def test_unknown_preset_fails() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'light'; expected one of \['lite', 'vsc22'\]"):
        load_preset("light")


def test_missing_or_broken_file_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_preset(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = ", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_preset(tmp_path / "broken.toml")


def test_misspelt_key_fails_with_the_nearest_one() -> None:
    values = values_of("lite")
    values["score_norm"]["betta"] = 1
    with pytest.raises(ConfigError, match=r"unknown key score_norm\.betta, did you mean 'beta'"):
        parse_preset(values, source="test")


def test_value_out_of_range_fails() -> None:
    values = values_of("vsc22")
    values["gate"]["score_threshold"] = 2
    with pytest.raises(ConfigError, match=r"score_threshold.*less than or equal to 1, got 2"):
        parse_preset(values, source="test")


def test_equal_model_names_fail() -> None:
    values = values_of("vsc22")
    values["models"][1]["name"] = "v115"
    with pytest.raises(ConfigError, match="model names must differ"):
        parse_preset(values, source="test")


def test_presets_are_frozen() -> None:
    preset: Preset = load_preset("lite")
    with pytest.raises(ValueError, match="frozen"):
        preset.name = "other"
