"""Engines built from the package's weights: without torch, with their PCA and norm set, and checked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.build.engines import build_engines, set_pca
from engine.build.packaged import PackagedWeights
from engine.build.parity import Case, load_cases, save_cases
from engine.config import Preset
from engine.errors import ConfigError, EngineError
from engine.projection import save_pca
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import MANIFEST_NAME, Manifest, is_intact, record_file
from engine.store.norm_set import load_norm_set
from tests import graphs
from tests.conftest import REPOSITORY
from tests.packaged import NUM_COMPONENTS, norm_rows, tiny_pca, tiny_preset, write_packaged


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    return write_packaged(tmp_path / "packaged")


def build(directory: Path, packaged: Path, **options: object) -> Manifest:
    return build_engines(tiny_preset(), directory, packaged=packaged, **options)  # type: ignore[arg-type]


def test_the_engines_compute_what_the_graph_and_the_pca_say(packaged: Path, tmp_path: Path) -> None:
    manifest = build(tmp_path / "engines", packaged)
    frames = graphs.frames(3, seed=7)
    with EnginesDirectory(tmp_path / "engines", manifest).open_runner("ensemble", num_threads=1) as runner:
        results = runner.run(frames)
    expected = graphs.ensemble(frames)
    np.testing.assert_allclose(results["embedding"], expected, rtol=1e-5, atol=1e-5)
    projected = graphs.project(tiny_pca(), expected)
    np.testing.assert_allclose(results["descriptor"], projected, rtol=1e-5, atol=1e-4)


def test_everything_is_recorded(packaged: Path, tmp_path: Path) -> None:
    directory = tmp_path / "engines"
    manifest = build(directory, packaged)
    assert manifest == EnginesDirectory.open(directory).manifest
    assert (manifest.weights, manifest.shipped_sha256) == ("package", PackagedWeights.open(packaged).sha256)
    assert manifest.pca is not None
    assert manifest.norm_set is not None
    assert manifest.pca.num_components == NUM_COMPONENTS
    assert is_intact(manifest.norm_set, directory=directory)
    np.testing.assert_array_equal(load_norm_set(directory / manifest.norm_set.path), norm_rows())


def test_building_again_changes_nothing(packaged: Path, tmp_path: Path) -> None:
    first, lines = build(tmp_path / "engines", packaged), list[str]()
    assert build(tmp_path / "engines", packaged, progress=lines.append) == first
    assert lines == ["ensemble: copy: already done", "ensemble: compile: already done"]


def test_other_weights_replace_the_engines_and_their_identity(packaged: Path, tmp_path: Path) -> None:
    first = build(tmp_path / "engines", packaged)
    second = build(tmp_path / "engines", write_packaged(tmp_path / "other", seed=1))
    assert first.identity != second.identity
    assert len(list((tmp_path / "engines").glob("norm_set-*.npz"))) == 1


def test_another_pca_leaves_the_norm_set_out(packaged: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "engines", packaged, pca=tiny_pca(seed=3)).norm_set is None
    build(tmp_path / "engines", packaged)
    assert set_pca(tmp_path / "engines", tiny_pca()).norm_set is not None
    assert set_pca(tmp_path / "engines", tiny_pca(seed=3)).norm_set is None
    assert not list((tmp_path / "engines").glob("norm_set-*.npz"))


def test_no_torch_is_needed_to_build_and_to_set_a_pca(packaged: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules.update(torch=None, timm=None, safetensors=None, skimage=None, onnxscript=None)\n"
        "from pathlib import Path\n"
        "from engine.build.engines import build_engines, set_pca; from tests.packaged import tiny_preset\n"
        "packaged, folder, pca = map(Path, sys.argv[1:])\n"
        "build_engines(tiny_preset(), folder, packaged=packaged)\n"
        "set_pca(folder, pca)"
    )
    save_pca(tiny_pca(seed=4), tmp_path / "fitted.npz")
    command = [sys.executable, "-c", script, str(packaged), str(tmp_path / "engines"), str(tmp_path / "fitted.npz")]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    pca = EnginesDirectory.open(tmp_path / "engines").pca()
    assert pca is not None
    assert pca.sha256 == tiny_pca(seed=4).sha256


def test_a_graph_that_computes_something_else_is_refused(packaged: Path, tmp_path: Path) -> None:
    first, *others = load_cases(packaged / "ensemble.check.npz")
    wrong = Case(first.inputs, {"embedding": first.outputs["embedding"] + 1})
    save_cases([wrong, *others], packaged / "ensemble.check.npz")
    manifest = PackagedWeights.open(packaged).manifest
    files = tuple(record_file(packaged / file.path, directory=packaged) for file in manifest.graphs["ensemble"])
    changed = manifest.model_copy(update={"graphs": {"ensemble": files}})
    (packaged / MANIFEST_NAME).write_text(changed.model_dump_json(), encoding="utf-8")
    with pytest.raises(EngineError, match="ensemble in OpenVINO differs by"):
        build(tmp_path / "engines", packaged)
    assert not (tmp_path / "engines" / MANIFEST_NAME).exists()


def test_weights_of_other_models_are_refused(packaged: Path, tmp_path: Path) -> None:
    preset = tiny_preset()
    member = preset.models[0].model_copy(update={"mean": (0.1, 0.2, 0.3)})
    other = Preset.model_validate({**preset.model_dump(), "models": (member, *preset.models[1:])})
    with pytest.raises(ConfigError, match=r"are of other models than those of preset 'tiny'.*--checkpoints DIR"):
        build_engines(other, tmp_path / "engines", packaged=packaged)


def test_settings_besides_the_models_may_differ(packaged: Path, tmp_path: Path) -> None:
    preset = tiny_preset()
    other = preset.model_copy(update={"score_norm": preset.score_norm.model_copy(update={"beta": 0.6})})
    assert build_engines(other, tmp_path / "engines", packaged=packaged).preset.score_norm.beta == 0.6


def test_a_missing_file_is_named(packaged: Path, tmp_path: Path) -> None:
    (packaged / "norm_set.npz").unlink()
    with pytest.raises(ConfigError, match=r"norm_set\.npz is missing or damaged"):
        build(tmp_path / "engines", packaged)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    preset = tiny_preset().model_copy(update={"weights": "nothing"})
    with pytest.raises(ConfigError, match=r"weights.nothing holds no weights"):
        build_engines(preset, tmp_path / "engines")


def test_engines_survive_the_loss_of_the_folder(packaged: Path, tmp_path: Path) -> None:
    build(tmp_path / "engines", packaged)
    shutil.rmtree(packaged)
    assert set_pca(tmp_path / "engines", tiny_pca(seed=4)).pca is not None
