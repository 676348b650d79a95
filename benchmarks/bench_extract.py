"""CPU seconds of an extraction beside its floor: `python -m benchmarks.bench_extract VIDEO... --engines DIR`.

For each video, in one process with one thread: the engine's descriptions as a reference and as a query, with all frames
and with key frames alone; beside them what cannot be spared, PyAV decoding without anything else and the inference of
as many pictures as were described; and with ``--vpdq`` the hashes of vPDQ, one a second. ``--build`` adds other
engines, and other checkouts, each in a process of its own with its own `lite`. All of them are measured one after the
other, several times over, and the median counts: user CPU seconds, which other work on the machine changes little.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
import typer

from benchmarks.builds import Build, BuildsOption, origins, parse_builds
from benchmarks.harness import EnginesOption, OutputOption, VideosArgument, command_line, report
from engine.config import SampledFrames, Sampling
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.records import Failure, Media, Role
from engine.runtime.engines_directory import EnginesDirectory
from engine.video.discovery import find_videos
from engine.video.media import index_timeline, open_video
from engine.video.sampling import widest_gap_s

Skip = Literal["DEFAULT", "NONREF", "NONKEY"]

_LEFT_OUT: dict[str, Skip] = {
    "all frames": "DEFAULT",
    "non-reference frames left out": "NONREF",
    "key frames": "NONKEY",
}
_OWN = "engine"
_VPDQ = "import sys, vpdq; len(sys.argv) > 1 and print(len(vpdq.computeHash(sys.argv[1], seconds_per_hash=1)))"

_DESCRIBE = """
import resource, sys
from pathlib import Path
from engine.describe.engine import Engine
from engine.records import Media
with Engine.open(num_threads=1, decoder="pyav") as engine:
    for line in sys.stdin:
        role, path = line.rstrip().split(" ", 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        found = engine.describe(Media("v", Path(path)), role=role)
        taken_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        print(taken_s if hasattr(found, "descriptors") else found, flush=True)
"""
"""Describes what it is told to, and prints the CPU seconds that it took."""

Task = Callable[[], float | None]
"""Returns the CPU seconds that it took where they are not those of this process."""

Describe = Callable[[Role, Path], float]


def decode(media: Media, *, skip: Skip) -> None:
    """Decode a video with one thread; ``skip`` names what FFmpeg leaves out."""
    with open_video(media) as video:
        video.stream.codec_context.skip_frame = skip
        for packet in video.packets():
            video.stream.codec_context.decode(packet)
        video.stream.codec_context.decode(None)


def cpu_s(task: Task, *, of_children: bool = False) -> float:
    """User CPU seconds of this process, or of those that it started and waited for."""
    kind = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    before = resource.getrusage(kind).ru_utime
    taken_s = task()
    return resource.getrusage(kind).ru_utime - before if taken_s is None else taken_s


def medians(tasks: dict[str, Task], *, repeats: int) -> dict[str, float]:
    """The median CPU seconds of each task; all are done once, then all again."""
    for task in tasks.values():
        task()
    taken = [
        {name: cpu_s(task, of_children=name.startswith("vPDQ")) for name, task in tasks.items()} for _ in range(repeats)
    ]
    return {name: statistics.median(one[name] for one in taken) for name in tasks}


def _describe(engine: Engine, media: Media, role: Role) -> None:
    found = engine.describe(media, role=role)
    if isinstance(found, Failure):
        raise ConfigError(f"{found.path}: {found.reason}")


def _vpdq(python: Path, *arguments: str) -> None:
    done = subprocess.run([python, "-c", _VPDQ, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"vPDQ of {python} fails: {(done.stderr.strip() or 'no message').splitlines()[-1]}")


@contextmanager
def open_checkout(build: Build, *, cache: Path) -> Iterator[Describe]:
    """The engine of another checkout in a process of its own, which describes files and says how long it took."""
    environment = {**os.environ, "PYTHONPATH": str(build.checkout), "XDG_CACHE_HOME": str(cache / build.name)}
    command = [sys.executable, "-c", _DESCRIBE]
    with subprocess.Popen(
        command, cwd=build.checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        told, answers = process.stdin, process.stdout
        assert told is not None  # noqa: S101 - both are pipes
        assert answers is not None  # noqa: S101

        def describe(role: Role, path: Path) -> float:
            told.write(f"{role} {path}\n")
            told.flush()
            answer = answers.readline().strip()
            try:
                return float(answer)
            except ValueError as error:
                raise ConfigError(f"build {build.name} does not describe {path}: {answer or 'it ended'}") from error

        yield describe
        told.close()


class _Counted:
    """A runner that counts the rows that it is given."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.num_rows = 0

    def run(self, *parts: Any) -> Any:
        self.num_rows += sum(len(next(iter(part.values()))) for part in parts)
        return self.runner.run(*parts)


def _num_pictures(engine: Engine, media: Media, role: Role) -> int:
    """How many pictures the models are run on."""
    shared = engine._opened().ensemble
    counted = _Counted(shared._runner)
    shared._runner = cast(Any, counted)
    try:
        _describe(engine, media, role)
    finally:
        shared._runner = counted.runner
    return counted.num_rows


def _infer(engine: Engine, num_pictures: int) -> None:
    runner = engine._opened().ensemble._runner
    pictures = {spec.name: np.zeros(spec.full_shape(num_pictures), spec.dtype) for spec in runner.inputs}
    for start in range(0, num_pictures, runner.batch_size):
        runner.run({name: array[start : start + runner.batch_size] for name, array in pictures.items()})


def _tasks(
    media: Media,
    engines: Mapping[tuple[str, SampledFrames], Engine],
    checkouts: Mapping[str, Describe],
    *,
    vpdq: Path | None,
) -> dict[str, Task]:
    tasks: dict[str, Task] = {f"decode {name}": partial(decode, media, skip=skip) for name, skip in _LEFT_OUT.items()}
    for name, describe in checkouts.items():
        tasks |= {
            f"{name}, {role}, all": partial(describe, role, media.local_path.absolute()) for role in get_args(Role)
        }
    for (name, frames), engine in engines.items():
        of = "" if name == _OWN else f", {name}"
        for role in get_args(Role):
            num_pictures = _num_pictures(engine, media, role)
            tasks[f"infer {num_pictures} pictures of a {role}, {frames}{of}"] = partial(_infer, engine, num_pictures)
            tasks[f"{name}, {role}, {frames}"] = partial(_describe, engine, media, role)
    if vpdq is not None:
        tasks["vPDQ"] = partial(_vpdq, vpdq, str(media.path))
    return tasks


def _open(folder: Path, sampling: Sampling) -> Engine:
    directory = EnginesDirectory.open(folder)
    preset = directory.manifest.preset
    sampling = sampling.model_copy(update={"fps": preset.sampling.fps})
    preset = preset.model_copy(update={"sampling": sampling})
    return Engine.open(directory, preset=preset, num_threads=1, decoder="pyav")


def main(
    videos: VideosArgument,
    engines: EnginesOption,
    build: BuildsOption = None,
    cache: Annotated[Path, typer.Option(help="Where other checkouts keep their engines.")] = Path(
        "bench_extract_cache"
    ),
    vpdq: Annotated[Path | None, typer.Option(help="A Python that has vpdq 0.2.5.")] = None,
    max_gap_s: Annotated[float, typer.Option(help="Longest time without a key frame.")] = Sampling().max_gap_s,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    output: OutputOption = None,
) -> None:
    """Measure the CPU seconds of extraction, of what it cannot do without, and of vPDQ.

    Example: python -m benchmarks.bench_extract clip.mp4 --engines engines/ --vpdq venv/bin/python
    """
    others = parse_builds(build) if build else []
    lines, figures = origins(others), []
    with ExitStack() as stack:
        opened, checkouts = {}, {}
        for name, folder in [(_OWN, engines), *((other.name, other.engines) for other in others if other.engines)]:
            for frames in get_args(SampledFrames):
                engine = _open(folder, Sampling(frames=frames, max_gap_s=max_gap_s))
                opened[name, frames] = stack.enter_context(engine)
        for other in others:
            if other.engines is None:
                checkouts[other.name] = stack.enter_context(open_checkout(other, cache=cache.absolute()))
        startup_s = 0.0 if vpdq is None else medians({"vPDQ": partial(_vpdq, vpdq)}, repeats=repeats)["vPDQ"]
        for media in find_videos(videos):
            timeline = index_timeline(media)
            mbit = 8e-6 * timeline.size_bytes
            gap_s = widest_gap_s(timeline.times_s, timeline.keyframes, end_s=timeline.end_s)
            taken_s = medians(_tasks(media, opened, checkouts, vpdq=vpdq), repeats=repeats)
            lines.append(
                f"{media.video_id}: {timeline.codec}, {timeline.size_wh[0]}x{timeline.size_wh[1]}, "
                f"{len(timeline)} frames, {timeline.end_s:.1f} s, {mbit / timeline.end_s:.2f} Mbit/s, "
                f"{len(timeline.keyframes)} key frames, up to {gap_s:.1f} s apart"
            )
            lines.append(f"  {'':<48}{'CPU s':>9}{'video s per CPU s':>20}")
            for name, seconds in taken_s.items():
                seconds -= startup_s if name == "vPDQ" else 0.0
                lines.append(f"  {name:<48}{seconds:>9.3f}{timeline.end_s / max(seconds, 1e-9):>20.1f}")
            figures.append({"video": media.video_id, "duration_s": timeline.end_s, "cpu_s": taken_s})
    report(
        "bench_extract",
        lines=lines,
        figures={"repeats": repeats, "vpdq_startup_s": startup_s, "videos": figures},
        output=output,
    )


app = command_line(main)

if __name__ == "__main__":
    app()
