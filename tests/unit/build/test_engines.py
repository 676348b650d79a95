"""Building engines: once, whole or not at all, and again only where something changed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.build.engines import build_engines, set_pca
from engine.config import load_preset
from engine.errors import ConfigError
from engine.projection import Pca, load_pca, save_pca
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import is_intact
from tests import graphs
from tests.conftest import IMAGENET_PRESET, REPOSITORY
from tests.packaged import tiny_pca, tiny_preset, write_packaged

pytestmark = pytest.mark.torch

LITE = load_preset(IMAGENET_PRESET)


@pytest.fixture
def engines(lite_engines: Path, tmp_path: Path) -> Path:
    """A copy of engines with ImageNet weights."""
    shutil.copytree(lite_engines, tmp_path / "engines")
    return tmp_path / "engines"


def lite_pca(*, seed: int = 0) -> Pca:
    return graphs.random_pca(512, 8, seed=seed)


def files_of(directory: Path) -> dict[str, int]:
    """Every file but the lock, and when it was written."""
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(directory).as_posix(): path.stat().st_mtime_ns for path in paths}


def run_python(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def check_descriptors(directory: Path, pca: Pca) -> None:
    frames = {"frames_224": graphs.natural_pictures(3, size_px=224, seed=5)}
    with EnginesDirectory.open(directory).open_runner("ensemble", num_threads=1) as runner:
        results = runner.run(frames)
    expected = graphs.project(pca, results["embedding"])
    np.testing.assert_allclose(results["descriptor"], expected, atol=1e-5, rtol=0)


def test_a_build_is_recorded_to_the_last_file(lite_engines: Path) -> None:
    manifest = EnginesDirectory.open(lite_engines).manifest
    assert manifest.preset == LITE
    assert (manifest.backend, manifest.weights, manifest.pca) == ("openvino", "checkpoints", None)
    assert list(manifest.graphs) == list(manifest.engines) == ["ensemble"]
    records = [*manifest.graphs["ensemble"].files, *manifest.engines["ensemble"].files]
    assert all(is_intact(record, directory=lite_engines) for record in records)
    assert files_of(lite_engines).keys() == {"manifest.json", *(record.path for record in records)}
    assert [spec.name for spec in manifest.engines["ensemble"].outputs] == ["embedding"]
    assert set(manifest.graphs["ensemble"].versions) == {"torch", "timm", "onnx", "onnxscript"}


def test_embeddings_have_unit_length_and_tell_pictures_apart(lite_engines: Path) -> None:
    with EnginesDirectory.open(lite_engines).open_runner("ensemble", num_threads=1) as runner:
        rows = runner.run({"frames_224": graphs.natural_pictures(4, size_px=224, seed=5)})["embedding"].astype(
            np.float64
        )
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.triu(rows @ rows.T, 1).max() < 0.999


def test_building_again_changes_nothing(engines: Path, imagenet_checkpoints: Path) -> None:
    before, lines = files_of(engines), list[str]()
    manifest = build_engines(LITE, engines, checkpoints=imagenet_checkpoints, progress=lines.append)
    assert files_of(engines) == before
    assert manifest == EnginesDirectory.open(engines).manifest
    assert lines == ["ensemble: export: already done", "ensemble: compile: already done"]


@pytest.mark.parametrize("suffix", [".bin", ".xml"])
def test_a_damaged_file_is_made_again_and_nothing_else(engines: Path, imagenet_checkpoints: Path, suffix: str) -> None:
    path = next(engines.glob(f"openvino/*{suffix}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    lines: list[str] = []
    engine = build_engines(LITE, engines, checkpoints=imagenet_checkpoints, progress=lines.append).engines["ensemble"]
    assert lines[:2] == ["ensemble: export: already done", "ensemble: compile ..."]
    assert path.read_bytes() != content
    assert all(is_intact(file, directory=engines) for file in engine.files)


def test_a_pca_given_to_the_build_is_folded_in_without_exporting_again(
    engines: Path, imagenet_checkpoints: Path, tmp_path: Path
) -> None:
    pca, lines = lite_pca(), list[str]()
    save_pca(pca, tmp_path / "fitted.npz")
    manifest = build_engines(
        LITE, engines, checkpoints=imagenet_checkpoints, pca=tmp_path / "fitted.npz", progress=lines.append
    )
    assert lines[0] == "ensemble: export: already done"
    assert [(spec.name, spec.shape) for spec in manifest.engines["ensemble"].outputs] == [
        ("embedding", (None, 512)),
        ("descriptor", (None, 8)),
    ]
    assert manifest.pca is not None
    assert manifest.pca.num_components == 8
    np.testing.assert_array_equal(load_pca(engines / manifest.pca.file.path).components, pca.components)
    check_descriptors(engines, pca)


def test_set_pca_replaces_the_one_before_and_leaves_nothing_of_it(engines: Path) -> None:
    first, second = (set_pca(engines, lite_pca(seed=seed)) for seed in (1, 2))
    check_descriptors(engines, lite_pca(seed=2))
    assert first.identity != second.identity
    assert second == EnginesDirectory.open(engines).manifest
    assert second.graphs == first.graphs
    kinds = sorted(Path(name).suffix for name in files_of(engines))
    assert kinds == [".bin", ".data", ".json", ".npz", ".npz", ".onnx", ".xml"]
    assert set_pca(engines, lite_pca(seed=2)) == second


def test_a_pca_of_another_size_fails_and_changes_nothing(engines: Path) -> None:
    before = files_of(engines)
    with pytest.raises(ConfigError, match=r"takes 24 dimensions, the embedding of .* has 512"):
        set_pca(engines, graphs.random_pca())
    assert files_of(engines) == before


def test_set_pca_without_the_exported_graph_fails(engines: Path) -> None:
    shutil.rmtree(engines / "graphs")
    with pytest.raises(ConfigError, match=r"ensemble-\w+\.onnx is missing or damaged; build the engines again"):
        set_pca(engines, lite_pca())


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.build import openvino
from engine.build.engines import build_engines, set_pca
from tests.packaged import tiny_pca, tiny_preset

openvino.check_parity = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if len(sys.argv) > 2:
    build_engines(tiny_preset(), Path(sys.argv[1]), packaged=Path(sys.argv[2]))
else:
    set_pca(Path(sys.argv[1]), tiny_pca(seed=9))
"""


