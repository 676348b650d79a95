"""One video to descriptors: gate, scenes, ensemble, near-duplicate frames. Knows nothing of files and other videos.

The gate comes first: a video it stops needs nothing else, and three quarters of a challenge's queries are stopped.
The reference computes everything and throws it away afterwards; the results are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import GateVsc, Preset
from engine.frames import FrameSource, InputSpec
from engine.near_duplicates import keep_distinct
from engine.records import Descriptors, FloatArray, Region, Role
from engine.runtime import Runner
from engine.runtime.batching import Outputs, SharedRunner
from engine.sampling import slot_timestamps
from engine.scenes import find_scenes
from engine.timing import StageClock

_PLACEHOLDER_RANGE = 1e-5


@dataclass(frozen=True)
class GateRunners:
    """The edit gate: its settings, and its graphs for frames (shared batches) and for the features of one video."""

    config: GateVsc
    features: SharedRunner
    score: Runner


@dataclass(frozen=True)
class Describer:
    """Describes videos with the graphs of one preset. Thread-safe.

    ``num_dims`` is D of the result: the PCA's dimensions if ``use_pca``, else those of the concatenated embedding.
    ``fps``: sampled frames per second, which sets the timestamps.
    """

    preset: Preset
    ensemble: SharedRunner
    gate: GateRunners | None
    num_dims: int
    use_pca: bool
    fps: float = 1.0

    def describe(self, source: FrameSource, *, video_id: str, role: Role, clock: StageClock) -> Descriptors:
        """Describe one video.

        A query passes the gate, is split into scenes, and loses near-duplicate frames; a reference is only described.
        Rows are scene-major: all frames of the first scene, then all of the second. Raises ``MediaError`` where the
        file gives no frame.
        """
        edit_score = None
        if role == "query" and self.gate is not None:
            with clock.stage("gate"):
                edit_score = _edit_score(source, self.gate, clock)
            if edit_score < self.gate.config.score_threshold:
                return gated_placeholder(video_id, edit_score=edit_score, num_dims=self.num_dims, fps=self.fps)
        regions: Sequence[Region | None] = [None]
        if role == "query" and self.preset.scenes.enabled:
            with clock.stage("scenes"):
                regions = find_scenes(source.scene_statistics()) or [None]
        with clock.stage("ensemble"):
            outputs = self._run_ensemble(source, regions, clock)
        embeddings = outputs["embedding"]
        with clock.stage("near_duplicates"):
            kept = self._kept_rows(embeddings, role=role)
        timestamps = np.tile(slot_timestamps(len(embeddings) // len(regions), fps=self.fps), (len(regions), 1))
        rows = outputs["descriptor"] if self.use_pca else embeddings
        return Descriptors(video_id, timestamps[kept], rows[kept], edit_score=edit_score, warnings=source.warnings)

    def _run_ensemble(self, source: FrameSource, regions: Sequence[Region | None], clock: StageClock) -> Outputs:
        sizes = sorted({model.input_px for model in self.preset.models})
        specs = [InputSpec(f"frames_{size_px}", size_px) for size_px in sizes]
        with self.ensemble.open_stream() as stream:
            for region in regions:
                for inputs in clock.each("decode", source.model_inputs(specs, region=region)):
                    stream.submit(inputs)
            return stream.results()

    def _kept_rows(self, embeddings: FloatArray, *, role: Role) -> NDArray[np.intp]:
        if role == "reference":
            return np.arange(len(embeddings))
        return keep_distinct(embeddings, max_cosine=self.preset.near_duplicates.max_cosine)


def _edit_score(source: FrameSource, gate: GateRunners, clock: StageClock) -> float:
    spec = InputSpec(f"frames_{gate.config.input_px}", gate.config.input_px, "center_crop")
    with gate.features.open_stream() as stream:
        for inputs in clock.each("decode", source.model_inputs([spec], max_frames=gate.config.max_frames)):
            stream.submit(inputs)
        features = stream.results()["features"]
    return float(gate.score.run({"features": features})["score"][0])


def gated_placeholder(video_id: str, *, edit_score: float, num_dims: int, fps: float) -> Descriptors:
    """What stands for a video that the gate stopped: one row, uniform in ``[-1e-5, 1e-5)``, of the first time slot.

    The reference seeds it by a counter; the video's id is used instead, so that no order of videos changes it.
    """
    seed = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "little")
    row = np.random.default_rng(seed).uniform(-_PLACEHOLDER_RANGE, _PLACEHOLDER_RANGE, size=(1, num_dims))
    return Descriptors(video_id, slot_timestamps(1, fps=fps), row.astype(np.float32), edit_score=edit_score, gated=True)
