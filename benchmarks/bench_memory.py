"""Memory of `vsc-engine extract` by the length of a query: `python -m benchmarks.bench_memory VIDEO... --engines DIR`.

The query is made of three minutes of cuts between the videos, 512x288 at 12.5 pictures a second, over and over until it
is long enough. By default it lasts ten seconds, ten minutes, two hours, and as long as pictures just fit into what is
kept between passes, with RGB beside their planes and without: what is kept is largest there. The highest resident
memory of the process that was started (it writes the store) and of its worker (it decodes and infers) is what Linux
says (``VmHWM``); pages of libraries that both have loaded count in both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer
from PIL import Image

from benchmarks.builds import REPOSITORY
from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, cpu_seconds, report
from engine.console import say
from engine.errors import EngineError
from engine.store.store import read_descriptors
from engine.video.discovery import find_videos
from engine.video.pyav import DEFAULT_CACHE_BYTES
from training.footage.clips import read_clip, write_clip
from training.footage.resizing import Frame

SIZE_WH = 512, 288
FPS = Fraction(25, 2)
CUTS_S = 180
_SAMPLE_S = 0.05


@dataclass(frozen=True)
class Peak:
    """Of one query: rows in the store, highest resident memory of both processes in bytes, CPU seconds of both."""

    length_s: int
    num_rows: int
    worker_bytes: int
    parent_bytes: int
    cpu_s: float


def default_lengths_s() -> list[int]:
    """Ten seconds, ten minutes, two hours, and the two lengths at which what is kept between passes is largest."""
    width, height = SIZE_WH
    planes_bytes, rgb_bytes = width * height * 3 // 2, width * height * 3
    fullest = [DEFAULT_CACHE_BYTES // size_bytes - 1 for size_bytes in (planes_bytes + rgb_bytes, planes_bytes)]
    return sorted([10, 600, 7200, *fullest])


def cuts(videos: Sequence[Path], *, length_s: int) -> Iterator[Frame]:
    """Frames of the videos, one after the other and again, all in one size."""
    frames = (frame for path in cycle(videos) for frame in read_clip(path, fps=FPS))
    for frame in islice(frames, int(length_s * FPS)):
        yield np.asarray(Image.fromarray(frame).resize(SIZE_WH))


def write_film(target: Path, *, source: Path, length_s: int) -> None:
    """Repeat the packets of a film until it is ``length_s`` long."""
    with av.open(str(source)) as video, av.open(str(target), "w") as film:
        given = video.streams.video[0]
        stream = film.add_stream_from_template(given)
        length = round(given.frames / (FPS * Fraction(given.time_base or 1)))
        for start in range(0, round(length_s / Fraction(given.time_base or 1)), length):
            video.seek(0)
            for packet in video.demux(given):
                if packet.dts is None or packet.pts is None:
                    continue
                if (start + packet.pts) * packet.time_base >= length_s:
                    continue
                packet.pts, packet.dts, packet.stream = start + packet.pts, start + packet.dts, stream
                film.mux(packet)


def measure(film: Path, engines: Path, *, length_s: int) -> Peak:
    """Describe a query as a user would. Raises ``EngineError`` where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        command = [sys.executable, "-m", "engine", "extract", str(film), "--role", "query", "--output", str(store)]
        before_s = cpu_seconds()
        peaks: dict[int, int] = {}
        with subprocess.Popen([*command, "--engines", str(engines)], cwd=REPOSITORY, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None:
                for pid in (run.pid, *_children(run.pid)):
                    peaks[pid] = max(peaks.get(pid, 0), _peak_bytes(pid))
                time.sleep(_SAMPLE_S)
        if run.returncode:
            raise EngineError(f"{film} was not described: exit status {run.returncode}")
        parent_bytes = peaks.pop(run.pid)
        (found,) = read_descriptors(store)
        return Peak(length_s, len(found), max(peaks.values()), parent_bytes, cpu_seconds() - before_s)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:  # it has ended
        return []


def _peak_bytes(pid: int) -> int:
    """The highest resident memory of a process so far, 0 of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(sizes[0]) if sizes else 0


def table(peaks: Sequence[Peak]) -> list[str]:
    """A heading, and a line for each length."""
    lines = [f"{'length s':>8}{'rows':>8}{'worker MB':>11}{'parent MB':>11}{'CPU s':>8}"]
    for peak in peaks:
        lines.append(
            f"{peak.length_s:>8}{peak.num_rows:>8}{peak.worker_bytes / 1e6:>11.0f}{peak.parent_bytes / 1e6:>11.0f}"
            f"{peak.cpu_s:>8.0f}"
        )
    return lines


def main(
    videos: VideosArgument,
    engines: EnginesOption,
    length_s: Annotated[list[int] | None, typer.Option(min=2, help="Length of the query; may be repeated.")] = None,
    output: OutputOption = None,
) -> None:
    """Measure the highest memory of an extraction by the length of its query.

    Example: python -m benchmarks.bench_memory val/query --engines engines/ --output benchmarks/results
    """
    lengths_s = length_s or default_lengths_s()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        base, film = Path(folder) / "cuts.mp4", Path(folder) / "film.mp4"
        paths = [item.local_path for item in find_videos(videos)]
        write_clip(base, cuts(paths, length_s=min(CUTS_S, max(lengths_s))), fps=FPS)
        for each_s in lengths_s:
            write_film(film, source=base, length_s=each_s)
            peaks.append(measure(film, engines, length_s=each_s))
            say(table(peaks)[-1])
    width, height = SIZE_WH
    lines = [f"{width}x{height}, {float(FPS)} pictures a second", *table(peaks)]
    report("bench_memory", lines=lines, figures={"peaks": [asdict(peak) for peak in peaks]}, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
