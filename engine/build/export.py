"""Exports the models of a preset as ONNX graphs over uint8 frames, and records what PyTorch gives for a few inputs."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor, nn

from engine import models
from engine.build.parity import Case, save_cases
from engine.config import ClipGate, DescriptorModel, EnsembleGate, NoGate, Preset, Rgb
from engine.files import file_sha256
from engine.models.checkpoints import find_checkpoint, load_weights, random_weights
from engine.models.descriptor import build_descriptor_model
from engine.models.edit_features import WithStatistics
from engine.models.edit_score import EditScore, build_edit_score, build_frame_features
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor
from engine.models.freezing import freeze_for_export
from engine.models.pooled_edit_score import PooledEditScore
from engine.records import Frames
from engine.runtime.manifest import WeightsRecord
from engine.video.resize import fit_picture
from engine.video.source import InputSpec

OPSET = 20
CHECKED_BATCHES = (1, 2, 3)
PHOTOGRAPHS: tuple[Callable[[], Frames], ...] = (data.astronaut, data.chelsea, data.coffee, data.rocket)
"""Pictures that lie in the wheel of scikit-image: graphs are checked on what they are made for."""

ROWS = {0: torch.export.Dim("rows", min=1)}
MAX_FRAMES = 256
CHECKED_LENGTHS = (1, 3, MAX_FRAMES - 1, MAX_FRAMES)
"""Frames of a video in the checks of the score graph. At 256 the model sees its closing token, below it does not."""

CHECKED_LENGTHS_POOLED = (1, 3, 9)
"""For a model that pools over frames, whose number means nothing to it; the cases come with the package."""


@dataclass(frozen=True)
class Weights:
    """Where weights come from: random numbers, or the checkpoints of ``folder`` and of installed packages."""

    folder: Path | None
    random: bool

    def record(self, checkpoint: str) -> WeightsRecord:
        """Where the weights that a preset calls ``checkpoint`` come from. Raises ``ConfigError`` if there are none."""
        if self.random:
            sha256 = hashlib.sha256(f"random weights, seed {_seed(checkpoint)}".encode()).hexdigest()
        else:
            sha256 = file_sha256(find_checkpoint(checkpoint, folder=self.folder))
        return WeightsRecord(checkpoint=checkpoint, sha256=sha256)

    def load(self, model: nn.Module, checkpoint: str) -> nn.Module:
        """Fill ``model`` in place and make it ready for export."""
        if self.random:
            random_weights(model, seed=_seed(checkpoint))
        else:
            load_weights(model, checkpoint=checkpoint, folder=self.folder)
        return freeze_for_export(model)


def source_digest() -> str:
    """SHA-256 of this file and those of `engine.models`: other code, other graphs."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted(Path(models.__file__).parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def checkpoints_of(name: str, preset: Preset) -> tuple[str, ...]:
    """The checkpoints that graph ``name`` of a preset is made from, in the order in which it uses them."""
    if name == "ensemble":
        return tuple(model.checkpoint for model in preset.models)
    if name == "edit_features" and isinstance(preset.gate, ClipGate):
        return (preset.gate.checkpoint,)
    if name == "edit_score" and not isinstance(preset.gate, NoGate):
        return (preset.gate.score_checkpoint,)
    raise ValueError(f"preset {preset.name!r} has no graph {name!r}")


@dataclass(frozen=True)
class Program:
    """A module ready for export: ``inputs`` are calls of it by the names of its inputs, ``rows`` its dynamic shapes."""

    module: nn.Module
    inputs: Sequence[dict[str, Tensor]]
    outputs: tuple[str, ...]
    rows: Any


def export_graph(name: str, *, preset: Preset, weights: Weights, path: Path) -> None:
    """Write graph ``name`` (``ensemble``, ``edit_features`` or ``edit_score``) of a preset.

    Beside ``path`` (``X.onnx``) come its weights, ``X.onnx.data``, and cases to check a runner with, ``X.check.npz``.
    Raises ``ConfigError`` if weights are missing or do not fit.
    """
    write_graph(graph_program(name, preset=preset, weights=weights), path=path)


def graph_program(name: str, *, preset: Preset, weights: Weights) -> Program:
    """The PyTorch program of a graph, see `export_graph`."""
    gate = preset.gate
    if name == "ensemble":
        models = [weights.load(build_descriptor_model(model.architecture), model.checkpoint) for model in preset.models]
        if isinstance(gate, EnsembleGate):
            index = [model.name for model in preset.models].index(gate.model)
            models[index] = WithStatistics(cast(EfficientNetLiteDescriptor, models[index]))
        return ensemble_program(preset.models, models)
    if name == "edit_features" and isinstance(gate, ClipGate):
        features = weights.load(build_frame_features(), gate.checkpoint)
        return edit_features_program(gate, features)
    if name == "edit_score" and not isinstance(gate, NoGate):
        model = build_edit_score(gate.score_architecture)
        weights.load(model, gate.score_checkpoint)
        return edit_score_program(model)
    raise ValueError(f"preset {preset.name!r} has no graph {name!r}")


def ensemble_program(configs: Sequence[DescriptorModel], models: Sequence[nn.Module]) -> Program:
    """Uint8 ``frames_{px}`` ``(n, px, px, 3)`` for each input size -> ``embedding`` ``(n, E)``, see `Ensemble`.

    With a model among them that also gives features of frames there is a second output, ``edit_features`` ``(n, F)``.
    """
    ensemble = Ensemble(configs, models).eval()
    pictures = [_pictures(num, ensemble.sizes_px) for num in CHECKED_BATCHES]
    outputs = ("embedding", "edit_features") if ensemble.gives_features else ("embedding",)
    return Program(ensemble, pictures, outputs, ((ROWS,) * len(ensemble.sizes_px),))


