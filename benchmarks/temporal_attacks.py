"""What changes in time alone costs: `python -m benchmarks.temporal_attacks VAL --output DIR`.

The queries of VAL are encoded again, once for each attack: black frames, frame rates, speeds, a cut start, pieces in
another order (after Fojcik and Syga, "Counteracting temporal attacks in Video Copy Detection", arXiv 2501.11171). The
ground truth gets the times of the attacked videos; where the order is lost, it keeps the pairs alone, and there is no
segment AP. Everything follows from the seed. ``unchanged``, encoded again and otherwise as it was, is what the others
are to be compared with.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.builds import Build, BuildsOption, origins, parse_builds, run_build
from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import command_line, report
from benchmarks.val_hard import make_set
from engine.console import progress
from engine.errors import ConfigError
from engine.records import Match, Media
from engine.store.tables import GroundTruth, read_ground_truth
from engine.video.discovery import find_videos
from engine.video.sampling import sample_frames
from training.footage.clips import read_clip, write_clip
from training.footage.query_plans import probe_sources
from training.footage.resizing import Frame, even, size_of

SEED = 11
SHORT_SIDE_PX = 192
BLACK = -1
SETS = "temporal-attacks"
QUERIES, REFERENCES, GROUND_TRUTH = "queries", "references", "matching_ground_truth.csv"
_MAX_SOURCE_S = 600.0
_PIECE_S = (2.0, 4.0)
_BLACK_EVERY = 10


@dataclass(frozen=True)
class Attacked:
    """What an attacked video of one constant rate shows.

    ``frames``: int64 ``(K,)``, numbers of frames of the original, `BLACK` for a black one; ``fps`` of them a second.
    What was shown at time t of the original is shown at ``(t - cut_s) / speed``, unless ``is_reordered``.
    """

    frames: NDArray[np.int64]
    fps: Fraction
    cut_s: float = 0.0
    speed: float = 1.0
    is_reordered: bool = False

    @property
    def duration_s(self) -> float:
        """When the last frame ends."""
        return float(len(self.frames) / self.fps)


Attack = Callable[[int, Fraction, np.random.Generator], Attacked]
"""Number of frames and frame rate of a video to what is shown of it."""


def unchanged(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:  # noqa: ARG001
    """Every frame."""
    return Attacked(np.arange(num_frames), fps)


def black_tenth(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:
    """One frame of every ten is black, at the same place of each ten."""
    frames = np.arange(num_frames)
    frames[int(rng.integers(_BLACK_EVERY)) :: _BLACK_EVERY] = BLACK
    return Attacked(frames, fps)


def black_sampled(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:  # noqa: ARG001
    """One frame of every second is black, the one that the rule of FFmpeg's ``fps=1`` takes: who attacks knows it."""
    frames = np.arange(num_frames)
    frames[sample_frames(frames / float(fps), end_s=float(num_frames / fps)).frames] = BLACK
    return Attacked(frames, fps)


