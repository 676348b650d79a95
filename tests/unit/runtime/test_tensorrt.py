"""TensorRT engines up to the driver's answer, which on the stub driver is always a refusal to load one.

The engine is a real one, built ahead of time. What TensorRT computes only a GPU can show; how it is fed is tested with
another execution in test_device_runner.py and in tests/contracts.
"""

from __future__ import annotations

import ast
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.build.tensorrt_builder import build_engine
from engine.errors import BackendUnavailable, ConfigError, EngineError
from engine.runtime import tensorrt
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import CompiledEngine, Manifest, RowProfile, record_file
from engine.runtime.runner import TensorSpec
from engine.runtime.tensorrt_library import import_tensorrt
from tests import graphs
from tests.manifests import tensorrt_manifest
from tests.stub_driver.control import MIB, StubDriver

pytestmark = pytest.mark.stub_driver

PROFILE = RowProfile(min_rows=1, opt_rows=8, max_rows=16)
FRAMES = tuple(TensorSpec(f"frames_{px}", "uint8", (None, px, px, 3)) for px in (4, 8))
EMBEDDING = (TensorSpec("embedding", "float32", (None, graphs.NUM_DIMS)),)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("plan")
    graphs.write_ensemble(folder / "ensemble.onnx")
    path = folder / "ensemble.engine"
    rtx = import_tensorrt("tensorrt_rtx")
    build_engine(rtx, folder / "ensemble.onnx", path, profile=PROFILE, compute_capabilities=["8.6"])
    return path.read_bytes()


def manifest_of(plan: bytes, directory: Path, **changes: Any) -> Manifest:
    version = import_tensorrt("tensorrt_rtx").version
    manifest = tensorrt_manifest(
        directory, **({"version": version, "compute_capabilities": ("8.6",), "profile": PROFILE} | changes)
    )
    path = directory / "ensemble.engine"
    path.write_bytes(plan)
    values = manifest.engines["ensemble"].model_dump() | {
        "files": (record_file(path, directory=directory),),
        "inputs": FRAMES,
        "outputs": EMBEDDING,
    }
    return manifest.model_copy(update={"engines": {"ensemble": CompiledEngine.model_validate(values)}})


def test_is_opened_by_its_manifest_and_says_so(
    plan: bytes, tmp_path: Path, stub_driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        runner = EnginesDirectory(tmp_path, manifest_of(plan, tmp_path)).open_runner("ensemble")
    assert (runner.inputs, runner.outputs, runner.batch_size) == (FRAMES, EMBEDDING, 8)
    version = import_tensorrt("tensorrt_rtx").version
    assert f"ensemble: tensorrt_rtx {version} on GPU 0, Stub 8.6 (8.6, 1024 MiB)" in caplog.text


def test_what_tensorrt_refuses_to_load_is_one_line(plan: bytes, tmp_path: Path, stub_driver: StubDriver) -> None:
    runner = EnginesDirectory(tmp_path, manifest_of(plan, tmp_path)).open_runner("ensemble")
    message = r"^tensorrt_rtx [\d.]+ cannot load .*\.engine \(\d+ MiB; 1024 of 1024 MiB of Stub 8\.6 .*cudaError 36.*$"
    with pytest.raises(EngineError, match=message) as caught, runner:
        pass
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="outside of the runner's context"):
        runner.run({spec.name: np.zeros((1, *spec.shape[1:]), np.uint8) for spec in FRAMES})  # type: ignore[arg-type]


def test_an_engine_for_another_gpu(plan: bytes, tmp_path: Path, stub_driver: StubDriver) -> None:
    stub_driver.devices([((9, 0), 1024 * MIB)])
    with pytest.raises(
        ConfigError, match=r"built for GPUs of compute capability 8\.6, and this GPU has 9\.0; build it"
    ):
        EnginesDirectory(tmp_path, manifest_of(plan, tmp_path)).open_runner("ensemble")


def test_an_engine_of_another_version(plan: bytes, tmp_path: Path, stub_driver: StubDriver) -> None:
    with pytest.raises(ConfigError, match=r"was built by tensorrt_rtx 1\.0, and here is tensorrt_rtx .*; build it"):
        EnginesDirectory(tmp_path, manifest_of(plan, tmp_path, version="1.0")).open_runner("ensemble")


def test_a_corrupt_engine_never_reaches_tensorrt(plan: bytes, tmp_path: Path, stub_driver: StubDriver) -> None:
    manifest = manifest_of(plan, tmp_path)
    (tmp_path / "ensemble.engine").write_bytes(plan[:-1] + bytes([plan[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"ensemble\.engine is missing or damaged: .*; build it"):
        EnginesDirectory(tmp_path, manifest).open_runner("ensemble")


def test_no_gpu(plan: bytes, tmp_path: Path, stub_driver: StubDriver) -> None:
    stub_driver.configure(init=100)
    with pytest.raises(BackendUnavailable, match="finds no GPU"):
        EnginesDirectory(tmp_path, manifest_of(plan, tmp_path)).open_runner("ensemble")


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="it is installed")
def test_engines_of_a_flavour_that_is_not_installed(plan: bytes, tmp_path: Path, stub_driver: StubDriver) -> None:
    manifest = manifest_of(plan, tmp_path, flavour="tensorrt")
    with pytest.raises(BackendUnavailable, match=r"need TensorRT \(tensorrt: .*pip install 'vsc-engine\[gpu\]'\)$"):
        EnginesDirectory(tmp_path, manifest).open_runner("ensemble")


def test_tensorrt_has_every_function_that_is_called() -> None:
    module = import_tensorrt("tensorrt_rtx").module
    objects = {"_context": module.IExecutionContext, "_engine": module.ICudaEngine, "_runtime": module.Runtime}
    objects |= {"config": module.IRuntimeConfig, "trt": module}
    used: dict[str, set[str]] = {name: set() for name in objects}
    for node in ast.walk(ast.parse(Path(tensorrt.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in used:
                used[owner].add(node.attr)
    assert all(used.values())
    missing = {(name, attribute) for name, names in used.items() for attribute in names - set(dir(objects[name]))}
    assert not missing
