"""Exported graphs: frames as uint8, any number of rows, and what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.build.parity import check_parity, load_cases
from engine.build.tensorrt_builder import build_engine
from engine.config import DescriptorModel, NoGate, load_preset
from engine.errors import ConfigError
from engine.runtime.manifest import RowProfile
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from engine.runtime.tensorrt_library import import_tensorrt
from tests import graphs
from tests.gate_presets import gate_preset

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torchvision.transforms import functional as transforms  # noqa: E402

from engine.build import export  # noqa: E402
from engine.models.edit_features import LITE0_STATISTICS, WithStatistics, statistics  # noqa: E402
from engine.models.edit_score import build_edit_score  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor  # noqa: E402
from engine.models.freezing import freeze_for_export  # noqa: E402

pytestmark = pytest.mark.torch

MEANS = ((0.5, 0.5, 0.5), (0.48, 0.46, 0.41), (0.5, 0.5, 0.5))
STDS = ((0.5, 0.5, 0.5), (0.27, 0.26, 0.28), (0.25, 0.25, 0.25))
SIZES_PX = (16, 32, 16)


class Averages(nn.Module):
    """Frames -> the mean of each color, through a matrix: small, and easy to compute by other means."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = np.random.default_rng(seed)
        self.matrix = nn.Parameter(torch.from_numpy(generator.standard_normal((3, 5)).astype(np.float32)))

    @property
    def backbone(self) -> nn.Module:
        return self

    def maps(self, frames: Tensor) -> list[Tensor]:
        """One stage, and what the embedding is made of."""
        return [frames.square(), frames]

    def embed(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=(2, 3)) @ self.matrix

    def forward(self, frames: Tensor) -> Tensor:
        return self.embed(frames)


def configs() -> list[DescriptorModel]:
    template = load_preset("vsc22").models[0]
    return [
        template.model_copy(update={"name": f"m{index}", "input_px": px, "mean": mean, "std": std})
        for index, (px, mean, std) in enumerate(zip(SIZES_PX, MEANS, STDS, strict=True))
    ]


def models() -> list[nn.Module]:
    """The second one gives features, too."""
    first, second, third = map(Averages, range(3))
    return [freeze_for_export(model) for model in (first, WithStatistics(second), third)]


def expected_embedding(frames: dict[str, np.ndarray]) -> np.ndarray:
    """In float64: (x / 255 - mean) / std, the model, x / ||x||, concatenation in order."""
    parts = []
    for config, model in zip(configs(), map(Averages, range(3)), strict=True):
        pixels = (frames[f"frames_{config.input_px}"] / 255.0 - config.mean) / config.std
        values = pixels.mean(axis=(1, 2)) @ model.matrix.detach().numpy().astype(np.float64)
        parts.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "ensemble.onnx"
    export.write_graph(export.ensemble_program(configs(), models()), path=path)
    return path


def open_compiled(path: Path) -> OpenVinoRunner:
    compile_to_ir(path, path.with_suffix(".xml"))
    return OpenVinoRunner(path.with_suffix(".xml"), num_threads=1)


def check(runner: OpenVinoRunner, cases_path: Path) -> None:
    cases = load_cases(cases_path)
    check_parity([runner.run(case.inputs) for case in cases], cases, name="the exported graph")


@pytest.mark.parametrize("num_rows", [1, 2, 5])
def test_the_ensemble_normalizes_each_model_concatenates_in_order_and_gives_features(
    ensemble: Path, num_rows: int
) -> None:
    frames = {f"frames_{px}": graphs.natural_pictures(num_rows, size_px=px) for px in (16, 32)}
    with open_compiled(ensemble) as runner:
        result = runner.run(frames)
    np.testing.assert_allclose(result["embedding"], expected_embedding(frames), atol=2e-6, rtol=0)
    pixels = (torch.from_numpy(frames["frames_32"] / 255.0) - torch.tensor(MEANS[1])) / torch.tensor(STDS[1])
    expected = statistics([pixels.permute(0, 3, 1, 2).square()]).numpy()
    np.testing.assert_allclose(result["edit_features"], expected, atol=1e-5, rtol=0)


def test_inputs_are_uint8_with_the_rows_in_front_one_per_size(ensemble: Path) -> None:
    graph = onnx.load(ensemble, load_external_data=False).graph
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "frames_16": (onnx.TensorProto.UINT8, ["rows", 16, 16, 3]),
        "frames_32": (onnx.TensorProto.UINT8, ["rows", 32, 32, 3]),
        "embedding": (onnx.TensorProto.FLOAT, ["rows", 15]),
        "edit_features": (onnx.TensorProto.FLOAT, ["rows", 18]),
    }


def test_graphs_carry_nothing_of_the_machine_that_made_them(ensemble: Path) -> None:
    assert str(Path(export.__file__).parent).encode() not in ensemble.read_bytes()
    assert b"stack_trace" not in ensemble.read_bytes()


