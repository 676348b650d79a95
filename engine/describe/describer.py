"""One video to descriptors: gate, scenes, ensemble, near-duplicate frames. Knows nothing of files and other videos.

The gate comes first: a video it stops needs nothing else, and three quarters of a challenge's queries are stopped.
The reference computes everything and throws it away afterwards; the results are the same. A gate on features of the
ensemble needs the ensemble on the whole frames; these are used again where a query is not split into scenes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import ClipGate, EnsembleGate, Preset
from engine.describe.near_duplicates import keep_changing, keep_distinct
from engine.describe.repeats import Repeats
from engine.describe.scenes import find_scenes
from engine.describe.shots import scene_views
from engine.gate_placeholder import placeholder
from engine.records import Descriptors, FloatArray, GateState, Role, Span, View
from engine.runtime.batching import ALL_ROWS, Outputs, RowStream, SharedRunner
from engine.runtime.runner import Runner
from engine.timing import StageClock
from engine.video.source import FrameChunk, FrameSource, InputSpec

_NO_FEATURES: FloatArray = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class GateRunners:
    """The edit gate: its settings, the graph with the features of frames, and the graph that scores those of one video.

    ``features`` is a graph of its own for a `ClipGate`, and the ensemble for an `EnsembleGate`.
    """

    config: ClipGate | EnsembleGate
    features: SharedRunner
    score: Runner

    @property
    def keeps_rows(self) -> bool:
        """The rows of a video that the gate stopped are kept for `engine.search.exact_copies`."""
        return isinstance(self.config, EnsembleGate) and self.config.near_identical_cosine is not None

    def score_of(self, features: FloatArray) -> float:
        """The edit score of the video whose frames have these features, float32 ``(F, C)``; the first frames count."""
        return float(self.score.run({"features": features[: self.config.max_frames]})["score"][0])


@dataclass(frozen=True)
class Describer:
    """Describes videos with the graphs of one preset. Thread-safe.

    ``num_dims`` is D of the result: the PCA's dimensions if ``use_pca``, else those of the concatenated embedding.
    """

    preset: Preset
    ensemble: SharedRunner
    gate: GateRunners | None
    num_dims: int
    use_pca: bool

    def describe(self, source: FrameSource, *, video_id: str, role: Role, clock: StageClock) -> Descriptors:
        """Describe one video.

        A query passes the gate, is split into scenes, and loses near-duplicate frames; a reference is only described.
        Rows are view-major: all frames of the first scene, then all of the second. For a query that the gate stopped
        there is a placeholder, or the rows of its whole frames if `engine.search.exact_copies` is to look at them.
        Raises ``MediaError`` where the file gives no frame.
        """
        whole, edit_score = None, None
        gate: GateState = "passed"
        if role == "query" and self.gate is not None:
            if isinstance(self.gate.config, EnsembleGate):
                whole = self._run_ensemble(source, [View()], clock, num_features=self.gate.config.max_frames)
                frames = _FrameFeatures(whole.timestamps, whole.features)
            else:
                frames = _clip_features(source, self.gate.config, self.gate.features, clock)
            with clock.stage("gate"):
                edit_score = self.gate.score_of(frames.values)
            if edit_score < self.gate.config.score_threshold:
                if not self.gate.keeps_rows:
                    slot = frames.timestamps[:1]
                    return placeholder(video_id, slot, edit_score=edit_score, num_dims=self.num_dims)
                gate = "stopped_rows_kept"
        described = self._describe_views(source, role=role, gate=gate, whole=whole, clock=clock)
        embeddings = described.outputs["embedding"]
        with clock.stage("near_duplicates"):
            kept, timestamps = self._kept_rows(described, role=role)
        rows = described.outputs["descriptor"] if self.use_pca else embeddings
        return Descriptors(
            video_id,
            timestamps,
            rows[kept],
            edit_score=edit_score,
            gate=gate,
            blank=described.blank[kept],
            warnings=(*source.warnings, *_blank_lines(described.blank)),
            shot_ends_s=source.shot_ends_s,
        )

    def _describe_views(
        self, source: FrameSource, *, role: Role, gate: GateState, whole: _EnsembleRows | None, clock: StageClock
    ) -> _EnsembleRows:
        """The rows of all that is described of a video; ``whole``: of its whole frames, where they are known."""
        config = self.preset.scenes
        if role == "reference" or gate != "passed" or not config.enabled:
            return whole or self._run_ensemble(source, [View()], clock)
        if config.scope == "video":
            with clock.stage("scenes"):
                views = [View(region) for region in find_scenes(source.scene_statistics(), config=config)]
            return self._run_ensemble(source, views, clock) if views or whole is None else whole
        whole = whole or self._run_ensemble(source, [View()], clock)
        with clock.stage("scenes"):
            views = scene_views(source, whole.outputs["embedding"], whole.timestamps, config=config)
        if not views:
            return whole
        scenes = self._run_ensemble(source, views, clock)
        # Each is let go as soon as it is joined.
        names = list(whole.outputs)
        outputs = {name: np.concatenate([whole.outputs.pop(name), scenes.outputs.pop(name)]) for name in names}
        timestamps = np.concatenate([whole.timestamps, scenes.timestamps])
        return _EnsembleRows(timestamps, outputs, np.concatenate([whole.blank, scenes.blank]))

    def _run_ensemble(
        self, source: FrameSource, views: Sequence[View], clock: StageClock, *, num_features: int = 0
    ) -> _EnsembleRows:
        """Rows of all views, one view after the other; without views, of the whole frames.

        Features for the gate are ten times as large as all else; they are kept of ``num_features`` rows only.
        """
        inputs = sorted({(model.input_px, model.interpolation) for model in self.preset.models})
        specs = [InputSpec(f"frames_{size_px}", size_px, "stretch", filter_) for size_px, filter_ in inputs]
        keep = {"embedding": ALL_ROWS, "descriptor": ALL_ROWS, "edit_features": num_features}
        with clock.stage("ensemble"), self.ensemble.open_stream(keep=keep) as stream:
            chunks = clock.each("decode", source.model_inputs(specs, views=views or [View()]))
            submitted = _submit(chunks, stream)
            outputs = stream.results()
        features = outputs.pop("edit_features", None)
        if features is not None:
            features = features[submitted.rows[:num_features]]
        order = np.argsort(submitted.views, kind="stable")
        places = submitted.rows[order]
        rows = {name: outputs.pop(name)[places] for name in list(outputs)}  # a long video has tens of MB of each
        return _EnsembleRows(
            submitted.timestamps[order], rows, submitted.blank[order], _NO_FEATURES if features is None else features
        )

    def _kept_rows(self, described: _EnsembleRows, *, role: Role) -> tuple[NDArray[np.intp], FloatArray]:
        """Indices of the rows that remain, and their times."""
        embeddings, config = described.outputs["embedding"], self.preset.near_duplicates
        if role == "reference":
            return np.arange(len(embeddings)), described.timestamps
        if config.scope == "still":
            return keep_changing(embeddings, described.timestamps, max_cosine=config.max_cosine)
        kept = keep_distinct(embeddings, max_cosine=config.max_cosine)
        return kept, described.timestamps[kept]


class _EnsembleRows(NamedTuple):
    """What the ensemble gave for the frames of a video, by output, and the time of each row, float32 ``(N, 2)``.

    ``blank``: bool ``(N,)``, the rows whose pictures say nothing.
    ``features``: those that an `EnsembleGate` looks at, float32 ``(F, C)``, of the first frames.
    """

    timestamps: FloatArray
    outputs: Outputs
    blank: NDArray[np.bool_]
    features: FloatArray = _NO_FEATURES


class _Submitted(NamedTuple):
    """Of each picture of a video: its time, float32 ``(N, 2)``, its view, the row of a stream that is its own, and
    whether it says nothing, bool ``(N,)``.
    """

    timestamps: FloatArray
    views: NDArray[np.intp]
    rows: NDArray[np.intp]
    blank: NDArray[np.bool_]


def _submit(chunks: Iterable[FrameChunk], stream: RowStream) -> _Submitted:
    """Hand all pictures over, but those that repeat the one before them."""
    repeats, times, views, blank = Repeats(), [], [], []
    for chunk in chunks:
        times.append(chunk.timestamps)
        views.append(np.full(len(chunk.timestamps), chunk.view))
        blank.append(chunk.is_blank)
        new = repeats.new_inputs(chunk)
        if len(next(iter(new.values()))):
            stream.submit(new)
    return _Submitted(np.concatenate(times), np.concatenate(views), repeats.places, np.concatenate(blank))


def _blank_lines(blank: NDArray[np.bool_]) -> Iterator[str]:
    """A line where most of what was described says nothing."""
    if 2 * np.count_nonzero(blank) > len(blank):
        yield f"{np.count_nonzero(blank)} of {len(blank)} pictures are blank, of one color, bars or a ramp: no evidence"


class _FrameFeatures(NamedTuple):
    """Features of the frames that the gate looks at, ``(F, C)``, and their times, ``(F, 2)``; both float32."""

    timestamps: FloatArray
    values: FloatArray


def _clip_features(source: FrameSource, config: ClipGate, runner: SharedRunner, clock: StageClock) -> _FrameFeatures:
    spec = InputSpec(f"frames_{config.input_px}", config.input_px, "center_crop")
    views = [View(span=Span(stop=config.max_frames))]
    with clock.stage("gate"), runner.open_stream() as stream:
        submitted = _submit(clock.each("decode", source.model_inputs([spec], views=views)), stream)
        return _FrameFeatures(submitted.timestamps, stream.results()["features"][submitted.rows])
