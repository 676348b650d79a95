"""Every graph of both presets is parsed and built by TensorRT-RTX for GPUs that are not here.

Those of ``vsc22`` are twins: the same classes and operations with fewer and narrower layers and random weights, because
the true ones take minutes (`benchmarks/results/tensorrt_engines_vsc22.md`). Those of ``lite`` are the real ones.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from engine.build.float16 import halve
from engine.build.operators import check_operators
from engine.build.packaged import packaged_folder
from engine.build.parity import load_cases
from engine.build.precision import Sample, compare_precisions, float16_models
from engine.build.tensorrt_builder import build_engine
from engine.config import ClipGate, load_preset
from engine.runtime.manifest import RowProfile
from engine.runtime.tensorrt_library import import_tensorrt

pytest.importorskip("tensorrt_rtx")
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from engine.build import export  # noqa: E402
from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.clip import ClipVisual  # noqa: E402
from engine.models.edit_score import EditScore  # noqa: E402
from engine.models.freezing import freeze_for_export  # noqa: E402
from engine.models.swinv2 import SwinV2Descriptor  # noqa: E402
from engine.models.vit import VitDescriptor  # noqa: E402

pytestmark = pytest.mark.torch

VSC22, LITE = load_preset("vsc22"), load_preset("lite")
NAMES = tuple(model.name for model in VSC22.models)
SIZES_PX = {"swinv2_base_w16_256": 64, "vit_base_patch32_384": 96}
PROFILE = RowProfile(min_rows=1, opt_rows=8, max_rows=32)
TARGETS = ("8.6", "8.9")


def twin(architecture: str, *, seed: int) -> nn.Module:
    if architecture == "vit_base_patch32_384":
        model: nn.Module = VitDescriptor(img_size=96, patch_size=32, embed_dim=48, depth=2, num_heads=3, output_dim=16)
    else:
        model = SwinV2Descriptor(
            img_size=64,
            patch_size=4,
            window_size=8,
            embed_dim=32,
            depths=(2, 2),
            num_heads=(1, 2),
            pretrained_window_sizes=(6, 6),
            output_dim=16,
        )
    random_weights(model, seed=seed)
    return freeze_for_export(model)


@pytest.fixture(scope="module")
def vsc22(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The graphs of the twins, with recorded cases."""
    folder = tmp_path_factory.mktemp("vsc22")
    configs = [model.model_copy(update={"input_px": SIZES_PX[model.architecture]}) for model in VSC22.models]
    gate = VSC22.gate
    assert isinstance(gate, ClipGate)
    features = ClipVisual(input_resolution=56, patch_size=14, width=64, layers=2, heads=2)
    score = EditScore(
        feature_dim=64,
        hidden_dim=32,
        intermediate_dim=64,
        num_layers=2,
        num_heads=2,
        max_frames=256,
        vocabulary_size=200,
        num_positions=300,
    )
    for seed, model in enumerate((features, score)):
        random_weights(model, seed=seed)
        freeze_for_export(model)
    programs = {
        "ensemble": export.ensemble_program(
            configs, [twin(model.architecture, seed=seed) for seed, model in enumerate(VSC22.models)]
        ),
        "edit_features": export.edit_features_program(gate.model_copy(update={"input_px": 56}), features),
        "edit_score": export.edit_score_program(score),
    }
    for name, program in programs.items():
        export.write_graph(program, path=folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in programs}


def built(source: Path, folder: Path, *, names: tuple[str, ...], halved: tuple[str, ...]) -> int:
    """Size of the engine, in bytes."""
    path = folder / "g.onnx"
    halve(source, path, names=names, halved=halved)
    profile = RowProfile(min_rows=1, opt_rows=64, max_rows=256) if source.stem == "edit_score" else PROFILE
    build_engine(
        import_tensorrt("tensorrt_rtx"), path, folder / "g.engine", profile=profile, compute_capabilities=TARGETS
    )
    return (folder / "g.engine").stat().st_size


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["ensemble", "edit_features", "edit_score"])
def test_the_graphs_of_vsc22_are_built(vsc22: dict[str, Path], tmp_path: Path, name: str, precision: str) -> None:
    names = NAMES if name == "ensemble" else (name,)
    check_operators(vsc22[name])
    assert built(vsc22[name], tmp_path, names=names, halved=names if precision == "fp16" else ()) > 0


@pytest.mark.parametrize("name", ["ensemble", "edit_score"])
def test_the_graphs_of_lite_are_built_and_half_saves_half_of_the_weights(tmp_path: Path, name: str) -> None:
    source = packaged_folder("lite") / f"{name}.onnx"
    full, half = (built(source, tmp_path, names=(name,), halved=halved) for halved in ((), (name,)))
    if name == "edit_score":
        # It is linear, and the last layer of a model stays float32: there is nothing to halve, only casts to add.
        assert half == pytest.approx(full, rel=0.01)
    else:
        # The shipped file stores float16, so it is as large as what is saved, but for islands and last layers.
        assert full - half > 0.7 * source.stat().st_size


def test_the_twins_of_vsc22_may_be_half(vsc22: dict[str, Path], tmp_path: Path) -> None:
    samples = {name: Sample(path, load_cases(path.with_suffix(".check.npz"))) for name, path in vsc22.items()}
    found = compare_precisions(samples, VSC22, folder=tmp_path)
    assert float16_models(found["ensemble"]) == set(NAMES)
    assert all(row.worst < 1 - 1e-9 for row in found["ensemble"])  # float16 took place


def test_attention_of_a_swin_block_is_full_and_its_linear_layers_are_half(
    vsc22: dict[str, Path], tmp_path: Path
) -> None:
    halve(vsc22["ensemble"], tmp_path / "g.onnx", names=NAMES, halved=NAMES)
    model = onnx.load(tmp_path / "g.onnx", load_external_data=False)
    onnx.checker.check_model(tmp_path / "g.onnx")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds = Counter(
        (node.op_type, types[node.output[0]] == onnx.TensorProto.FLOAT16)
        for node in inferred.node
        if node.op_type in ("MatMul", "Gemm", "Conv", "Softmax", "LayerNormalization")
    )
    num_blocks = 3 * 4  # three models of 2 + 2 blocks; each multiplies queries and keys in full
    assert kinds[("MatMul", False)] == num_blocks
    assert kinds[("MatMul", True)] > 4 * num_blocks
    assert (kinds[("Conv", False)], kinds[("Gemm", False)]) == (0, len(NAMES))  # the last layer of each model
    assert not kinds[("Softmax", True)] + kinds[("LayerNormalization", True)]
