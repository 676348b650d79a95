"""TensorRT engines of an engines directory: once, whole or not at all, with their facts, and with another PCA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.build import comparison
from engine.build.compiler import DEFAULT_COMPUTE_CAPABILITIES, TensorRtOptions
from engine.build.engines import build_engines, set_pca
from engine.errors import BackendUnavailable, ConfigError, EngineError
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.fit import check_tensorrt_engine
from engine.runtime.manifest import Manifest, RowProfile, TensorRtFacts, is_intact
from tests import graphs
from tests.packaged import NUM_COMPONENTS, tiny_pca, tiny_preset, write_packaged

rtx = pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    return write_packaged(tmp_path / "packaged")


def build(directory: Path, packaged: Path, *, lines: list[str] | None = None, **options: Any) -> Manifest:
    return build_engines(
        tiny_preset(),
        directory,
        packaged=packaged,
        backend="tensorrt",
        tensorrt=TensorRtOptions(flavour="tensorrt_rtx", **options),
        progress=(lines if lines is not None else []).append,
    )


def facts_of(manifest: Manifest) -> TensorRtFacts:
    facts = manifest.engines["ensemble"].tensorrt
    assert facts is not None
    return facts


def test_everything_is_recorded(packaged: Path, tmp_path: Path) -> None:
    directory = tmp_path / "engines"
    manifest = build(directory, packaged, compute_capabilities=("8.6", "8.9"), max_batch=16)
    assert manifest == EnginesDirectory.open(directory).manifest
    engine, facts = manifest.engines["ensemble"], facts_of(manifest)
    assert manifest.backend == "tensorrt"
    assert [Path(file.path).suffix for file in engine.files] == [".engine", ".json"]
    assert all(is_intact(file, directory=directory) for file in engine.files)
    assert [(spec.name, spec.shape) for spec in engine.inputs] == [
        ("frames_4", (None, 4, 4, 3)),
        ("frames_8", (None, 8, 8, 3)),
    ]
    assert [(spec.name, spec.dtype, spec.shape) for spec in engine.outputs] == [
        ("embedding", "float32", (None, 24)),
        ("descriptor", "float32", (None, NUM_COMPONENTS)),
    ]
    assert (facts.flavour, facts.version) == ("tensorrt_rtx", rtx.__version__)
    assert facts.compute_capabilities == ("8.6", "8.9")
    assert facts.precisions == {"tiny_4": "fp16", "tiny_8": "fp16"}
    assert [row.model for row in facts.comparisons] == ["tiny_4", "tiny_8"]
    assert facts.profile == RowProfile(min_rows=1, opt_rows=16, max_rows=16)
    assert facts.graph_sha256 == manifest.graphs["ensemble"].files[0].sha256
    assert facts.build_s > 0
    here = {"flavour": "tensorrt_rtx", "version": rtx.__version__, "compute_capability": "8.9"}
    assert check_tensorrt_engine(EnginesDirectory(directory, manifest), "ensemble", **here) == facts
    assert sorted(path.name for path in directory.iterdir() if path.is_dir()) == ["graphs", "tensorrt"]


def test_building_again_changes_nothing_and_other_options_replace_the_engines(packaged: Path, tmp_path: Path) -> None:
    directory, lines = tmp_path / "engines", list[str]()
    first = build(directory, packaged)
    assert facts_of(first).compute_capabilities == DEFAULT_COMPUTE_CAPABILITIES
    assert build(directory, packaged, lines=lines) == first
    assert lines == [
        "ensemble: copy: already done",
        "ensemble: build for compute capability 8.0, 8.6, 8.9, 12.0, 12.1: already done",
    ]
    other = build(directory, packaged, compute_capabilities=("12.0",), precision="fp32")
    assert facts_of(other).precisions == {"tiny_4": "fp32", "tiny_8": "fp32"}
    assert other.identity == first.identity
    assert len(list(directory.glob("tensorrt/*.engine"))) == 1


def test_a_damaged_engine_is_built_again(packaged: Path, tmp_path: Path) -> None:
    first = build(tmp_path / "engines", packaged)
    path = tmp_path / "engines" / first.engines["ensemble"].main.path
    path.write_bytes(b"?" + path.read_bytes()[1:])
    second = build(tmp_path / "engines", packaged)
    assert is_intact(second.engines["ensemble"].files[0], directory=tmp_path / "engines")


def test_the_comparison_is_told_and_so_is_a_model_that_stays_float32(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setitem(comparison.LIMITS, "fp16", comparison.Limits(1.1, 1e-3))
    manifest = build(tmp_path / "engines", packaged, lines=lines)
    assert facts_of(manifest).precisions == {"tiny_4": "fp32", "tiny_8": "fp32"}
    assert any(line.startswith("tiny_8 stays float32: in float16 its cosine is 1, accepted is 1.1") for line in lines)
    with pytest.raises(EngineError, match=r"tiny_4, tiny_8 cannot be float16"):
        build(tmp_path / "other", packaged, precision="fp16")
    assert not (tmp_path / "other" / "manifest.json").exists()


def test_float32_is_checked_against_what_pytorch_computed(packaged: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = build(tmp_path / "engines", packaged, lines=lines, precision="fp32")
    assert facts_of(manifest).comparisons == ()
    assert any("ensemble: stays float32; differs from PyTorch by at most" in line for line in lines)


def test_another_pca_is_folded_in_with_the_precisions_chosen_before(packaged: Path, tmp_path: Path) -> None:
    directory, lines = tmp_path / "engines", list[str]()
    first = build(directory, packaged, compute_capabilities=("8.9",), max_batch=4)
    second = set_pca(directory, tiny_pca(seed=5), progress=lines.append)
    assert second == EnginesDirectory.open(directory).manifest
    assert second.identity != first.identity
    assert second.engines["ensemble"].files[0] != first.engines["ensemble"].files[0]
    before, after = facts_of(first), facts_of(second)
    assert after.model_copy(update={"build_s": before.build_s}) == before
    assert not [line for line in lines if "cosine" in line]
    again = build(directory, packaged, compute_capabilities=("8.9",), max_batch=4)
    assert (again.identity, again.engines["ensemble"].key) == (first.identity, first.engines["ensemble"].key)


def test_engines_of_another_version_take_no_pca(packaged: Path, tmp_path: Path) -> None:
    directory = tmp_path / "engines"
    manifest = build(directory, packaged)
    text = (directory / "manifest.json").read_text()
    (directory / "manifest.json").write_text(
        text.replace(f'"version": "{facts_of(manifest).version}"', '"version": "1.0"')
    )
    with pytest.raises(ConfigError, match=r"built by tensorrt_rtx 1.0, and here is"):
        set_pca(directory, graphs.random_pca(num_components=NUM_COMPONENTS))


def test_a_build_that_fails_leaves_the_engines_as_they_were(packaged: Path, tmp_path: Path) -> None:
    directory = tmp_path / "engines"
    build(directory, packaged)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"does not build for compute capability 9\.0"):
        build(directory, packaged, compute_capabilities=("9.0",))
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_weights_of_the_package_have_no_program_for_torch_tensorrt(packaged: Path, tmp_path: Path) -> None:
    with pytest.raises((BackendUnavailable, ConfigError), match=r"hold no PyTorch program|No module named 'tensorrt'"):
        build_engines(
            tiny_preset(),
            tmp_path / "engines",
            packaged=packaged,
            backend="tensorrt",
            tensorrt=TensorRtOptions(frontend="torch-tensorrt"),
        )
