"""The frozen frame features that an edit-score model is trained on, computed once by the engine's own graph.

One file for each video and graph, named by what it was made from, so that an interrupted extraction goes on and other
videos or weights never meet old features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

from engine.build.export import Weights, checkpoints_of, export_graph, source_digest
from engine.config import ClipGate, EnsembleGate, Preset, graph_parts
from engine.errors import ConfigError, MediaError
from engine.files import load_arrays, save_arrays
from engine.records import FloatArray, Media, Span, View
from engine.runtime.batching import SharedRunner
from engine.runtime.manifest import digest
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from engine.store.shards import Fingerprint
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of the sampled frames of one video: float32 ``(n, C)``, n >= 1, at most the gate's ``max_frames``."""

    video_id: str
    rows: FloatArray


class FeatureExtractor:
    """Frame features of the edit gate of ``preset``, kept in ``folder``. A context manager.

    ``weights``: where the checkpoint of the features is. The graph is exported and compiled on entry, unless it lies in
    ``folder`` already. Raises ``ConfigError`` if the preset has no gate or a checkpoint is missing.
    """

    def __init__(self, preset: Preset, weights: Weights, *, folder: Path) -> None:
        gate = preset.gate
        if not isinstance(gate, ClipGate | EnsembleGate):
            raise ConfigError(f"preset {preset.name!r} has no edit gate; name its models in [gate], mode may be 'off'")
        if isinstance(gate, ClipGate):
            self._name, self._output = "edit_features", "features"
            self._specs = [InputSpec(f"frames_{gate.input_px}", gate.input_px, "center_crop")]
        else:
            self._name, self._output = "ensemble", "edit_features"
            sizes_px = sorted({model.input_px for model in preset.models})
            self._specs = [InputSpec(f"frames_{px}", px) for px in sizes_px]
        self._preset, self._weights, self._max_frames = preset, weights, gate.max_frames
        sha256s = [weights.record(checkpoint).sha256 for checkpoint in checkpoints_of(self._name, preset)]
        version = metadata.version("openvino")
        key = digest(source_digest(), graph_parts(preset)[self._name], sha256s, version)
        self._folder = folder / key
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        compiled = self._folder / "graph.xml"
        if not compiled.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            exported = self._folder / "exported.onnx"
            export_graph(self._name, preset=self._preset, weights=self._weights, path=exported)
            compile_to_ir(exported, self._folder / "compiled.xml")
            (self._folder / "compiled.bin").replace(compiled.with_suffix(".bin"))
            (self._folder / "compiled.xml").replace(compiled)
            for leftover in self._folder.glob("exported.*"):
                leftover.unlink()
        runner = self._resources.enter_context(OpenVinoRunner(compiled))
        self._runner = SharedRunner(runner)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def extract(
        self, media: Sequence[Media], *, num_workers: int, advance: Callable[[], None] = lambda: None
    ) -> list[VideoFeatures]:
        """The features of the videos, in their order. One that cannot be read is logged and left out."""
        found = []
        with ThreadPoolExecutor(num_workers, thread_name_prefix="features") as pool:
            for item, features in zip(media, pool.map(self._features, media), strict=True):
                if features is not None:
                    found.append(VideoFeatures(item.video_id, features))
                advance()
        return found

    def _features(self, media: Media) -> FloatArray | None:
        fingerprint = Fingerprint.of(media.path)
        name = digest(str(media.path.resolve()), fingerprint.size_bytes, fingerprint.mtime_ns, self._max_frames)
        path = self._folder / f"{name}.npz"
        if path.is_file():
            return load_arrays(path)["features"]
        try:
            features = self._compute(media)
        except MediaError as error:
            logger.warning("left out: %s", error)
            return None
        save_arrays(path, {"features": features})
        return features

    def _compute(self, media: Media) -> FloatArray:
        with closing(PyAvFrameSource(media)) as source, self._runner.open_stream() as stream:
            for chunk in source.model_inputs(self._specs, views=[View(span=Span(stop=self._max_frames))]):
                stream.submit(chunk.inputs)
            features: FloatArray = stream.results()[self._output]
            return features