def test_a_killed_build_looks_unfinished_and_the_next_goes_on_with_what_is_done(tmp_path: Path) -> None:
    packaged, folder = write_packaged(tmp_path / "packaged"), tmp_path / "engines"
    assert run_python(KILLED, folder, packaged).returncode == -signal.SIGKILL
    assert list(folder.glob(".building/*.xml"))
    with pytest.raises(ConfigError, match="its build was cut short"):
        EnginesDirectory.open(folder)
    lines: list[str] = []
    build_engines(tiny_preset(), folder, packaged=packaged, progress=lines.append)
    assert lines[:2] == ["ensemble: copy: already done", "ensemble: compile ..."]
    assert not (folder / ".building").exists()
    EnginesDirectory.open(folder)


def test_a_killed_set_pca_leaves_the_engines_as_they_were(tmp_path: Path) -> None:
    folder, frames = tmp_path / "engines", graphs.frames(3)
    build_engines(tiny_preset(), folder, packaged=write_packaged(tmp_path / "packaged"))
    before = set_pca(folder, tiny_pca(seed=1))
    assert run_python(KILLED, folder).returncode == -signal.SIGKILL
    assert EnginesDirectory.open(folder).manifest == before
    for seed in (1, 2):
        set_pca(folder, tiny_pca(seed=seed))
        with EnginesDirectory.open(folder).open_runner("ensemble", num_threads=1) as runner:
            found = runner.run(frames)["descriptor"]
        np.testing.assert_allclose(found, graphs.project(tiny_pca(seed=seed), graphs.ensemble(frames)), atol=1e-4)
    assert not list(folder.rglob("*.folded.onnx"))


def test_random_weights_and_checkpoints_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"random weights and the checkpoints of .* exclude each other"):
        build_engines(LITE, tmp_path, checkpoints=tmp_path, random_weights=True)


def test_an_unknown_backend_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown backend 'abacus'; expected one of \['openvino', 'tensorrt'\]"):
        build_engines(LITE, tmp_path, backend="abacus")


@pytest.mark.parametrize("folder", [None, "checkpoints"])
def test_missing_checkpoints_are_all_named_with_the_ways_out(tmp_path: Path, folder: str | None) -> None:
    checkpoints = None if folder is None else tmp_path / folder
    with pytest.raises(ConfigError) as caught:
        build_engines(load_preset("vsc22"), tmp_path / "engines", checkpoints=checkpoints)
    expected = ["swinv2_v115.torchscript.pt", "vit_v68.torchscript.pt", "clip.torchscript.pt", "vsm.torchscript.pt"]
    assert all(word in str(caught.value) for word in [*expected, "--checkpoints", "--random-weights", "lite"])
    assert not (tmp_path / "engines").exists()


def test_missing_torch_names_the_extra(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from engine.config import load_preset; from engine.build.engines import build_engines\n"
        "build_engines(load_preset('tests/imagenet.toml'), Path(sys.argv[1]))"
    )
    result = run_python(script, tmp_path)
    assert "BackendUnavailable: building engines needs torch: pip install 'vsc-engine[build]'" in result.stderr
