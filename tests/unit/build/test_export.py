"""Exported graphs: frames as uint8, any number of rows, and what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.build.parity import check_runner, load_cases
from engine.config import ClipGate, DescriptorModel, NoGate, load_preset
from engine.errors import ConfigError, EngineError
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from tests import graphs
from tests.gate_presets import gate_preset

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torchvision.transforms import functional as transforms  # noqa: E402

from engine.build import export  # noqa: E402
from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.clip import ClipVisual  # noqa: E402
from engine.models.edit_features import LITE0_STATISTICS, statistics  # noqa: E402
from engine.models.edit_score import EditScore  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor  # noqa: E402
from engine.models.freezing import freeze_for_export  # noqa: E402

pytestmark = pytest.mark.torch

MEANS = ((0.5, 0.5, 0.5), (0.48, 0.46, 0.41), (0.5, 0.5, 0.5))
STDS = ((0.5, 0.5, 0.5), (0.27, 0.26, 0.28), (0.25, 0.25, 0.25))
SIZES_PX = (16, 32, 16)


class Averages(nn.Module):
    """Frames -> the mean of each colour, through a matrix: small, and easy to compute by other means."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = np.random.default_rng(seed)
        self.matrix = nn.Parameter(torch.from_numpy(generator.standard_normal((3, 5)).astype(np.float32)))

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=(2, 3)) @ self.matrix


def configs() -> list[DescriptorModel]:
    template = load_preset("vsc22").models[0]
    return [
        template.model_copy(update={"name": f"m{index}", "input_px": px, "mean": mean, "std": std})
        for index, (px, mean, std) in enumerate(zip(SIZES_PX, MEANS, STDS, strict=True))
    ]


def models() -> list[nn.Module]:
    return [freeze_for_export(Averages(seed)) for seed in range(3)]


def expected_embedding(frames: dict[str, np.ndarray]) -> np.ndarray:
    """In float64: (x / 255 - mean) / std, the model, x / ||x||, concatenation in order."""
    parts = []
    for config, model in zip(configs(), models(), strict=True):
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


@pytest.mark.parametrize("num_rows", [1, 2, 5])
def test_the_ensemble_normalizes_each_model_and_concatenates_in_order(ensemble: Path, num_rows: int) -> None:
    frames = {f"frames_{px}": graphs.natural_pictures(num_rows, size_px=px) for px in (16, 32)}
    with open_compiled(ensemble) as runner:
        result = runner.run(frames)["embedding"]
    np.testing.assert_allclose(result, expected_embedding(frames), atol=2e-6, rtol=0)


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


@pytest.fixture(scope="module")
def edit_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gate = load_preset("vsc22").gate
    assert isinstance(gate, ClipGate)
    model = ClipVisual(input_resolution=28, patch_size=14, width=32, layers=2, heads=2)
    random_weights(model, seed=1)
    path = tmp_path_factory.mktemp("export") / "edit_features.onnx"
    gate = gate.model_copy(update={"input_px": 28})
    export.write_graph(export.edit_features_program(gate, freeze_for_export(model)), path=path)
    return path


@pytest.fixture(scope="module")
def edit_score(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = EditScore(
        feature_dim=1024,
        hidden_dim=32,
        intermediate_dim=64,
        num_layers=2,
        num_heads=2,
        max_frames=256,
        vocabulary_size=200,
        num_positions=300,
    )
    random_weights(model, seed=1)
    path = tmp_path_factory.mktemp("export") / "edit_score.onnx"
    export.write_graph(export.edit_score_program(freeze_for_export(model)), path=path)
    return path


@pytest.mark.parametrize("name", ["edit_features", "edit_score"])
def test_the_graphs_of_the_gate_compute_what_was_recorded(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    with open_compiled(path) as runner:
        check_runner(runner, load_cases(path.with_suffix(".check.npz")), name=name)


def test_three_files_are_written(edit_score: Path) -> None:
    names = sorted(found.name for found in edit_score.parent.glob("*") if found.suffix not in {".xml", ".bin"})
    assert names == ["edit_score.check.npz", "edit_score.onnx", "edit_score.onnx.data"]


def test_only_casts_read_uint8(ensemble: Path, edit_features: Path) -> None:
    for path in (ensemble, edit_features):
        graph = onnx.load(path, load_external_data=False).graph
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


@pytest.mark.parametrize("num_rows", [1, 3])
def test_an_ensemble_gives_the_features_of_its_gate(tmp_path: Path, num_rows: int) -> None:
    preset = gate_preset()
    path = tmp_path / "ensemble.onnx"
    export.export_graph("ensemble", preset=preset, weights=export.Weights(folder=None, random=True), path=path)
    model = EfficientNetLiteDescriptor()
    export.Weights(folder=None, random=True).load(model, preset.models[0].checkpoint)
    frames = graphs.natural_pictures(num_rows, size_px=224)
    with open_compiled(path) as runner, torch.inference_mode():
        result = runner.run({"frames_224": frames})
        pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        *stages, _ = model.backbone.maps(pixels)
        expected = statistics(stages).numpy()
    assert result["edit_features"].shape == (num_rows, LITE0_STATISTICS)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result["edit_features"] / scale, expected / scale, atol=5e-6, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(result["embedding"], axis=1), 1, atol=1e-5)


def test_the_pooled_score_takes_any_number_of_frames(tmp_path: Path) -> None:
    preset = gate_preset()
    path = tmp_path / "edit_score.onnx"
    export.export_graph("edit_score", preset=preset, weights=export.Weights(folder=None, random=True), path=path)
    with open_compiled(path) as runner:
        assert check_runner(runner, load_cases(path.with_suffix(".check.npz")), name="pooled") < 5e-6


def test_a_graph_that_the_preset_does_not_have_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'gated' has no graph 'edit_features'"):
        export.checkpoints_of("edit_features", gate_preset())


class LastBits(nn.Module):
    """An operation of ONNX that TensorRT does not take."""

    def forward(self, features: Tensor) -> Tensor:
        return (features.to(torch.int32) & 1).float().mean(dim=(0, 1))[None]


def test_an_operator_that_tensorrt_does_not_take_fails_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [{"features": torch.arange(8.0 * rows).reshape(rows, 8)} for rows in (1, 3)]
    program = export.Program(LastBits().eval(), inputs, ("score",), ({0: torch.export.Dim("rows", min=1, max=256)},))
    monkeypatch.setattr(export, "graph_program", lambda *_, **__: program)
    arguments = {"preset": load_preset("vsc22"), "weights": export.Weights(folder=None, random=True)}
    with pytest.raises(EngineError, match=r"TensorRT does not take the graph g.onnx: operator BitwiseAnd"):
        export.export_graph("edit_score", path=tmp_path / "g.onnx", **arguments)
    export.export_graph("edit_score", path=tmp_path / "h.onnx", frontend="torch-tensorrt", **arguments)
    assert load_cases(tmp_path / "h.check.npz")[0].outputs["score"] == [0.5]
