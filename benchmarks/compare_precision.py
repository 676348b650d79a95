"""Float16 against float32 on frames of videos: `python -m benchmarks.compare_precision --engines DIR VIDEO...`.

The comparison of ``vsc-engine build --backend tensorrt`` (see `engine.build.precision`), which looks at photographs,
on the sampled frames of real videos. Takes the graphs of any engines directory.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.harness import report
from engine.build.onnx_graph import io_specs
from engine.build.onnx_runtime import run_graph
from engine.build.parity import Case, load_cases
from engine.build.precision import Sample, compare_precisions, graph_models, table
from engine.records import Frames, Media
from engine.runtime.manifest import Manifest, parse_manifest
from engine.video.media import find_videos
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec


def read_frames(media: Media, specs: Sequence[InputSpec], *, max_frames: int) -> dict[str, Frames]:
    """The first sampled frames of a video, as each input takes them."""
    source = PyAvFrameSource(media)
    try:
        chunks = list(islice(source.model_inputs(specs, max_frames=max_frames), max_frames))
    finally:
        source.close()
    return {spec.name: np.concatenate([chunk[spec.name] for chunk in chunks]) for spec in specs}


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


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--engines", type=Path, required=True)
    parser.add_argument("--max-frames", type=int, default=8, help="of each video")
    parser.add_argument("--output", type=Path, help="folder for the report, e.g. benchmarks/results")
    arguments = parser.parse_args()
    media = find_videos(arguments.videos)
    manifest = parse_manifest(arguments.engines / "manifest.json")
    samples = make_samples(manifest, arguments.engines, media, max_frames=arguments.max_frames)
    with tempfile.TemporaryDirectory() as folder:
        found = compare_precisions(samples, manifest.preset, folder=Path(folder))
    lines = [f"preset {manifest.preset.name}, weights: {manifest.weights}, {len(media)} videos", "", *table(found)]
    rows = {name: [row.model_dump() for row in rows] for name, rows in found.items()}
    report(f"compare_precision_{manifest.preset.name}", lines=lines, figures=rows, output=arguments.output)


if __name__ == "__main__":
    main()
