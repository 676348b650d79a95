"""What key-frame sampling costs in uAP: `python -m benchmarks.keyframes SET --work FOLDER`.

All videos of an evaluation set are encoded anew with a key frame every 1, 2, 5 and 10 seconds and nowhere else, so that
they lie anywhere in the copied segments. Each of these sets is then run with all frames and with key frames alone,
however far apart. CPU seconds are those of the whole run, of all processes, and the videos are small:
`benchmarks.bench_extract` has those of large ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import av
import typer

from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import EnginesOption, OutputOption, command_line, cpu_seconds, report
from engine.config import SampledFrames, Sampling
from engine.console import progress
from engine.evaluate.figures import candidate_figures, match_figures
from engine.evaluate.ids import in_ids_of
from engine.files import written_aside
from engine.run.protocol import RunSettings, run_protocol
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.tables import read_ground_truth
from engine.video.container import open_container
from engine.video.discovery import find_videos

_ANY_GAP_S = 1e6


def encode_with_gops(source: Path, target: Path, *, gop_s: float) -> None:
    """Encode a video in H.264 with a key frame every ``gop_s`` seconds and nowhere else, times kept."""
    with open_container(source) as video, av.open(str(target), "w", format="mp4") as copy:
        original = video.streams.video[0]
        gop = str(round(float(original.average_rate or 25) * gop_s))
        options = {"crf": "20", "preset": "veryfast", "threads": "1", "g": gop, "keyint_min": gop, "sc_threshold": "0"}
        stream = copy.add_stream("libx264", rate=original.average_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = original.width, original.height, "yuv420p"
        if original.time_base is not None:
            stream.codec_context.time_base = original.time_base
        for frame in video.decode(original):
            copy.mux(stream.encode(frame.reformat(format="yuv420p")))
        copy.mux(stream.encode())


def encode_set(given: DataSet, folder: Path, *, gop_s: float) -> DataSet:
    """The evaluation set with other key frames, in ``folder``; what is there already is kept."""
    for name, source in (("query", given.queries), ("reference", given.references)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for media in find_videos([source]):
            target = folder / name / f"{media.path.stem}.mp4"
            if not target.exists():
                with written_aside(target) as aside:
                    encode_with_gops(media.local_path, aside, gop_s=gop_s)
    shutil.copyfile(given.ground_truth, folder / given.ground_truth.name)
    return find_data_set(folder)


def figures_of(data: DataSet, engines: EnginesDirectory, *, frames: SampledFrames, output: Path) -> dict[str, Any]:
    """uAP, segment AP, the number of candidates and the CPU seconds of one run into a new folder."""
    shutil.rmtree(output, ignore_errors=True)
    preset = engines.manifest.preset
    sampling = Sampling(fps=preset.sampling.fps, frames=frames, max_gap_s=_ANY_GAP_S)
    settings = RunSettings(
        queries=data.queries,
        references=data.references,
        norm_set=None,
        output=output,
        engines=engines,
        preset=preset.model_copy(update={"sampling": sampling}),
        decoder="pyav",
    )
    before_s = cpu_seconds()
    result = run_protocol(settings, progress=progress)
    used_s = cpu_seconds() - before_s
    truth = in_ids_of(read_ground_truth(data.ground_truth), query_ids=result.query_ids, ref_ids=result.ref_ids)
    found = candidate_figures(result.candidates, truth, plot=None) | match_figures(result.matches, truth)
    return {"uap": found["uap"], "segment_ap": found["segment_ap"], "cpu_s": used_s}


def _rows(given: DataSet, engines: EnginesDirectory, gops_s: list[float], work: Path) -> Iterator[dict[str, Any]]:
    for gop_s in gops_s:
        data = encode_set(given, work / f"gop_{gop_s:g}", gop_s=gop_s)
        for frames in get_args(SampledFrames):
            figures = figures_of(data, engines, frames=frames, output=work / "run")
            yield {"gop_s": gop_s, "frames": frames, **figures}


def main(
    data_set: Annotated[Path, typer.Argument(help="Evaluation set: queries, references and ground truth.")],
    work: Annotated[Path, typer.Option(help="Folder for the encoded videos, which are kept for another time.")],
    engines: EnginesOption,
    gop: Annotated[list[float] | None, typer.Option(help="Seconds between key frames; may be repeated.")] = None,
    output: OutputOption = None,
) -> None:
    """Compare key frames alone with all frames, on an evaluation set whose key frames are at known distances.

    Example: python -m benchmarks.keyframes val/ --work keyframes/ --engines engines/
    """
    opened = EnginesDirectory.open(engines)
    rows = list(_rows(find_data_set(data_set), opened, gop or [1.0, 2.0, 5.0, 10.0], work))
    lines = [f"{'key frame every':<18}{'sampled':<12}{'uAP':>8}{'loss':>8}{'segment AP':>12}{'CPU s':>8}"]
    for every, row in zip(rows[::2], rows[1::2], strict=True):
        for one in (every, row):
            loss = f"{every['uap'] - one['uap']:>8.4f}" if one is row else " " * 8
            times = f"{one['segment_ap']:>12.4f}{one['cpu_s']:>8.1f}"
            lines.append(f"{one['gop_s']:<3g} s{'':<13}{one['frames']:<12}{one['uap']:>8.4f}{loss}{times}")
    report("keyframes", lines=lines, figures={"preset": opened.manifest.preset.name, "rows": rows}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
