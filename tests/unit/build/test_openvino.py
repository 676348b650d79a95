"""Which precision OpenVINO's engines get, and that nobody takes one for the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.build import comparison, openvino
from engine.build.engines import build_engines, set_pca
from engine.describe.engine import Engine
from engine.errors import ConfigError, EngineError, StoreError
from engine.runtime import openvino as runtime
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import Manifest, PrecisionChoice
from engine.runtime.openvino import has_bfloat16
from engine.store.store import StoreWriter
from tests import graphs
from tests.packaged import tiny_pca, tiny_preset, write_packaged

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    return write_packaged(tmp_path / "packaged")


def build(
    folder: Path, packaged: Path, precision: PrecisionChoice = "fp32", *, lines: list[str] | None = None
) -> Manifest:
    say = [] if lines is None else lines
    return build_engines(tiny_preset(), folder, packaged=packaged, precision=precision, progress=say.append)


@pytest.fixture
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without it."""
    for module in (openvino, runtime):
        monkeypatch.setattr(module, "has_bfloat16", lambda: False)


@needs_bfloat16
@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_bfloat16_is_measured_written_down_and_run(packaged: Path, tmp_path: Path, precision: PrecisionChoice) -> None:
    lines: list[str] = []
    manifest = build(tmp_path / "engines", packaged, precision, lines=lines)
    facts = manifest.engines["ensemble"].openvino
    assert facts is not None
    assert (facts.precision, facts.precision_choice) == ("bf16", precision)
    assert [(row.model, row.measure, row.num_inputs) for row in facts.comparisons] == [
        ("tiny_4", "cosine", 22),
        ("tiny_8", "cosine", 22),
    ]
    assert all(0.99 < row.worst < 1 for row in facts.comparisons)
    assert any(line.startswith("ensemble       tiny_8         smallest cosine") for line in lines)
    frames = graphs.frames(3, seed=3)
    with EnginesDirectory.open(tmp_path / "engines").open_runner("ensemble") as runner:
        found = runner.run(frames)["embedding"]
    assert np.abs(found - graphs.ensemble(frames)).max() > 1e-4
    assert build(tmp_path / "engines", packaged, precision) == manifest


@needs_bfloat16
def test_a_model_that_suffers_stays_float32(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(comparison.LIMITS, "bf16", comparison.Limits(1.1, 0))
    lines: list[str] = []
    manifest = build(tmp_path / "engines", packaged, "auto", lines=lines)
    assert manifest.bfloat16 == ()
    assert manifest.identity == build(tmp_path / "float32", packaged).identity
    assert any(line.startswith("ensemble stays float32: in bfloat16 the cosine of tiny_4 is 1") for line in lines)
    with pytest.raises(EngineError, match="ensemble cannot be bfloat16"):
        build(tmp_path / "other", packaged, "bf16")
    assert not (tmp_path / "other" / "manifest.json").exists()


@needs_bfloat16
def test_another_pca_keeps_the_precision(packaged: Path, tmp_path: Path) -> None:
    build(tmp_path / "engines", packaged, "bf16")
    assert set_pca(tmp_path / "engines", tiny_pca(seed=1)).bfloat16 == ("ensemble",)


@needs_bfloat16
def test_rows_of_both_precisions_are_never_in_one_store(packaged: Path, tmp_path: Path) -> None:
    engines = []
    for precision in ("fp32", "bf16"):
        build(tmp_path / precision, packaged, precision)  # type: ignore[arg-type]
        engines.append(Engine.open(tmp_path / precision))
    assert engines[0].engines.manifest.identity != engines[1].engines.manifest.identity
    with StoreWriter(tmp_path / "store", identity=engines[0].identity(role="reference")):
        pass
    with pytest.raises(StoreError, match=r"precision \(stored None, now 'bf16'\)"):
        StoreWriter(tmp_path / "store", identity=engines[1].identity(role="reference"))


@needs_bfloat16
def test_engines_in_bfloat16_are_refused_on_a_machine_without(
    packaged: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    build(tmp_path / "engines", packaged, "bf16")
    request.getfixturevalue("no_bfloat16")
    with pytest.raises(ConfigError, match=r"is to compute in bfloat16, and .* has neither"):
        EnginesDirectory.open(tmp_path / "engines").open_runner("ensemble")


@pytest.mark.usefixtures("no_bfloat16")
def test_a_machine_without_bfloat16_builds_float32_and_says_so(packaged: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = build(tmp_path / "engines", packaged, "auto", lines=lines)
    assert manifest.engines["ensemble"].openvino is None
    assert any(line.startswith("ensemble: stays float32, ") for line in lines)
    with pytest.raises(ConfigError, match=r"--precision bf16: .* has neither AVX512_BF16 nor AMX"):
        build(tmp_path / "other", packaged, "bf16")


def test_float16_is_not_for_a_cpu(packaged: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--precision fp16 is for --backend tensorrt"):
        build(tmp_path / "engines", packaged, "fp16")
