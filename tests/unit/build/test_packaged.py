"""The folder of weights that comes with the package: read, and refused where it is not as recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.build.packaged import PackagedWeights, packaged_folder
from engine.errors import ConfigError
from engine.runtime.manifest import MANIFEST_NAME
from tests.conftest import REPOSITORY
from tests.packaged import write_packaged


def test_every_file_is_recorded_and_found(tmp_path: Path) -> None:
    packaged = PackagedWeights.open(write_packaged(tmp_path / "tiny"))
    paths = [packaged.path(file) for file in packaged.manifest.files]
    assert {path.name for path in paths} == {"ensemble.onnx", "ensemble.check.npz", "pca.npz", "norm_set.npz"}
    assert {*paths, packaged.folder / MANIFEST_NAME} == set(packaged.folder.iterdir())


def test_other_weights_have_another_hash(tmp_path: Path) -> None:
    one, same, other = (
        PackagedWeights.open(write_packaged(tmp_path / name, seed=seed)).sha256
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same != other


def test_damage_is_seen(tmp_path: Path) -> None:
    packaged = PackagedWeights.open(write_packaged(tmp_path / "tiny"))
    path = packaged.folder / "pca.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"pca\.npz is missing or damaged; install the package again"):
        packaged.path(packaged.manifest.pca)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no weights: manifest.json is missing or damaged"),
        ("{", "holds no weights: manifest.json is missing or damaged"),
        ("[]", "holds no weights: manifest.json is missing or damaged"),
        (json.dumps({"format_version": 99}), "has format version 99, this version reads 1"),
        (json.dumps({"format_version": 1}), "is damaged: Field required"),
    ],
)
def test_other_manifests_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / MANIFEST_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        PackagedWeights.open(tmp_path)


def test_weights_are_looked_for_in_the_package() -> None:
    assert packaged_folder("lite") == REPOSITORY / "engine" / "weights" / "lite"
