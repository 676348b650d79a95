"""Float16 against float32 on frames of videos: `python -m benchmarks.compare_precision --engines DIR VIDEO...`.

The comparison of ``vsc-engine build --backend tensorrt`` (see `engine.build.precision`), which looks at photographs,
on the sampled frames of real videos. Takes the graphs of any engines directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, report
from engine.build.comparison import Sample, graph_models, table
from engine.build.onnx_graph import io_specs
from engine.build.onnx_runtime import run_graph
from engine.build.parity import Case, load_cases
from engine.build.precision import compare_precisions
from engine.records import Frames, Media, Span, View
from engine.runtime.manifest import MANIFEST_NAME, Manifest, parse_manifest
from engine.video.discovery import find_videos
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec


def read_frames(media: Media, specs: Sequence[InputSpec], *, max_frames: int) -> dict[str, Frames]:
    """The first sampled frames of a video, as each input takes them."""
    source = PyAvFrameSource(media)
    try:
        chunks = list(islice(source.model_inputs(specs, views=[View(span=Span(stop=max_frames))]), max_frames))
    finally:
        source.close()
    return {spec.name: np.concatenate([chunk.inputs[spec.name] for chunk in chunks]) for spec in specs}


def make_sample(path: Path, inputs: Sequence[dict[str, Frames]]) -> Sample:
    """The inputs with what the graph gives for them in float32."""
    outputs = run_graph(path, inputs)
    return Sample(path, [Case(one, other) for one, other in zip(inputs, outputs, strict=True)])


def make_samples(manifest: Manifest, directory: Path, media: Sequence[Media], *, max_frames: int) -> dict[str, Sample]:
    """For each graph; the score model is compared on its own recorded cases as well."""
    samples = {}
    for name in graph_models(manifest.preset):
        files = manifest.graphs[name].files
        path = directory / files[0].path
        if name == "edit_score":
            samples[name] = Sample(path, load_cases(directory / files[-1].path))
            continue
        specs = [
            InputSpec(spec.name, int(spec.shape[1] or 0), "center_crop" if name == "edit_features" else "stretch")
            for spec in io_specs(path)[0]
        ]
        samples[name] = make_sample(path, [read_frames(item, specs, max_frames=max_frames) for item in media])
    return samples


def main(
    videos: VideosArgument,
    engines: EnginesOption,
    max_frames: Annotated[int, typer.Option(min=1, help="Frames of each video.")] = 8,
    output: OutputOption = None,
) -> None:
    """Compare float16 with float32 for each model of an engines directory and print the table.

    Example: python -m benchmarks.compare_precision clips/ --engines engines/
    """
    media = find_videos(videos)
    # Not `EnginesDirectory.open`: the graphs are enough, the engines may be of another machine.
    manifest = parse_manifest(engines / MANIFEST_NAME)
    samples = make_samples(manifest, engines, media, max_frames=max_frames)
    with tempfile.TemporaryDirectory() as folder:
        found = compare_precisions(samples, manifest.preset, folder=Path(folder))
    lines = [f"preset {manifest.preset.name}, weights: {manifest.weights}, {len(media)} videos", "", *table(found)]
    rows = {name: [row.model_dump() for row in rows] for name, rows in found.items()}
    report(f"compare_precision_{manifest.preset.name}", lines=lines, figures=rows, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
