"""The order of the VSC2022 winner beside the engine's: `python -m benchmarks.baseline_reference --engines DIR VIDEO...`

The reference lets FFmpeg write JPEG files at one frame a second, opens them with Pillow, looks for frame scenes, and
runs every model on every frame of every query, in eager PyTorch; only then the edit score says whose descriptors are
thrown away. This does the same with the same random weights as the engines, one video after the other: the files are
decoded once for all models, and the search for scenes is the engine's, which costs less than the reference's.

With random weights the edit scores mean nothing, so the threshold is put where ``--gated-share`` of the clips lie below
it. Near-duplicate rows are kept on both sides: which one of two remains depends on the last bits. Before a time is
reported, the engine must stop the same clips as the baseline, and describe the same frames of the others with
descriptors of a cosine of at least `MIN_COSINE`.
"""

from __future__ import annotations

import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor, nn

from benchmarks.bench_pipeline import threshold_for, with_threshold
from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, cpu_seconds, report
from engine.build.export import Normalize
from engine.config import ClipGate, DescriptorModel, Preset
from engine.describe.engine import Engine
from engine.describe.scenes import find_scenes
from engine.errors import ConfigError, EngineError
from engine.models.checkpoints import random_weights
from engine.models.clip import ClipVisual
from engine.models.descriptor import build_descriptor_model
from engine.models.edit_score import EditScore, build_edit_score
from engine.projection import l2_normalize
from engine.records import Descriptors, FloatArray, Media, Region
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.discovery import find_videos
from engine.video.resize import fit_picture
from engine.video.sampling import slot_timestamps
from engine.video.source import InputSpec
from engine.video.statistics import SceneStatisticsAccumulator

MIN_COSINE = 0.999
BATCH_SIZE = 8
"""Frames in a call of a model, as on the engine's side."""


