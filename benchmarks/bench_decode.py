"""Decoding with PyAV against DALI: `python -m benchmarks.bench_decode VIDEO... [--device gpu]`.

Both give the sampled frames of every video at the size of a model's input. Before a time is reported they must give the
same frames: as many, and no frame further apart than `MAX_MEAN_DIFFERENCE` grey levels on average, which the colors of
two decoders differ by and two pictures of one video hardly ever do. DALI's CPU device takes few codecs: ``--transcode``
measures on copies of the videos in one of them, made in a temporary folder. Videos that DALI leaves to PyAV are not
part of the comparison, and are counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import av
import numpy as np
import nvidia.dali
import typer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from benchmarks.gpu_usage import GpuUsage
from benchmarks.harness import OutputOption, VideosArgument, command_line, report
from engine.errors import ConfigError
from engine.records import Media
from engine.video.container import open_container
from engine.video.dali import DaliFrameSource
from engine.video.dali_codecs import Device
from engine.video.discovery import find_videos
from engine.video.media import index_timeline
from engine.video.pyav import PyAvFrameSource
from engine.video.source import FrameSource, InputSpec

MAX_MEAN_DIFFERENCE = 2.0

Codec = Literal["mjpeg", "vp9"]
Open = Callable[[Media], FrameSource]

_ENCODERS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "vp9": ("libvpx-vp9", ".webm", {"crf": "30", "b": "0", "cpu-used": "8", "deadline": "realtime", "g": "250"}),
    "mjpeg": ("mjpeg", ".avi", {"q": "3"}),
}


@dataclass(frozen=True)
class Pass:
    """One decoder over all videos: wall-clock seconds, and the number of sampled frames."""

    seconds: float
    num_frames: int


def transcode(source: Path, target: Path, codec: Codec) -> Path:
    """Copy the pictures of a video into another codec, times kept; returns ``target`` with the suffix of the codec."""
    encoder, suffix, options = _ENCODERS[codec]
    target = target.with_suffix(suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_container(source) as video, av.open(str(target), "w") as copy:
        original = video.streams.video[0]
        stream = cast(VideoStream, copy.add_stream(encoder, rate=original.average_rate, options=options))
        # Both decoders of this comparison take even sizes only.
        stream.width, stream.height = original.width // 2 * 2, original.height // 2 * 2
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in video.decode(original):
            copy.mux(stream.encode(frame.reformat(width=stream.width, height=stream.height)))
        copy.mux(stream.encode())
    return target


def frames_of(source: FrameSource, spec: InputSpec) -> NDArray[np.uint8]:
    """All frames of a source in host memory."""
    chunks: list[Any] = [chunk.inputs[spec.name] for chunk in source.model_inputs([spec])]
    return np.concatenate([chunk.cpu() if hasattr(chunk, "__cuda_array_interface__") else chunk for chunk in chunks])


def compare(media: Sequence[Media], spec: InputSpec, one: Open, other: Open) -> tuple[float, int]:
    """Mean and largest difference over all frames; raises ``AssertionError`` where a frame is another picture."""
    means: list[float] = []
    largest = 0
    for item in media:
        with closing(one(item)) as mine, closing(other(item)) as theirs:
            left, right = frames_of(mine, spec), frames_of(theirs, spec)
        if left.shape != right.shape:
            raise AssertionError(f"{item.path}: {len(left)} frames by PyAV, {len(right)} by DALI; no time is reported")
        difference = np.abs(left.astype(np.int16) - right)
        per_frame = difference.mean(axis=(1, 2, 3))
        if per_frame.max() > MAX_MEAN_DIFFERENCE:
            raise AssertionError(
                f"{item.path}: frame {per_frame.argmax()} differs by {per_frame.max():.1f} grey levels on average; "
                "no time is reported"
            )
        means += per_frame.tolist()
        largest = max(largest, int(difference.max()))
    return float(np.mean(means)), largest


def run(media: Sequence[Media], spec: InputSpec, open_source: Open, *, num_workers: int) -> Pass:
    """Decode all videos side by side, one per worker; frames stay where they are made."""

    def decode(item: Media) -> int:
        with closing(open_source(item)) as source:
            for _ in source.model_inputs([spec]):
                pass
            return source.num_frames

    with ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(decode, media[:num_workers]))  # warm-up: every worker starts its decoder
        start_s = time.perf_counter()
        num_frames = sum(pool.map(decode, media))
        return Pass(time.perf_counter() - start_s, num_frames)


def main(
    videos: VideosArgument,
    device: Annotated[Device, typer.Option(help="Where DALI decodes.")] = "cpu",
    transcode_to: Annotated[
        Codec | None, typer.Option("--transcode", help="Measure on copies of the videos in this codec.")
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels of the square that frames are resized to.")] = 256,
    workers: Annotated[int, typer.Option(help="Videos decoded at once.")] = 1,
    output: OutputOption = None,
) -> None:
    """Prove equal frames of PyAV and DALI, then report videos/s, frames/s and seconds of video per second.

    Example: python -m benchmarks.bench_decode clips/ --transcode vp9 --workers 2
    """
    media = find_videos(videos)
    with tempfile.TemporaryDirectory() as copies:
        if transcode_to is not None:
            media = find_videos(
                [transcode(item.local_path, Path(copies) / item.video_id, transcode_to) for item in media]
            )
        lines, figures = measure(media, device=device, spec=InputSpec("frames", size), num_workers=workers)
    name = "bench_decode" if transcode_to is None else f"bench_decode_{transcode_to}"
    report(name, lines=lines, figures=figures, output=output)


def measure(
    media: list[Media], *, device: Device, spec: InputSpec, num_workers: int
) -> tuple[list[str], dict[str, Any]]:
    """Compare and time: lines for people, and figures. Raises ``ConfigError`` where DALI decodes none of the videos."""

    def by_dali(item: Media) -> DaliFrameSource:
        return DaliFrameSource(item, device=device)

    taken = [item for item in media if by_dali(item).refused is None]
    if not taken:
        raise ConfigError(f"DALI decodes none of these {len(media)} videos on the {device}; try --transcode vp9")
    mean, largest = compare(taken, spec, PyAvFrameSource, by_dali)
    pyav = run(taken, spec, PyAvFrameSource, num_workers=num_workers)
    with GpuUsage() if device == "gpu" else nullcontext() as usage:
        dali = run(taken, spec, by_dali, num_workers=num_workers)
    video_s = sum(index_timeline(item).end_s for item in taken)
    rows = {"pyav": pyav, f"dali {device}": dali}
    lines = [
        f"{len(taken)} videos of {video_s:.0f} s in all, {pyav.num_frames} sampled frames, to {spec.size_px} px; "
        f"{len(media) - len(taken)} more left to PyAV; {num_workers} at once",
        f"same frames: mean difference {mean:.2f} grey levels, at most {largest}",
        f"{'decoder':<10}{'seconds':>10}{'videos/s':>10}{'frames/s':>10}{'seconds of video/s':>20}",
        *(
            f"{name:<10}{row.seconds:>10.2f}{len(taken) / row.seconds:>10.2f}{row.num_frames / row.seconds:>10.1f}"
            f"{video_s / row.seconds:>20.1f}"
            for name, row in rows.items()
        ),
    ]
    if usage is not None:
        lines.append(usage.summary())
    figures = {
        "dali": nvidia.dali.__version__,
        "codecs": sorted({index_timeline(item).codec for item in taken}),
        "num_videos": len(taken),
        "num_left_to_pyav": len(media) - len(taken),
        "video_s": video_s,
        "num_workers": num_workers,
        "mean_difference": mean,
        "max_difference": largest,
        "seconds": {name: row.seconds for name, row in rows.items()},
        "gpu": usage.figures() if usage is not None else None,
    }
    return lines, figures


app = command_line(main)

if __name__ == "__main__":
    app()
