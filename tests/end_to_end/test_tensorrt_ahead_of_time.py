"""Every graph of both presets is exported as PyTorch computes it, and built by TensorRT-RTX for GPUs that are not here.

Those of ``vsc22`` are twins: the same classes and operations with fewer and narrower layers and random weights, because
the true ones take minutes (`benchmarks/results/tensorrt_engines_vsc22.md`). Those of ``lite`` are the real ones.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from engine.build.comparison import Sample, accepted_models
from engine.build.compiler import DEFAULT_COMPUTE_CAPABILITIES
from engine.build.float16 import to_float16
from engine.build.onnx_graph import fold_pca
from engine.build.onnx_runtime import run_graph
from engine.build.packaged import packaged_folder
from engine.build.parity import check_parity, load_cases
from engine.build.precision import compare_precisions
from engine.build.tensorrt_builder import build_engine
from engine.build.turing import rewrite_for_turing
from engine.config import ClipGate, Preset, load_preset
from engine.errors import EngineError
from engine.projection import load_pca
from engine.runtime.manifest import RowProfile
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
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

LITE = packaged_folder("lite")
SIZES_PX = {"swinv2_base_w16_256": 64, "vit_base_patch32_384": 96}
NUM_SWIN_BLOCKS = 3
TARGETS = DEFAULT_COMPUTE_CAPABILITIES


def one_of_each() -> Preset:
    """Preset vsc22 with one model of each architecture: three differ in nothing but their weights."""
    preset = load_preset("vsc22")
    return preset.model_copy(update={"models": (preset.models[0], preset.models[-1])})


VSC22 = one_of_each()
NAMES = tuple(model.name for model in VSC22.models)


def twin(architecture: str, *, seed: int) -> nn.Module:
    if architecture == "vit_base_patch32_384":
        model: nn.Module = VitDescriptor(img_size=96, patch_size=32, embed_dim=48, depth=1, num_heads=3, output_dim=16)
    else:
        model = SwinV2Descriptor(
            img_size=64,
            patch_size=4,
            window_size=8,
            embed_dim=32,
            depths=(2, 1),
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
        num_layers=1,
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


def write_float16(source: Path, folder: Path, *, chosen: tuple[str, ...]) -> Path:
    """The graph as it is built; the models ``chosen`` in float16, and with lite's PCA."""
    names = {"ensemble": ("lite",) if source.parent == LITE else NAMES}.get(source.stem, (source.stem,))
    path = folder / "g.onnx"
    to_float16(source, path, names=names, chosen=chosen)
    if source == LITE / "ensemble.onnx":
        fold_pca(path, load_pca(LITE / "pca.npz"), path)
    return path


def build(path: Path, *, max_rows: int = 32) -> int:
    """Size of the engine, in bytes."""
    engine, profile = path.with_suffix(".engine"), RowProfile(min_rows=1, opt_rows=8, max_rows=max_rows)
    build_engine(import_tensorrt("tensorrt_rtx"), path, engine, profile=profile, compute_capabilities=TARGETS)
    return engine.stat().st_size


@pytest.mark.long
@pytest.mark.parametrize("name", ["ensemble", "edit_features", "edit_score"])
def test_the_graphs_of_vsc22_compute_what_pytorch_computes_and_are_built(
    vsc22: dict[str, Path], tmp_path: Path, name: str
) -> None:
    cases = load_cases(vsc22[name].with_suffix(".check.npz"))
    assert len(cases) >= 3
    inputs = [case.inputs for case in cases]
    check_parity(run_graph(vsc22[name], inputs), cases, name=f"{name} in ONNX Runtime")
    compile_to_ir(vsc22[name], tmp_path / "g.xml")
    with OpenVinoRunner(tmp_path / "g.xml", num_threads=1) as runner:
        check_parity([runner.run(given) for given in inputs], cases, name=f"{name} in OpenVINO")
    graph = onnx.load(vsc22[name], load_external_data=False).graph
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    assert all(node.op_type == "Cast" for node in graph.node if pixels & set(node.input))
    for chosen in ((), NAMES if name == "ensemble" else (name,)):
        path = write_float16(vsc22[name], tmp_path, chosen=chosen)
        assert build(path, max_rows=256 if name == "edit_score" else 32) > 0


@pytest.mark.parametrize("name", ["ensemble", "edit_score"])
def test_the_graphs_of_lite_are_built_and_float16_saves_half_of_the_weights(tmp_path: Path, name: str) -> None:
    model, max_rows = ("lite", 32) if name == "ensemble" else ("edit_score", 256)
    source = LITE / f"{name}.onnx"
    float32, float16 = (
        build(write_float16(source, tmp_path, chosen=chosen), max_rows=max_rows) for chosen in ((), (model,))
    )
    if name == "edit_score":
        # It is linear, and the last layer of a model stays float32: there is nothing to round, only casts to add.
        assert float16 == pytest.approx(float32, rel=0.01)
    else:
        # The file in the package stores float16, so it is as large as what is saved, but for islands and last layers.
        assert float32 - float16 > 0.7 * source.stat().st_size


@pytest.mark.parametrize("name", ["ensemble", "edit_score"])
def test_the_graphs_of_lite_compute_the_same_when_rewritten_for_turing(tmp_path: Path, name: str) -> None:
    cases = load_cases(LITE / f"{name}.check.npz")
    path = write_float16(LITE / f"{name}.onnx", tmp_path, chosen=())
    rewrite_for_turing(path)
    check_parity(run_graph(path, [case.inputs for case in cases]), cases, name=f"{name} for Turing")


def test_cosine_attention_in_float32_cannot_be_built_for_turing(vsc22: dict[str, Path], tmp_path: Path) -> None:
    path = write_float16(vsc22["ensemble"], tmp_path, chosen=NAMES)
    with pytest.raises(EngineError, match=r"the float32 MatMul 'node_\w+' cannot be built .* two activations"):
        rewrite_for_turing(path)


def test_the_twins_of_vsc22_may_be_float16(vsc22: dict[str, Path], tmp_path: Path) -> None:
    samples = {name: Sample(path, load_cases(path.with_suffix(".check.npz"))) for name, path in vsc22.items()}
    found = compare_precisions(samples, VSC22, folder=tmp_path)
    assert accepted_models(found["ensemble"]) == set(NAMES)
    assert all(row.worst < 1 - 1e-9 for row in found["ensemble"])  # float16 took place


def test_attention_of_a_swin_block_is_float32_and_its_linear_layers_are_float16(
    vsc22: dict[str, Path], tmp_path: Path
) -> None:
    path = write_float16(vsc22["ensemble"], tmp_path, chosen=NAMES)
    onnx.checker.check_model(path)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds = Counter(
        (node.op_type, types[node.output[0]] == onnx.TensorProto.FLOAT16)
        for node in inferred.node
        if node.op_type in ("MatMul", "Gemm", "Conv", "Softmax", "LayerNormalization")
    )
    assert kinds[("MatMul", False)] == NUM_SWIN_BLOCKS  # queries and keys of each block
    assert kinds[("MatMul", True)] > 4 * NUM_SWIN_BLOCKS
    assert (kinds[("Conv", False)], kinds[("Gemm", False)]) == (0, len(NAMES))  # the last layer of each model
    assert not kinds[("Softmax", True)] + kinds[("LayerNormalization", True)]