@dataclass
class CpuClock:
    """CPU seconds by stage, those of ended child processes included."""

    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside."""
        start_s = cpu_seconds()
        yield
        self.stages_s[name] = self.stages_s.get(name, 0.0) + cpu_seconds() - start_s


class EagerClip(nn.Module):
    """The visual tower as the reference runs it: the last block computes every token, of which one is read."""

    def __init__(self, tower: ClipVisual) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, frames: Tensor) -> Tensor:  # noqa: D102 - see the class
        tower = self.tower
        patches = tower.conv1(frames).flatten(2).transpose(1, 2)
        opening = tower.class_embedding.expand(patches.shape[0], 1, -1)
        tokens = tower.ln_pre(torch.cat((opening, patches), dim=1) + tower.positional_embedding)
        for block in tower.transformer["resblocks"].children():
            tokens = block(tokens)
        features: Tensor = tower.ln_post(tokens)[:, 0]
        return features


class ReferenceOrder:
    """Every model of a preset in eager PyTorch, float32, with the random weights of its engines."""

    def __init__(self, preset: Preset) -> None:
        if not isinstance(preset.gate, ClipGate) or preset.scenes.scope != "video":
            raise ConfigError(f"preset {preset.name!r} is not the winner's: expected its gate and its frame scenes")
        self.preset, self.gate = preset, preset.gate
        self.models = [
            (config, eager(build_descriptor_model(config.architecture), config.checkpoint)) for config in preset.models
        ]
        tower = ClipVisual(input_resolution=224, patch_size=14, width=1024, layers=24, heads=16)
        self.clip = EagerClip(tower).eval()
        eager(tower, self.gate.checkpoint)
        score = eager(build_edit_score(self.gate.score_architecture), self.gate.score_checkpoint)
        assert isinstance(score, EditScore)  # noqa: S101 - a `ClipGate` has no other
        self.score = score

    def describe(self, media: Media, *, clock: CpuClock) -> Descriptors:
        """All rows of a query, and its edit score; whose rows are thrown away is decided afterwards."""
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            with clock.stage("FFmpeg to JPEG"):
                pattern = Path(folder) / "%07d.jpg"
                command = [
                    "ffmpeg",
                    "-v",
                    "error",
                    "-i",
                    str(media.path),
                    "-q",
                    "0",
                    "-vf",
                    "fps=1.000000",
                    str(pattern),
                ]
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            with clock.stage("Pillow"):
                frames = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(Path(folder).iterdir())]
            with clock.stage("scenes"):
                regions = self._scenes(frames)
            with clock.stage("ensemble"):
                views = regions or [Region(0, 0, frames[0].shape[1], frames[0].shape[0])]
                pictures = [frame[y0:y1, x0:x1] for x0, y0, x1, y1 in (view.box for view in views) for frame in frames]
                rows = np.concatenate([self._embeddings(config, model, pictures) for config, model in self.models], 1)
            with clock.stage("gate"):
                features = self._clip_features(frames[: self.gate.max_frames])
                padded = torch.zeros(1, self.gate.max_frames, features.shape[1])
                padded[0, : len(features)] = features
                score = float(self.score.logits(padded).sigmoid()[0])
        times = np.tile(slot_timestamps(len(frames)), (len(views), 1))
        return Descriptors(media.video_id, times, rows, edit_score=score)

    def _scenes(self, frames: Sequence[Any]) -> tuple[Region, ...]:
        statistics = SceneStatisticsAccumulator(num_frames=len(frames))
        for frame in frames:
            statistics.add(frame)
        return find_scenes(statistics.finish(), config=self.preset.scenes)

    def _embeddings(self, config: DescriptorModel, model: nn.Module, pictures: Sequence[Any]) -> FloatArray:
        spec = InputSpec("", config.input_px, "stretch", config.interpolation)
        return l2_normalize(_run(nn.Sequential(Normalize(config.mean, config.std), model), spec, pictures).numpy())

    def _clip_features(self, frames: Sequence[Any]) -> Tensor:
        spec = InputSpec("", self.gate.input_px, "center_crop")
        return _run(nn.Sequential(Normalize(self.gate.mean, self.gate.std), self.clip), spec, frames)


def eager(model: nn.Module, checkpoint: str) -> nn.Module:
    """The model with the random weights that engines have for ``checkpoint``, not prepared for export."""
    random_weights(model, seed=zlib.crc32(checkpoint.encode()))
    return model.requires_grad_(False).eval()


def _run(model: nn.Module, spec: InputSpec, pictures: Sequence[Any]) -> Tensor:
    outputs = []
    for start in range(0, len(pictures), BATCH_SIZE):
        batch = np.stack([fit_picture(picture, spec) for picture in pictures[start : start + BATCH_SIZE]])
        outputs.append(model(torch.from_numpy(batch)))
    return torch.cat(outputs)


@dataclass(frozen=True)
class Pass:
    """What one side made of all clips, and for how many CPU seconds; by stage for the reference's order."""

    results: list[Descriptors]
    cpu_s: float
    stages_s: dict[str, float] = field(default_factory=dict)


def run_baseline(preset: Preset, media: Sequence[Media]) -> Pass:
    """The reference's order; loading the models is not part of the time."""
    order = ReferenceOrder(preset)
    order.describe(media[0], clock=CpuClock())  # warm-up
    clock, start_s = CpuClock(), cpu_seconds()
    results = [order.describe(item, clock=clock) for item in media]
    return Pass(results, cpu_seconds() - start_s, clock.stages_s)


def run_engine(engines: EnginesDirectory, preset: Preset, media: Sequence[Media], *, num_threads: int) -> Pass:
    """The engine's order; loading the engines is not part of the time. Raises ``EngineError`` for a clip that fails."""
    with Engine.open(engines, preset=preset, num_threads=num_threads, raw_embeddings=True) as engine:
        list(engine.describe_media(media[:1], role="query"))  # warm-up
        start_s = cpu_seconds()
        results = [item for item in engine.describe_media(media, role="query") if isinstance(item, Descriptors)]
        cpu_s = cpu_seconds() - start_s
    if engine.failures:
        raise EngineError(f"{engine.failures[0].path}: {engine.failures[0].reason}")
    return Pass(results, cpu_s)


