"""What is read of videos in an object store: `python -m benchmarks.bytes_read VIDEO... --url s3://BUCKET/PREFIX`.

Each video is encoded anew, as often as it takes for a minute, with a key frame every two seconds and its index at the
end, and copied to the same with its index at the front; a copy as Matroska, whose packets are found by reading, beside
them. All are uploaded, and described from there and from this machine, with all frames and with key frames alone;
descriptors must be the same, bit for bit. The store of descriptors is written to the object store, too. Where no server
is at hand, ``python -m moto.server`` is one (of the tests; set ``AWS_ENDPOINT_URL``).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from av.video.frame import PictureType

from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, report
from engine.config import SampledFrames
from engine.describe.engine import Engine
from engine.errors import EngineError
from engine.records import Descriptors, Media
from engine.run.extraction import extract_to_store
from engine.run.plan import Workers
from engine.runtime.engines_directory import EnginesDirectory
from engine.storage.location import Location, RemotePath, location
from engine.video.container import open_container
from engine.video.discovery import find_videos

LENGTH_S = 60.0
GOP_S = 2.0
_ENDINGS = ("index_at_end.mp4", "index_at_front.mp4", "matroska.mkv")


def encode(source: Path, target: Path, *, length_s: float) -> None:
    """Encode a video in H.264, over and over until it is ``length_s`` long, with a key frame every `GOP_S` seconds."""
    with open_container(source) as video:
        original = video.streams.video[0]
        rate = original.average_rate or Fraction(25)
        size_wh = original.width, original.height
    with av.open(str(target), "w") as copy:
        options = {"crf": "20", "preset": "veryfast", "g": str(round(rate * GOP_S)), "sc_threshold": "0"}
        stream = copy.add_stream("libx264", rate=rate, options=options)
        (stream.width, stream.height), stream.pix_fmt = size_wh, "yuv420p"
        num_frames = 0
        while num_frames < length_s * rate:
            with open_container(source) as video:
                for frame in video.decode(video=0):
                    picture = frame.reformat(format="yuv420p")
                    picture.pts, picture.time_base = num_frames, 1 / rate
                    picture.pict_type = PictureType.NONE  # the encoder would take over that of the source
                    copy.mux(stream.encode(picture))
                    num_frames += 1
        copy.mux(stream.encode())


def remux(source: Path, target: Path, options: dict[str, str]) -> None:
    """Copy the packets of a video into another container."""
    with av.open(str(source)) as video, av.open(str(target), "w", options=options) as copy:
        stream = copy.add_stream_from_template(video.streams.video[0])
        for packet in video.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)


def describe(path: Location, engine: Engine, *, frames: SampledFrames) -> tuple[dict[str, Any], Descriptors]:
    """One row of figures, and the descriptors. Raises ``EngineError`` where there are none."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    result = engine.describe(Media("video", path), role="reference")
    if not isinstance(result, Descriptors):
        raise EngineError(result.reason)
    row: dict[str, Any] = {"place": "object store" if isinstance(path, RemotePath) else "file", "video": path.name}
    row |= {"frames": frames, "num_rows": len(result), "warnings": result.warnings}
    if isinstance(path, RemotePath):
        traffic = engine.traffic.pop("video")
        row |= {"read_bytes": traffic.read_bytes, "size_bytes": traffic.size_bytes}
    row |= {"wall_s": time.perf_counter() - start_s, "cpu_s": time.process_time() - start_cpu_s}
    return row, result


def measure(paths: Sequence[Path], url: RemotePath, engines: EnginesDirectory) -> list[dict[str, Any]]:
    """Describe each video from the object store and from this machine, sampled in both ways."""
    rows: list[dict[str, Any]] = []
    kinds: tuple[SampledFrames, ...] = ("all", "keyframes")
    for frames in kinds:
        with Engine.open(engines, preset=engines.manifest.preset.with_sampled_frames(frames)) as engine:
            for path in paths:
                found = [describe(place, engine, frames=frames) for place in (url / path.name, path)]
                (_, remote), (_, local) = found
                if not np.array_equal(remote.descriptors, local.descriptors):
                    raise EngineError(f"{path.name}: descriptors differ from those of the file")
                rows += [row for row, _ in found]
    return rows


def main(
    videos: VideosArgument,
    url: Annotated[str, typer.Option(help="Prefix to write the videos and a store to, such as s3://bucket/prefix.")],
    engines: EnginesOption,
    length_s: Annotated[float, typer.Option(min=4, help="Length of each video.")] = LENGTH_S,
    output: OutputOption = None,
) -> None:
    """Measure the bytes that are read of videos in an object store, by container and sampling.

    Example: python -m benchmarks.bytes_read videos/ --url s3://bucket/prefix --engines engines/
    """
    prefix, opened = location(url), EnginesDirectory.open(engines)
    if not isinstance(prefix, RemotePath):
        raise EngineError(f"{url} is no URL of an object store")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for media in find_videos(videos):
            stem = Path(folder) / media.path.stem
            end, front, other = (Path(f"{stem}_{ending}") for ending in _ENDINGS)
            encode(media.local_path, end, length_s=length_s)
            remux(end, front, {"movflags": "faststart"})
            remux(end, other, {})
            paths += [end, front, other]
        for path in paths:
            (prefix / path.name).upload(path)
        rows = measure(paths, prefix, opened)
        engine = Engine.open(opened)
        start_s = time.perf_counter()
        remote = [Media(path.stem, prefix / path.name) for path in paths]
        summary = extract_to_store(
            engine, remote, role="reference", output=prefix / "store", workers=Workers.share_cores(1)
        )
        store_s = time.perf_counter() - start_s
    lines = [f"{'video':<36}{'frames':<11}{'from':<14}{'rows':>5}{'read':>9}{'of':>8}{'CPU s':>8}{'wall s':>8}"]
    for row in rows:
        is_remote = "read_bytes" in row
        read = f"{row['read_bytes'] / 1e6:>9.2f}{row['size_bytes'] / 1e6:>8.2f}" if is_remote else f"{'':>17}"
        lines.append(
            f"{row['video']:<36}{row['frames']:<11}{row['place']:<14}{row['num_rows']:>5}{read}{row['cpu_s']:>8.2f}"
            f"{row['wall_s']:>8.2f}"
        )
    written = sum(path.stat().size_bytes for path in (prefix / "store").below())
    lines.append(
        f"{summary.num_described} videos into a store beside them: {summary.traffic}, {written / 1e6:.2f} MB written, "
        f"{store_s:.1f} s"
    )
    figures = {"rows": rows, "store": {"written_bytes": written, "wall_s": store_s}, "length_s": length_s}
    report("bytes_read", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
