"""Presets are strict: what is wrong is named, with the nearest right key."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.config import ClipGate, Preset, Sampling, graph_parts, load_preset, parse_preset, preset_names
from engine.errors import ConfigError
from tests.gate_presets import ensemble_gate, gate_preset, gate_values, write_gate_preset

REPOSITORY = Path(__file__).resolve().parents[2]


def values_of(name: str) -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "engine" / "presets" / f"{name}.toml").read_text(encoding="utf-8"))


def test_shipped_presets_load() -> None:
    assert preset_names() == ["lite", "sscd", "vsc22", "vsc22_single"]
    assert load_preset("lite").gate.mode == "off"


def test_vsc22_single_is_vsc22_with_one_model_and_a_pca_of_its_own() -> None:
    single, full = load_preset("vsc22_single"), load_preset("vsc22")
    assert single.models == full.models[:1]
    pca = full.pca.model_copy(update={"checkpoint": None})
    assert single.model_copy(update={"name": full.name, "models": full.models}) == full.model_copy(update={"pca": pca})


def test_inputs_of_one_size_have_one_interpolation() -> None:
    values = values_of("vsc22")
    values["models"][0]["interpolation"] = "bilinear"
    with pytest.raises(ConfigError, match="inputs of one size must take them with one interpolation"):
        parse_preset(values, source="test")
    parts = graph_parts(load_preset("sscd"))["ensemble"]["models"]
    assert parts[0]["interpolation"] == "bilinear"
    for preset in (load_preset("vsc22"), parse_preset(load_preset("vsc22").model_dump(), source="test")):
        assert "interpolation" not in graph_parts(preset)["ensemble"]["models"][0]


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


def test_hdr_is_mapped_by_lite_and_read_as_the_reference_does_by_vsc22() -> None:
    assert {name: load_preset(name).decoding.hdr for name in ("lite", "vsc22", "vsc22_single")} == {
        "lite": "tone_map",
        "vsc22": "as_is",
        "vsc22_single": "as_is",
    }
    assert load_preset("vsc22").decoding.max_pixels == 67_108_864
    assert load_preset("lite").with_max_pixels(7).decoding.max_pixels == 7


def test_all_frames_are_sampled_unless_key_frames_are_asked_for() -> None:
    preset = load_preset("lite")
    assert preset.sampling.frames == load_preset("vsc22").sampling.frames == "all"
    assert preset.with_sampled_frames("keyframes").sampling.frames == "keyframes"
    assert parse_preset(
        {**preset.model_dump(mode="json"), "sampling": {"frames": "keyframes", "max_gap_s": 2.0}}, source="p"
    ).sampling == Sampling(frames="keyframes", max_gap_s=2.0)


def test_a_preset_survives_its_own_dump() -> None:
    preset = load_preset("vsc22")
    assert parse_preset(preset.model_dump(mode="json"), source="dump") == preset


def test_a_preset_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((REPOSITORY / "engine" / "presets" / "lite.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load_preset(path) == load_preset("lite")


def test_unknown_preset_fails() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown preset 'light'; expected one of \['lite', 'sscd', 'vsc22', 'vsc22_single'\]"
    ):
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


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("score_norm.beta", math.nan),
        ("score_norm.beta", -1),
        ("score_norm.nk", True),
        ("near_duplicates.max_cosine", math.nan),
        ("near_duplicates.max_cosine", -2),
        ("sampling.fps", math.inf),
        ("search.retrieve_per_query", "12"),
        ("search.retrieve_per_query", 10**20),
        ("localization.cosine.similarity_bias", math.nan),
        ("localization.cosine.max_iou", -3),
        ("localization.cosine.min_similarity", math.inf),
        ("models.0.mean", [math.nan, 0.5, 0.5]),
        ("models.0.std", [0, 0.5, 0.5]),
    ],
)
def test_a_number_that_is_none_or_senseless_fails(place: str, value: Any) -> None:
    values = values_of("lite")
    *parents, name = place.split(".")
    part: Any = values
    for parent in parents:
        part = part[int(parent)] if isinstance(part, list) else part.setdefault(parent, {})
    part[name] = value
    with pytest.raises(ConfigError, match=place.replace(".", r"\.")):
        parse_preset(values, source="test")


def test_a_preset_file_that_is_not_utf8_fails(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"binary\.toml is not valid TOML: .*utf-8"):
        load_preset(tmp_path / "binary.toml")


def test_equal_model_names_fail() -> None:
    values = values_of("vsc22")
    values["models"][1]["name"] = "v115"
    with pytest.raises(ConfigError, match=r"^test: Value error, model names must differ, got \[[^{]*\]$"):
        parse_preset(values, source="test")


def test_presets_are_frozen() -> None:
    preset: Preset = load_preset("lite")
    with pytest.raises(ValueError, match="frozen"):
        preset.name = "other"


def test_a_gate_on_the_ensemble_loads_from_a_file(tmp_path: Path) -> None:
    gate = ensemble_gate(mode="vsc", near_identical_cosine=None)
    assert (gate.mode, gate.model, gate.near_identical_cosine) == ("vsc", "small", None)
    preset = load_preset(write_gate_preset(tmp_path / "preset.toml", mode="vsc", near_identical_cosine=None))
    assert preset == gate_preset(mode="vsc", near_identical_cosine=None)


def test_a_gate_is_turned_on_and_off() -> None:
    preset = gate_preset(mode="off")
    enabled = preset.with_gate(enabled=True)
    assert enabled == gate_preset(mode="vsc")
    assert enabled.with_gate(enabled=False) == preset
    assert load_preset("vsc22").with_gate(enabled=False).gate.mode == "off"


def test_a_gate_that_is_not_there_cannot_be_turned_on() -> None:
    values = gate_values()
    values["gate"] = {"mode": "off"}
    preset = parse_preset(values, source="test")
    assert preset.with_gate(enabled=False) == preset
    with pytest.raises(ConfigError, match="'gated' has no edit gate to turn on"):
        preset.with_gate(enabled=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "large"}, r"gate\.model must name a model of architecture .* here \['small'\], got 'large'"),
        ({"near_identical_cosin": 1}, r"unknown key gate\..*, did you mean 'near_identical_cosine'"),
        ({"near_identical_cosine": 1.5}, "near_identical_cosine.*less than or equal to 1, got 1.5"),
        ({"architecture": "clip"}, "expected tags: .*'clip_vit_l14'"),
        ({"mode": "on"}, "mode: Input should be 'off' or 'vsc', got 'on'"),
    ],
)
def test_a_wrong_gate_fails(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_preset(gate_values(**change), source="test")