def edit_features_program(gate: ClipGate, model: nn.Module) -> Program:
    """Uint8 ``frames_{px}`` ``(n, px, px, 3)`` -> ``features`` ``(n, 1024)``."""
    module = nn.Sequential(Normalize(gate.mean, gate.std), model).eval()
    pictures = [_pictures(num, (gate.input_px,)) for num in CHECKED_BATCHES]
    return Program(module, pictures, ("features",), (ROWS,))


def edit_score_program(model: EditScore | PooledEditScore) -> Program:
    """Float32 ``features`` ``(n, C)`` of one video, 1 <= n <= 256 -> ``score`` ``(1,)``, a probability."""
    lengths = CHECKED_LENGTHS_POOLED if isinstance(model, PooledEditScore) else CHECKED_LENGTHS
    generator = torch.Generator().manual_seed(0)
    cases = [{"features": torch.randn(num, model.feature_dim, generator=generator)} for num in lengths]
    if isinstance(model, EditScore):
        cases[1]["features"][1] = 0  # the reference takes frames of zeros for padding, wherever they are
    return Program(model, cases, ("score",), ({0: torch.export.Dim("rows", min=1, max=MAX_FRAMES)},))


class Normalize(nn.Module):
    """Uint8 RGB frames ``(B, H, W, 3)`` -> float32 ``(B, 3, H, W)``: ``(frames / 255 - mean) / std``."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Rgb, std: Rgb) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:  # noqa: D102 - see the class
        # The cast comes first: TensorRT takes no other operation on uint8.
        pixels = frames.to(torch.float32).permute(0, 3, 1, 2)
        return (pixels / 255 - self.mean) / self.std


class Ensemble(nn.Module):
    """All models of a preset on the same frames: each L2-normalized, then concatenated in the order of the preset.

    Takes one uint8 array ``(B, px, px, 3)`` for each of ``sizes_px``, the distinct input sizes in the order in which
    the preset names them; returns ``(B, E)``. An embedding of zeros stays zero. If one of the models is a
    `WithStatistics`, returns its features ``(B, F)`` as well.
    """

    def __init__(self, configs: Sequence[DescriptorModel], models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.sizes_px = tuple(dict.fromkeys(config.input_px for config in configs))
        self.gives_features = any(isinstance(model, WithStatistics) for model in models)
        self._inputs = [self.sizes_px.index(config.input_px) for config in configs]
        self.members = nn.ModuleList(
            nn.Sequential(Normalize(config.mean, config.std), model)
            for config, model in zip(configs, models, strict=True)
        )

    def forward(self, *frames: Tensor) -> tuple[Tensor, ...]:  # noqa: D102 - see the class
        embeddings, features = [], []
        for member, index in zip(self.members, self._inputs, strict=True):
            output = member(frames[index])
            if isinstance(output, tuple):
                output, statistics = output
                features.append(statistics)
            embeddings.append(output / _length(output))
        return torch.cat(embeddings, dim=1), *features


def _length(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return lengths.clamp_min(1e-12)


def write_graph(program: Program, *, path: Path) -> None:
    """Write a program as `export_graph` does."""
    with torch.inference_mode():
        results = [_as_tuple(program.module(*tensors.values())) for tensors in program.inputs]
    _to_onnx(program).save(path, external_data=True)
    cases = [
        Case(_to_numpy(tensors), _to_numpy(dict(zip(program.outputs, result, strict=True))))
        for tensors, result in zip(program.inputs, results, strict=True)
    ]
    save_cases(cases, path.with_suffix(".check.npz"))


def _as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _to_numpy(tensors: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _to_onnx(program: Program) -> torch.onnx.ONNXProgram:
    # An example of one row would freeze the number of rows.
    example = program.inputs[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name: rows", category=UserWarning)
        exported = torch.onnx.export(
            program.module,
            tuple(example.values()),
            input_names=list(example),
            output_names=list(program.outputs),
            dynamic_shapes=program.rows,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None  # noqa: S101 - the type says None, which is the answer of the exporter before dynamo
    _cast_first(exported.model.graph)
    # Every node carries its Python stack, with the paths of this machine.
    for node in exported.model.graph:
        node.metadata_props.clear()
    return exported


def _cast_first(graph: Any) -> None:
    """Let all nodes that read a uint8 input read its float32 cast instead, as TensorRT asks for."""
    for tensor in graph.inputs:
        casts = [node for node in tensor.consumers() if node.op_type == "Cast"]
        for node, index in tensor.uses():
            if casts and node not in casts:
                node.replace_input_with(index, casts[0].outputs[0])
    graph.sort()


def _pictures(num: int, sizes_px: Sequence[int]) -> dict[str, Tensor]:
    """Photographs, other ones for each ``num``, uint8 ``(num, px, px, 3)`` for each input."""
    chosen = [PHOTOGRAPHS[(num + index) % len(PHOTOGRAPHS)]() for index in range(num)]
    return {
        f"frames_{px}": torch.from_numpy(np.stack([fit_picture(photo, InputSpec("", px)) for photo in chosen]))
        for px in sizes_px
    }


def _seed(checkpoint: str) -> int:
    return zlib.crc32(checkpoint.encode())
