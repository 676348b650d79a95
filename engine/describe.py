"""One video to descriptors: gate, scenes, ensemble, near-duplicate frames. Knows nothing of files and other videos.

The gate comes first: a video it stops needs nothing else, and three quarters of a challenge's queries are stopped.
The reference computes everything and throws it away afterwards; the results are the same. A gate on features of the
ensemble needs the ensemble on the whole frames; these are used again where a query is not split into scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import ClipGate, EnsembleGate, Preset
from engine.frames import FrameSource, InputSpec
from engine.gated import gated_placeholder
from engine.near_duplicates import keep_distinct
from engine.records import Descriptors, FloatArray, Region, Role
from engine.runtime import Runner
from engine.runtime.batching import Outputs, SharedRunner
from engine.sampling import slot_timestamps
from engine.scenes import find_scenes
from engine.timing import StageClock


@dataclass(frozen=True)
class GateRunners:
    """The edit gate: its settings, the graph with the features of frames, and the graph that scores those of one video.

    ``features`` is a graph of its own for a `ClipGate`, and the ensemble for an `EnsembleGate`.
    """

    config: ClipGate | EnsembleGate
    features: SharedRunner
    score: Runner

    @property
    def keeps_stopped(self) -> bool:
        """The rows of a video that the gate stopped are kept for `engine.readmit`."""
        return isinstance(self.config, EnsembleGate) and self.config.near_identical_cosine is not None

    def score_of(self, features: FloatArray) -> float:
        """The edit score of the video whose frames have these features, float32 ``(F, C)``; the first frames count."""
        return float(self.score.run({"features": features[: self.config.max_frames]})["score"][0])


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
        Rows are scene-major: all frames of the first scene, then all of the second. For a query that the gate stopped
        there is a placeholder, or the rows of its whole frames if `engine.readmit` is to look at them. Raises
        ``MediaError`` where the file gives no frame.
        """
        whole, edit_score, gated = None, None, False
        if role == "query" and self.gate is not None:
            if isinstance(self.gate.config, EnsembleGate):
                whole = self._run_ensemble(source, [None], clock)
                features = whole["edit_features"]
            else:
                features = _clip_features(source, self.gate.config, self.gate.features, clock)
            with clock.stage("gate"):
                edit_score = self.gate.score_of(features)
            gated = edit_score < self.gate.config.score_threshold
            if gated and not self.gate.keeps_stopped:
                slot = slot_timestamps(1, fps=self.fps)
                return gated_placeholder(video_id, slot, edit_score=edit_score, num_dims=self.num_dims)
        regions: Sequence[Region | None] = [None]
        if role == "query" and not gated and self.preset.scenes.enabled:
            with clock.stage("scenes"):
                regions = find_scenes(source.scene_statistics()) or [None]
        outputs = self._run_ensemble(source, regions, clock) if whole is None or regions != [None] else whole
        embeddings = outputs["embedding"]
        with clock.stage("near_duplicates"):
            kept = self._kept_rows(embeddings, role=role)
        timestamps = np.tile(slot_timestamps(len(embeddings) // len(regions), fps=self.fps), (len(regions), 1))
        rows = outputs["descriptor"] if self.use_pca else embeddings
        return Descriptors(
            video_id, timestamps[kept], rows[kept], edit_score=edit_score, gated=gated, warnings=source.warnings
        )

    def _run_ensemble(self, source: FrameSource, regions: Sequence[Region | None], clock: StageClock) -> Outputs:
        sizes = sorted({model.input_px for model in self.preset.models})
        specs = [InputSpec(f"frames_{size_px}", size_px) for size_px in sizes]
        with clock.stage("ensemble"), self.ensemble.open_stream() as stream:
            for region in regions:
                for inputs in clock.each("decode", source.model_inputs(specs, region=region)):
                    stream.submit(inputs)
            return stream.results()

    def _kept_rows(self, embeddings: FloatArray, *, role: Role) -> NDArray[np.intp]:
        if role == "reference":
            return np.arange(len(embeddings))
        return keep_distinct(embeddings, max_cosine=self.preset.near_duplicates.max_cosine)


def _clip_features(source: FrameSource, config: ClipGate, runner: SharedRunner, clock: StageClock) -> FloatArray:
    spec = InputSpec(f"frames_{config.input_px}", config.input_px, "center_crop")
    with clock.stage("gate"), runner.open_stream() as stream:
        for inputs in clock.each("decode", source.model_inputs([spec], max_frames=config.max_frames)):
            stream.submit(inputs)
        return stream.results()["features"]
