"""The manifest of an engines directory: what was built, from what, and whether it is all there. Builds nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.config import Preset, graph_parts
from engine.errors import ConfigError
from engine.files import file_sha256, written_aside
from engine.runtime.runner import TensorSpec

FORMAT_VERSION = 2
"""Raise it when the directory changes, or what the same weights compute: engines of other versions are refused, and
descriptors of theirs are not mixed with new ones."""

MANIFEST_NAME = "manifest.json"

Backend = Literal["openvino", "tensorrt"]
Device = Literal["cpu", "gpu"]
Flavour = Literal["tensorrt", "tensorrt_rtx"]
"""TensorRT for data centres, or TensorRT-RTX; both are imported under these names."""

Frontend = Literal["onnx", "torch-tensorrt"]
"""What reads a graph for TensorRT: its own ONNX parser, or Torch-TensorRT, which converts the PyTorch program."""

Precision = Literal["bf16", "fp16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp16", "fp32"]
Measure = Literal["cosine", "edit_score"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """A file of the directory: its path relative to it, its size and the SHA-256 of its bytes (hexadecimal)."""

    path: str
    size_bytes: int
    sha256: str


class WeightsRecord(_Record):
    """The weights of one model: the checkpoint that the preset names and the SHA-256 of its bytes.

    Random weights have the SHA-256 of the text ``random weights, seed N``.
    """

    checkpoint: str
    sha256: str


class Graph(_Record):
    """An exported ONNX graph. ``key`` is a hash of all it was made from; ``versions`` are those of the libraries."""

    key: str
    files: tuple[FileRecord, ...]
    weights: tuple[WeightsRecord, ...]
    versions: dict[str, str]


class Comparison(_Record):
    """What a lower precision did to one model, over ``num_inputs`` pictures or videos, and the precision chosen for it.

    ``worst`` is the smallest ``cosine`` of a descriptor with that in float32, or how far an ``edit_score`` moved at
    most, each as if it had been 0.5, where it moves most; ``limit`` is the last value of it that is accepted.
    """

    model: str
    measure: Measure
    worst: float
    limit: float
    num_inputs: int
    precision: Precision


class RowProfile(_Record):
    """The numbers of rows that an engine takes, and the one that it is tuned for."""

    min_rows: int
    opt_rows: int
    max_rows: int


class TensorRtFacts(_Record):
    """What a TensorRT engine was built with and what it runs on.

    ``version``: that of ``flavour``, which alone can load it. ``compute_capabilities``: of the GPUs it was built for,
    such as ``8.6``. ``precisions``: of each model of the graph; ``precision_choice``: what was asked for.
    ``graph_sha256``: of the exported ONNX graph. ``build_s``: seconds that TensorRT took.
    """

    flavour: Flavour
    version: str
    frontend: Frontend
    compute_capabilities: tuple[str, ...]
    precision_choice: PrecisionChoice
    precisions: dict[str, Precision]
    comparisons: tuple[Comparison, ...]
    profile: RowProfile
    graph_sha256: str
    build_s: float


class OpenVinoFacts(_Record):
    """In which precision OpenVINO computes a graph, what was asked for, and what was measured."""

    precision: Precision
    precision_choice: PrecisionChoice
    comparisons: tuple[Comparison, ...]


class CompiledEngine(_Record):
    """A graph, with the PCA folded in if there is one, in the format of a backend.

    ``tensorrt`` is there for a TensorRT engine, whose files are the engine and these facts beside it; ``openvino`` for
    one of OpenVINO that was not simply asked to be float32.
    """

    key: str
    files: tuple[FileRecord, ...]
    versions: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensorrt: TensorRtFacts | None = None
    openvino: OpenVinoFacts | None = None

    @property
    def main(self) -> FileRecord:
        """The file that a runner opens."""
        return self.files[0]


class PcaRecord(_Record):
    """The PCA folded into the ensemble; ``sha256`` is that of its arrays, whatever the file they came from."""

    file: FileRecord
    num_components: int
    sha256: str


class Manifest(_Record):
    """Everything known of an engines directory. ``weights``: where they come from.

    ``graphs`` and ``engines`` have the keys ``ensemble``, with a gate ``edit_score``, and ``edit_features`` unless the
    gate takes them from the ensemble. ``norm_set`` holds rows for score normalization that fit the PCA.
    ``shipped_sha256`` is that of the manifest of the package's weights where the engines were made from those.
    ``created`` is UTC in ISO 8601.
    """

    format_version: int = FORMAT_VERSION
    created: str
    preset: Preset
    backend: Backend
    weights: Literal["checkpoints", "random", "package"]
    graphs: dict[str, Graph]
    engines: dict[str, CompiledEngine]
    pca: PcaRecord | None
    norm_set: FileRecord | None = None
    shipped_sha256: str | None = None

    @property
    def device(self) -> Device:
        """Where the engines run."""
        return "cpu" if self.backend == "openvino" else "gpu"

    @property
    def bfloat16(self) -> tuple[str, ...]:
        """The names of the engines that compute in bfloat16."""
        facts = {name: engine.openvino for name, engine in self.engines.items()}
        return tuple(sorted(name for name, fact in facts.items() if fact and fact.precision == "bf16"))

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that are equal where format version, models, weights, input preparation and PCA are.

        Descriptors may be compared and mixed only under equal identities. Library versions, the backend and float16 do
        not count: they change a result by no more than the tolerance of the build's check. Bfloat16 does.
        """
        weights = {name: [record.sha256 for record in graph.weights] for name, graph in self.graphs.items()}
        lower = [self.bfloat16] if self.bfloat16 else []
        return digest(self.format_version, graph_parts(self.preset), weights, self.pca and self.pca.sha256, *lower)


def digest(*values: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of ``values`` as JSON."""
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_manifest(path: Path) -> Manifest:
    """What is recorded in ``manifest.json``, whether or not the files are there. Raises ``ConfigError``."""
    advice = build_advice("PRESET", path.parent)
    if not path.is_file():
        raise ConfigError(
            f"{path.parent} is not an engines directory, or its build was cut short: it has no {path.name}; {advice}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}; {advice}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{path} has format version {version}, this version of vsc-engine reads {FORMAT_VERSION}; {advice}"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        problem = f"{where}: {detail['msg']}, got {str(detail['input'])[:60]!r}"
        raise ConfigError(f"{path}: {problem}; {advice}") from error


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write the manifest, all at once: the last act of a build."""
    with written_aside(directory / MANIFEST_NAME) as aside:
        aside.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def record_file(path: Path, *, directory: Path) -> FileRecord:
    """Size and SHA-256 of a file below ``directory``."""
    name = path.relative_to(directory).as_posix()
    return FileRecord(path=name, size_bytes=path.stat().st_size, sha256=file_sha256(path))


def is_intact(file: FileRecord, *, directory: Path) -> bool:
    """Whether the file is there with the recorded size and bytes."""
    path = directory / file.path
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    return record_file(path, directory=directory) == file


def build_advice(preset_name: str, directory: Path) -> str:
    """The command that builds engines into ``directory``, in words."""
    return f"build it with `vsc-engine build --preset {preset_name} --output {directory}`"