def test_an_embedding_of_zeros_stays_zero() -> None:
    zero = Averages(0)
    nn.init.zeros_(zero.matrix)
    module = export.Ensemble(configs()[:1], [zero])
    [embedding] = module(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    assert (embedding == 0).all()


def test_normalize_gives_the_bits_of_torchvision() -> None:
    frames = graphs.natural_pictures(2, size_px=16)
    want = torch.stack([transforms.normalize(transforms.to_tensor(frame), MEANS[1], STDS[1]) for frame in frames])
    assert torch.equal(export.Normalize(MEANS[1], STDS[1])(torch.from_numpy(frames)), want)


def test_three_files_are_written(ensemble: Path) -> None:
    names = sorted(found.name for found in ensemble.parent.glob("*") if found.suffix not in {".xml", ".bin"})
    assert names == ["ensemble.check.npz", "ensemble.onnx", "ensemble.onnx.data"]


def test_only_casts_read_uint8(ensemble: Path) -> None:
    graph = onnx.load(ensemble, load_external_data=False).graph
    inputs = {value.name for value in graph.input}
    assert {node.op_type for node in graph.node if inputs & set(node.input)} == {"Cast"}


def test_recorded_cases_are_batches_of_one_and_more(ensemble: Path) -> None:
    cases = load_cases(ensemble.with_suffix(".check.npz"))
    assert [len(case.inputs["frames_16"]) for case in cases] == [1, 2, 3]
    for case in cases:
        np.testing.assert_allclose(case.outputs["embedding"], expected_embedding(case.inputs), atol=2e-6, rtol=0)


def test_checkpoints_of_each_graph() -> None:
    preset = load_preset("vsc22")
    assert export.checkpoints_of("ensemble", preset) == (
        "swinv2_v115.torchscript.pt",
        "swinv2_v107.torchscript.pt",
        "swinv2_v106.torchscript.pt",
        "vit_v68.torchscript.pt",
    )
    assert export.checkpoints_of("edit_features", preset) == ("clip.torchscript.pt",)
    assert export.checkpoints_of("edit_score", preset) == ("vsm.torchscript.pt",)
    ungated = load_preset("lite").model_copy(update={"gate": NoGate()})
    with pytest.raises(ValueError, match="preset 'lite' has no graph 'edit_score'"):
        export.checkpoints_of("edit_score", ungated)


def test_random_weights_are_recorded_by_their_seed_and_differ_by_checkpoint() -> None:
    weights = export.Weights(folder=None, random=True)
    assert weights.record("a.pt") == weights.record("a.pt")
    assert weights.record("a.pt").sha256 != weights.record("b.pt").sha256
    first, again, other = (weights.load(Averages(0), name) for name in ("a.pt", "a.pt", "b.pt"))
    assert torch.equal(first.matrix, again.matrix)
    assert not torch.equal(first.matrix, other.matrix)


def test_weights_of_a_file_are_recorded_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"abc")
    record = export.Weights(folder=tmp_path, random=False).record("a.pt")
    # SHA-256 of "abc": FIPS 180-2, appendix B.1.
    assert record.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(ConfigError, match=r"b\.pt"):
        export.Weights(folder=tmp_path, random=False).record("b.pt")


@torch.inference_mode()
def test_an_ensemble_gives_the_features_of_its_gate() -> None:
    preset, weights = gate_preset(), export.Weights(folder=None, random=True)
    program = export.graph_program("ensemble", preset=preset, weights=weights)
    assert program.outputs == ("embedding", "edit_features")
    model = weights.load(EfficientNetLiteDescriptor(), preset.models[0].checkpoint)
    frames = torch.from_numpy(graphs.natural_pictures(2, size_px=224))
    embedding, features = program.module(frames)
    pixels = (frames.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    *stages, _ = model.backbone.maps(pixels)
    torch.testing.assert_close(features, statistics(stages))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@pytest.fixture(scope="module")
def pooled_score(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "edit_score.onnx"
    export.export_graph("edit_score", preset=gate_preset(), weights=export.Weights(folder=None, random=True), path=path)
    return path


def test_the_pooled_score_takes_any_number_of_frames(pooled_score: Path) -> None:
    with open_compiled(pooled_score) as runner:
        check(runner, pooled_score.with_suffix(".check.npz"))


def test_the_pooled_score_is_built_by_tensorrt(pooled_score: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine, profile = pooled_score.with_suffix(".engine"), RowProfile(min_rows=1, opt_rows=8, max_rows=256)
    rtx = import_tensorrt("tensorrt_rtx")
    build_engine(rtx, pooled_score, engine, profile=profile, compute_capabilities=["8.6"])
    assert engine.stat().st_size > 0


def test_all_frames_of_an_exported_video_count(pooled_score: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((4, LITE0_STATISTICS)).astype(np.float32)
    rows[1] = 0
    model = export.Weights(folder=None, random=True).load(
        build_edit_score("edit_score_pooled"), "edit_score.safetensors"
    )
    with open_compiled(pooled_score) as runner, torch.inference_mode():
        score = runner.run({"features": rows})["score"]
        np.testing.assert_allclose(score, model(torch.from_numpy(rows)).numpy(), atol=5e-6, rtol=0)


def test_a_graph_that_the_preset_does_not_have_fails() -> None:
    with pytest.raises(ValueError, match="'gated' has no graph 'edit_features'"):
        export.checkpoints_of("edit_features", gate_preset())