def check_same(
    found: Sequence[Descriptors], expected: Sequence[Descriptors], *, threshold: float
) -> tuple[float, float]:
    """The lowest cosine of two descriptors and the largest difference of two edit scores.

    Raises ``EngineError`` where the gate decides otherwise, other frames are kept, or the cosine is below `MIN_COSINE`.
    """
    lowest, largest = 1.0, 0.0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.edit_score is not None  # noqa: S101 - both have a gate
        assert theirs.edit_score is not None  # noqa: S101
        largest = max(largest, abs(mine.edit_score - theirs.edit_score))
        if mine.is_stopped != (theirs.edit_score < threshold):
            raise EngineError(f"{mine.video_id}: the gate decides otherwise than the baseline; no time is reported")
        if mine.is_stopped:
            continue
        if not np.array_equal(mine.timestamps, theirs.timestamps):
            raise EngineError(
                f"{mine.video_id}: {len(mine)} rows of other frames than the {len(theirs)} of the baseline; "
                "no time is reported"
            )
        cosines = np.vecdot(l2_normalize(mine.descriptors), l2_normalize(theirs.descriptors))
        lowest = min(lowest, float(cosines.min()))
    if lowest < MIN_COSINE:
        raise EngineError(f"the lowest cosine with the baseline is {lowest:.4f}; no time is reported")
    return lowest, largest


def main(
    videos: VideosArgument,
    engines: EnginesOption,
    gated_share: Annotated[float, typer.Option(help="Share of the clips that the gate is to stop.")] = 0.77,
    threads: Annotated[int, typer.Option(min=1, help="Of both sides.")] = 1,
    output: OutputOption = None,
) -> None:
    """Prove that both sides say the same of a few clips, then report videos per CPU second.

    Example: python -m benchmarks.baseline_reference clips/ --engines engines/
    """
    directory = EnginesDirectory.open(engines)
    built = directory.manifest.preset
    preset = built.model_copy(update={"near_duplicates": built.near_duplicates.model_copy(update={"max_cosine": 1.0})})
    if directory.manifest.weights != "random":
        raise ConfigError(f"{engines} has weights of its own; expected engines built with --random-weights")
    media = find_videos(videos)
    torch.set_num_threads(threads)
    baseline = run_baseline(preset, media)
    threshold = threshold_for([float(item.edit_score or 0) for item in baseline.results], gated_share=gated_share)
    engine = run_engine(directory, with_threshold(preset, threshold), media, num_threads=threads)
    lowest, largest = check_same(engine.results, baseline.results, threshold=threshold)
    num_stopped = sum(item.is_stopped for item in engine.results)
    num_frames = sum(len(np.unique(item.timestamps[:, 0])) for item in baseline.results)
    lines = [
        f"{len(media)} clips, {num_frames} different frames described; the gate stops the same {num_stopped} on both "
        f"sides; lowest cosine {lowest:.6f}, edit scores differ by at most {largest:.1e}",
        f"{'':<20}{'CPU s':>10}{'videos/CPU s':>14}",
        *(
            f"{name:<20}{one.cpu_s:>10.1f}{len(media) / one.cpu_s:>14.4f}"
            for name, one in (("reference's order", baseline), ("engine", engine))
        ),
        f"ratio {baseline.cpu_s / engine.cpu_s:.2f}",
        "CPU seconds by stage, reference's order: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in baseline.stages_s.items()),
    ]
    figures = {
        "num_clips": len(media),
        "num_stopped": num_stopped,
        "lowest_cosine": lowest,
        "largest_score_difference": largest,
        "reference_order": {"cpu_s": baseline.cpu_s, "stages_s": baseline.stages_s},
        "engine": {"cpu_s": engine.cpu_s},
        "ratio": baseline.cpu_s / engine.cpu_s,
    }
    report("baseline_reference", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
