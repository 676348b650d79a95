"""Manifests: what was built, and every way in which the file may be of no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import graph_parts, load_preset
from engine.errors import ConfigError
from engine.runtime.manifest import (
    MANIFEST_NAME,
    WeightsRecord,
    digest,
    is_intact,
    parse_manifest,
    record_file,
    write_manifest,
)
from tests.gate_presets import gate_preset
from tests.manifests import make_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(make_manifest(tmp_path), tmp_path)
    return tmp_path


def test_is_read_back_as_it_was(folder: Path) -> None:
    manifest = parse_manifest(folder / MANIFEST_NAME)
    assert manifest == make_manifest(folder)
    assert manifest.engines["ensemble"].main.path == "engine.xml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99, this version of vsc-engine reads 2"),
        ({"backend": "abacus"}, r"backend: Input should be 'openvino'"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_manifest_of_another_version_fails(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=message + ".*; build it with"):
        parse_manifest(folder / MANIFEST_NAME)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_broken_manifest_fails(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json (is not JSON|has format version None).*; build it with"):
        parse_manifest(folder / MANIFEST_NAME)


def test_is_intact_sees_size_bytes_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    record = record_file(path, directory=tmp_path)
    # SHA-256 of "abc": FIPS 180-2, appendix B.1.
    assert record.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert is_intact(record, directory=tmp_path)
    path.write_bytes(b"abd")
    assert not is_intact(record, directory=tmp_path)
    path.write_bytes(b"ab")
    assert not is_intact(record, directory=tmp_path)
    path.unlink()
    assert not is_intact(record, directory=tmp_path)


def test_identity_changes_with_what_decides_a_descriptor(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    preset = manifest.preset
    graph = manifest.graphs["ensemble"]
    other_weights = graph.model_copy(update={"weights": (WeightsRecord(checkpoint="weights.bin", sha256="ac"),)})
    other_mean = preset.model_copy(update={"models": (preset.models[0].model_copy(update={"mean": (0, 0, 0)}),)})
    others = [
        make_manifest(tmp_path, pca=None),
        make_manifest(tmp_path, graphs={"ensemble": other_weights}),
        make_manifest(tmp_path, preset=other_mean),
    ]
    assert len({manifest.identity, *(other.identity for other in others)}) == 4
    assert len(manifest.identity) == 16


def test_identity_does_not_change_with_anything_else(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    graph = manifest.graphs["ensemble"].model_copy(update={"versions": {"torch": "3"}, "key": "9"})
    renamed = (WeightsRecord(checkpoint="renamed.bin", sha256="ab"),)
    preset = manifest.preset.model_copy(update={"name": "mine", "scenes": load_preset("vsc22").scenes})
    for other in (
        make_manifest(tmp_path, created="2027-01-01T00:00:00+00:00"),
        make_manifest(tmp_path, graphs={"ensemble": graph}),
        make_manifest(tmp_path, graphs={"ensemble": graph.model_copy(update={"weights": renamed})}),
        make_manifest(tmp_path, preset=preset),
    ):
        assert other.identity == manifest.identity


def test_graph_parts_of_the_presets() -> None:
    assert list(graph_parts(load_preset("lite"))) == ["ensemble", "edit_score"]
    parts = graph_parts(load_preset("vsc22"))
    assert list(parts) == ["ensemble", "edit_features", "edit_score"]
    assert [model["name"] for model in parts["ensemble"]["models"]] == ["v115", "v107", "v106", "v68"]
    assert set(parts["edit_features"]) == {"architecture", "input_px", "mean", "std"}
    assert parts["edit_score"] == {"architecture": "edit_score_bert"}
    assert "checkpoint" not in json.dumps(parts)


def test_a_gate_on_the_ensemble_is_part_of_it_whether_on_or_off() -> None:
    parts = graph_parts(gate_preset(mode="off"))
    assert list(parts) == ["ensemble", "edit_score"]
    assert parts["ensemble"]["edit_features"] == {"architecture": "efficientnet_lite0_statistics", "model": "small"}
    assert parts["edit_score"] == {"architecture": "edit_score_pooled"}
    assert graph_parts(gate_preset(mode="vsc", score_threshold=0.1, near_identical_cosine=None)) == parts


def test_digest_tells_values_and_places_apart() -> None:
    assert digest("a", None) == digest("a", None)
    assert len({digest("a", None), digest(None, "a"), digest("a"), digest(["a"], None), digest("a", "null")}) == 5
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
