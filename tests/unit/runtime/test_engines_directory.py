"""Opening an engines directory, and what lies in it: every way in which something may be missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import BackendUnavailable, ConfigError
from engine.projection import save_pca
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import Manifest, PcaRecord, record_file, write_manifest
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from engine.store.norm_set import save_norm_set
from tests import graphs
from tests.manifests import make_manifest, tensorrt_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(make_manifest(tmp_path), tmp_path)
    return tmp_path


def test_a_directory_holds_its_manifest_and_knows_where_its_files_lie(folder: Path) -> None:
    directory = EnginesDirectory.open(folder)
    assert (directory.folder, directory.manifest) == (folder, make_manifest(folder))
    assert directory.path(directory.manifest.engines["ensemble"].main) == folder / "engine.xml"


def test_exported_graphs_may_be_deleted_to_save_space(folder: Path) -> None:
    (folder / "graph.onnx").unlink()
    EnginesDirectory.open(folder)


def test_no_directory_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere does not exist; build it with `vsc-engine build .*nowhere`"):
        EnginesDirectory.open(tmp_path / "nowhere")


def test_another_directory_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not an engines directory, or its build was cut short.*vsc-engine build"):
        EnginesDirectory.open(tmp_path)


def test_a_missing_engine_file_fails(folder: Path) -> None:
    (folder / "engine.bin").unlink()
    with pytest.raises(ConfigError, match=r"engine\.bin is missing; build it with `vsc-engine build --preset lite"):
        EnginesDirectory.open(folder)


def test_a_cut_engine_file_fails(folder: Path) -> None:
    (folder / "engine.bin").write_text("eng")
    with pytest.raises(ConfigError, match=r"engine\.bin has 3 bytes instead of 10"):
        EnginesDirectory.open(folder)


def test_the_pca_is_the_one_that_was_folded_in(tmp_path: Path) -> None:
    pca = graphs.random_pca()
    save_pca(pca, tmp_path / "fitted.npz")
    file = record_file(tmp_path / "fitted.npz", directory=tmp_path)
    record = PcaRecord(file=file, num_components=len(pca.components), sha256=pca.sha256)
    found = EnginesDirectory(tmp_path, make_manifest(tmp_path, pca=record)).pca()
    assert found is not None
    assert found.sha256 == pca.sha256
    assert EnginesDirectory(tmp_path, make_manifest(tmp_path, pca=None)).pca() is None


def test_the_norm_set_is_read_or_asked_for(tmp_path: Path) -> None:
    rows = np.eye(3, 5, dtype=np.float32)
    save_norm_set(rows, tmp_path / "rows.npz")
    record = record_file(tmp_path / "rows.npz", directory=tmp_path)
    np.testing.assert_array_equal(EnginesDirectory(tmp_path, make_manifest(tmp_path, norm_set=record)).norm_set(), rows)
    with pytest.raises(ConfigError, match="bring no norm set; name one with --norm-set"):
        EnginesDirectory(tmp_path, make_manifest(tmp_path)).norm_set()


@pytest.mark.parametrize("name", ["pca", "norm_set"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.npz").write_text("no arrays")
    file = record_file(tmp_path / "broken.npz", directory=tmp_path)
    changes = {"pca": PcaRecord(file=file, num_components=5, sha256="ab"), "norm_set": file}
    directory = EnginesDirectory(tmp_path, make_manifest(tmp_path, **{name: changes[name]}))
    with pytest.raises(ConfigError, match=r"broken\.npz"):
        getattr(directory, name)()


def openvino_manifest(folder: Path) -> Manifest:
    graphs.write_ensemble(folder / "graph.onnx")
    compile_to_ir(folder / "graph.onnx", folder / "tiny.xml")
    manifest = make_manifest(folder)
    engine = manifest.engines["ensemble"].model_copy(
        update={"files": tuple(record_file(folder / f"tiny{end}", directory=folder) for end in (".xml", ".bin"))}
    )
    return manifest.model_copy(update={"engines": {"ensemble": engine}})


def test_engines_for_the_cpu_are_opened_by_openvino(tmp_path: Path) -> None:
    frames = graphs.frames(2)
    runner = EnginesDirectory(tmp_path, openvino_manifest(tmp_path)).open_runner("ensemble", num_threads=1)
    assert isinstance(runner, OpenVinoRunner)
    with runner:
        np.testing.assert_allclose(runner.run(frames)["embedding"], graphs.ensemble(frames), atol=1e-4, rtol=0)


def test_an_engine_that_was_not_built_is_named_with_those_that_were(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no engine 'edit_score', only \['ensemble'\]"):
        EnginesDirectory.open(folder).open_runner("edit_score")


def test_an_engine_that_openvino_cannot_read_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"OpenVINO cannot read .*engine\.xml; build the engines again"):
        EnginesDirectory.open(folder).open_runner("ensemble")


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a driver")
def test_engines_for_gpus_are_never_run_on_the_cpu(tmp_path: Path) -> None:
    directory = EnginesDirectory(tmp_path, tensorrt_manifest(tmp_path))
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver on this machine"):
        directory.open_runner("ensemble")