def dropped(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:
    """Half of the frames, at random, are lost: the one before stays on screen."""
    kept = np.arange(num_frames) * (rng.random(num_frames) < 0.5)
    return Attacked(np.maximum.accumulate(kept), fps)


def doubled(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:  # noqa: ARG001
    """Every frame twice, at twice the rate."""
    return Attacked(np.repeat(np.arange(num_frames), 2), 2 * fps)


def at_15_fps(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:  # noqa: ARG001
    """What is on screen at every fifteenth of a second."""
    num_shown = max(1, int(15 * num_frames / fps))
    return Attacked(np.array([int(index * fps / 15) for index in range(num_shown)]), Fraction(15))


def _at_speed(num_frames: int, fps: Fraction, percent: int) -> Attacked:
    speed = Fraction(percent, 100)
    return Attacked(np.arange(num_frames), fps * speed, speed=float(speed))


def slower(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:
    """The same frames at 75% to 90% of the speed."""
    return _at_speed(num_frames, fps, int(rng.integers(75, 91)))


def faster(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:
    """The same frames at 110% to 125% of the speed."""
    return _at_speed(num_frames, fps, int(rng.integers(110, 126)))


def cut_start(num_frames: int, fps: Fraction, rng: np.random.Generator, *, seconds: Fraction) -> Attacked:  # noqa: ARG001
    """Without the first ``seconds``, in whole frames: other frames fall on the grid of the sampler."""
    num_cut = min(round(seconds * fps), num_frames - 1)
    return Attacked(np.arange(num_cut, num_frames), fps, cut_s=float(num_cut / fps))


def reversed_time(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:  # noqa: ARG001
    """Backward."""
    return Attacked(np.arange(num_frames)[::-1], fps, is_reordered=True)


def shuffled(num_frames: int, fps: Fraction, rng: np.random.Generator) -> Attacked:
    """Pieces of 2 to 4 s, the last one what is left, in another order at random."""
    ends = [0]
    while ends[-1] < num_frames:
        ends.append(min(num_frames, ends[-1] + round(rng.uniform(*_PIECE_S) * float(fps))))
    pieces = np.split(np.arange(num_frames), ends[1:-1])
    order = rng.permutation(len(pieces))
    if np.array_equal(order, np.arange(len(pieces))):
        order = order[::-1]
    return Attacked(np.concatenate([pieces[index] for index in order]), fps, is_reordered=True)


ATTACKS: dict[str, Attack] = {
    "unchanged": unchanged,
    "black_tenth": black_tenth,
    "black_sampled": black_sampled,
    "dropped": dropped,
    "doubled": doubled,
    "at_15_fps": at_15_fps,
    "slower": slower,
    "faster": faster,
    "offset_0.25s": partial(cut_start, seconds=Fraction(1, 4)),
    "offset_0.5s": partial(cut_start, seconds=Fraction(1, 2)),
    "reversed": reversed_time,
    "shuffled": shuffled,
}


def show(frames: Sequence[Frame], attacked: Attacked) -> Iterator[Frame]:
    """The frames of an attacked video; an odd row or column, which 4:2:0 video cannot hold, is left out."""
    width, height = even(size_of(frames[0]))
    black = np.zeros((height, width, 3), np.uint8)
    for index in attacked.frames.tolist():
        yield black if index == BLACK else np.ascontiguousarray(frames[index][:height, :width])


def moved(segment: Match, attacked: Attacked) -> Match | None:
    """A segment of the ground truth in the times of the attacked query; None where nothing is left of it.

    A part that was cut off the query is cut off the reference, too.
    """
    start_s, end_s = (
        min(max((time_s - attacked.cut_s) / attacked.speed, 0.0), attacked.duration_s)
        for time_s in (segment.query_start_s, segment.query_end_s)
    )
    if end_s <= start_s:
        return None
    lost_s = max(attacked.cut_s - segment.query_start_s, 0.0)
    rate = (segment.ref_end_s - segment.ref_start_s) / (segment.query_end_s - segment.query_start_s)
    ref_start_s = segment.ref_start_s + lost_s * rate
    return Match(segment.query_id, segment.ref_id, start_s, end_s, ref_start_s, segment.ref_end_s, segment.score)


def make_attacks(source: DataSet, output: Path, *, num_queries: int | None) -> None:
    """Write a set for each attack into ``output``; their references are a link to those of ``source``.

    Raises ``ConfigError`` if ``source`` has fewer queries than asked for.
    """
    queries, truth = chosen_queries(source, num_queries), read_ground_truth(source.ground_truth)
    shown: dict[str, dict[str, Attacked]] = {name: {} for name in ATTACKS}
    for name in ATTACKS:
        (output / name / QUERIES).mkdir(parents=True)
        (output / name / REFERENCES).symlink_to(source.references.resolve(), target_is_directory=True)
    with progress("attacked queries", len(queries)) as advance:
        for media in queries:
            fps = probe_sources([media], max_source_s=_MAX_SOURCE_S)[0].fps
            frames = list(read_clip(media.local_path, fps=fps, short_side_px=SHORT_SIDE_PX))
            for number, (name, attack) in enumerate(ATTACKS.items()):
                rng = np.random.default_rng([SEED, number, *media.video_id.encode()])
                attacked = attack(len(frames), fps, rng)
                write_clip(output / name / QUERIES / f"{media.video_id}.mp4", show(frames, attacked), fps=attacked.fps)
                shown[name][media.video_id] = attacked
            advance()
    for name, attacked_queries in shown.items():
        write_truth(output / name / GROUND_TRUTH, truth, attacked_queries)


def chosen_queries(source: DataSet, num_queries: int | None) -> list[Media]:
    """All queries, or as many as asked for, drawn at random. Raises ``ConfigError`` if there are fewer."""
    queries = find_videos([source.queries])
    if num_queries is None:
        return queries
    if num_queries > len(queries):
        raise ConfigError(f"{source.queries} has {len(queries)} queries, fewer than the {num_queries} asked for")
    drawn = np.random.default_rng(SEED).permutation(len(queries))[:num_queries]
    return [queries[index] for index in sorted(drawn.tolist())]


def write_truth(path: Path, truth: GroundTruth, attacked: dict[str, Attacked]) -> None:
    """Write the ground truth of the attacked queries: their segments, or pairs alone where the order is lost."""
    segments = [item for item in truth.matches or () if item.query_id in attacked]
    times_kept = truth.matches is not None and not any(item.is_reordered for item in attacked.values())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not times_kept:
            writer.writerow(["query_id", "ref_id"])
            writer.writerows(sorted(pair for pair in truth.pairs if pair[0] in attacked))
            return
        writer.writerow(["query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end"])
        for match in filter(None, (moved(item, attacked[item.query_id]) for item in segments)):
            times_s = (match.query_start_s, match.query_end_s, match.ref_start_s, match.ref_end_s)
            writer.writerow([match.query_id, match.ref_id, *(f"{time_s:.3f}" for time_s in times_s)])


@dataclass(frozen=True)
class Figures:
    """What a build reaches under an attack; ``segment_ap`` is None where the order is lost."""

    attack: str
    build: str
    uap: float
    segment_ap: float | None


def measure(builds: Sequence[Build], attacks: Sequence[str], *, sets: Path, runs: Path) -> list[Figures]:
    """Run every build on every set; the references are described once for each build."""
    figures = []
    described: dict[str, dict[str, Path]] = {build.name: {} for build in builds}
    with progress("runs", len(builds) * len(attacks)) as advance:
        for name in attacks:
            data = find_data_set(sets / name)
            for build in builds:
                output = runs / build.name / name
                found = run_build(
                    build,
                    queries=data.queries,
                    references=data.references,
                    ground_truth=data.ground_truth,
                    output=output,
                    cache=runs,
                    described=described[build.name],
                )
                described[build.name] = {"references": output / "references"}
                figures.append(Figures(name, build.name, found["uap"], found["segment_ap"]))
                advance()
    return figures


def table(figures: Sequence[Figures]) -> list[str]:
    """A line for each attack: uAP of each build, then segment AP of each."""
    names = list(dict.fromkeys(item.build for item in figures))
    found = {(item.attack, item.build): item for item in figures}
    columns = "".join(f"{measure + ' ' + name:>20}" for measure in ("uAP", "segment AP") for name in names)
    lines = [f"{'attack':<16}{columns}"]
    for attack in dict.fromkeys(item.attack for item in figures):
        rows = [found[attack, name] for name in names]
        values = [row.uap for row in rows] + [row.segment_ap for row in rows]
        lines.append(
            f"{attack:<16}" + "".join(f"{'-':>20}" if value is None else f"{value:>20.4f}" for value in values)
        )
    return lines


def main(
    val: Annotated[Path, typer.Argument(metavar="VAL", help="Folder of the set that is attacked.")],
    output: Annotated[Path, typer.Option(help="Folder that gets the attacked sets and the runs on them.")],
    builds: BuildsOption = None,
    num_queries: Annotated[
        int | None, typer.Option(min=1, help="Attack as many queries, drawn at random; default: all.")
    ] = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help=f"Of {', '.join(ATTACKS)}; may be repeated; default: all.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Folder for the report, e.g. benchmarks/results.")] = None,
) -> None:
    """Attack the queries of an evaluation set and report what each build finds.

    What is in the output folder is not made again.

    Example: python -m benchmarks.temporal_attacks vsc-mini/val --output attacks/ --build now=. --build before=../old
    """
    source, compared, chosen = find_data_set(val), parse_builds(builds), attacks or list(ATTACKS)
    unknown = sorted(set(chosen) - set(ATTACKS))
    if unknown:
        raise ConfigError(f"no attack is called {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    sets = output / SETS
    make_set(sets, partial(make_attacks, source, num_queries=num_queries))
    figures = measure(compared, chosen, sets=sets, runs=output / "runs")
    truth = read_ground_truth(find_data_set(sets / "unchanged").ground_truth)
    queries = find_videos([sets / "unchanged" / QUERIES])
    lines = [f"{len(queries)} queries, {len(truth.pairs)} pairs to find", *origins(compared), *table(figures)]
    document = {
        "num_queries": len(queries),
        "num_pairs": len(truth.pairs),
        "results": [asdict(item) for item in figures],
    }
    report("temporal_attacks", lines=lines, figures=document, output=results)


app = command_line(main)

if __name__ == "__main__":
    app()
