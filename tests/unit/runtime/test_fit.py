"""Engines that do not fit this machine are refused, with the command that builds one that does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.fit import check_tensorrt_engine
from engine.runtime.manifest import Manifest, TensorRtFacts
from tests.manifests import make_manifest, tensorrt_manifest

HERE: dict[str, Any] = {"flavour": "tensorrt_rtx", "version": "1.7", "compute_capability": "8.6"}


def check(folder: Path, manifest: Manifest, **changes: str) -> TensorRtFacts:
    return check_tensorrt_engine(EnginesDirectory(folder, manifest), "ensemble", **(HERE | changes))


def test_an_engine_that_fits_is_let_through(tmp_path: Path) -> None:
    manifest = tensorrt_manifest(tmp_path)
    for capability in ("8.6", "8.9"):
        assert check(tmp_path, manifest, compute_capability=capability) == manifest.engines["ensemble"].tensorrt


def test_facts_survive_the_manifest_file(tmp_path: Path) -> None:
    manifest = tensorrt_manifest(tmp_path)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    ("here", "message"),
    [
        ({"flavour": "tensorrt"}, "was built by tensorrt_rtx and cannot be loaded by tensorrt"),
        ({"version": "1.8"}, "was built by tensorrt_rtx 1.7, and here is tensorrt_rtx 1.8"),
        ({"compute_capability": "12.0"}, "of compute capability 8.6, 8.9, and this GPU has 12.0"),
    ],
)
def test_other_versions_and_gpus_are_refused(tmp_path: Path, here: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(tmp_path, tensorrt_manifest(tmp_path), **here)


def test_the_refusal_names_the_whole_command(tmp_path: Path) -> None:
    manifest = tensorrt_manifest(tmp_path)
    command = (
        "build it with `vsc-engine build --preset lite --checkpoints DIR --backend tensorrt "
        f"--flavour tensorrt_rtx --compute-capability 12.0 --output {tmp_path}`"
    )
    with pytest.raises(ConfigError) as refusal:
        check(tmp_path, manifest, compute_capability="12.0")
    assert str(refusal.value).endswith(command)
    # TensorRT for data centres builds for the GPU that is there.
    with pytest.raises(ConfigError, match="--flavour tensorrt --output"):
        check(tmp_path, manifest, flavour="tensorrt")


@pytest.mark.parametrize("content", [b"engin", b"ENGINE", None])
def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    manifest = tensorrt_manifest(tmp_path)
    path = tmp_path / "ensemble.engine"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="missing or damaged"):
        check(tmp_path, manifest)


def test_an_engine_of_another_graph_is_refused(tmp_path: Path) -> None:
    manifest = tensorrt_manifest(tmp_path, graph_sha256="ff")
    with pytest.raises(ConfigError, match="from another graph"):
        check(tmp_path, manifest)


def test_an_engine_of_another_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no TensorRT engine 'ensemble'; it was built for openvino"):
        check(tmp_path, make_manifest(tmp_path))
