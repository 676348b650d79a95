"""``make demo``: finds edited copies in real footage, from nothing, and says how well. It uses the engine as a process.

Footage comes from installed packages (see `benchmarks.demo_footage`) or from a folder of the user's own videos; queries
with known copies are synthesized from it. What exists and was made of the same input is not made again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.demo_footage import copy_videos, make_move, plan_moves
from benchmarks.harness import command_line
from engine.cli.options import EXIT_SOME_FAILED
from engine.console import printable, progress, say
from engine.errors import ConfigError, EngineError, MediaError
from engine.records import Match, Media
from engine.store.shards import Fingerprint
from engine.store.tables import read_ground_truth, read_matches
from engine.version import __version__
from engine.video.discovery import find_videos
from engine.video.media import index_timeline
from training.footage.synthesizer import GROUND_TRUTH, PROVENANCE, QUERIES, synthesize
from training.processes import in_processes

NUM_COPIES = 28
NUM_PLAIN = 11
MAX_COPIED_VIDEOS = 32
MAX_SOURCE_S = 60.0
SHORT_SIDE_PX = 288
NUM_SHOWN = 20
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class DemoData:
    """The folders of one prepared demo; ``references`` may be the user's own folder."""

    folder: Path
    references: Path

    @property
    def queries(self) -> Path:
        """Folder of the query videos."""
        return self.folder / QUERIES

    @property
    def ground_truth(self) -> Path:
        """The true matches as CSV."""
        return self.folder / GROUND_TRUTH

    @property
    def provenance(self) -> Path:
        """What every query was made of, as JSON."""
        return self.folder / PROVENANCE


def main(
    output: Annotated[Path, typer.Option(help="Folder for the footage and the results.")] = Path("demo"),
    videos: Annotated[Path | None, typer.Option(help="Use the videos of this folder as references.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 1,
) -> None:
    """Synthesize queries with known copies, run the engine on them, and show what it found.

    Example: python -m benchmarks.demo --videos holiday/ --output demo/
    """
    start_s = time.monotonic()
    data = prepare(output, videos=videos, seed=seed)
    metrics = run_engine(data, output / "results")
    show(data, output / "results", metrics, seconds=time.monotonic() - start_s)


def prepare(output: Path, *, videos: Path | None, seed: int) -> DemoData:
    """Make the footage below ``output`` unless it is there and was made of the same videos, seed and version.

    New footage makes the results of the old one meaningless: they are removed. Raises ``ConfigError`` for ``videos``
    without videos, and where ``output`` holds footage or results that the demo did not make.
    """
    own = find_videos([videos]) if videos is not None else []
    data = DemoData(output / "footage", references=videos or output / "footage" / "references")
    manifest = json.dumps({"version": __version__, "seed": seed, "videos": [_fingerprint(media) for media in own]})
    manifest_file = data.folder / "manifest.json"
    if manifest_file.is_file() and manifest_file.read_text(encoding="utf-8") == manifest:
        say(f"using the footage in {data.folder}")
        return data
    for outdated in (output / "results", data.folder):
        if outdated.exists():
            if not manifest_file.is_file():
                raise ConfigError(f"{outdated} is not the demo's own: move it away, or choose another --output")
            shutil.rmtree(outdated)
    data.folder.mkdir(parents=True)
    manifest_file.write_text(_UNFINISHED, encoding="utf-8")
    _make_footage(data.folder, own=own, seed=seed)
    manifest_file.write_text(manifest, encoding="utf-8")
    return data


def _fingerprint(media: Media) -> tuple[str, int, int]:
    fingerprint = Fingerprint.of(media.path)
    return str(media.path.resolve()), fingerprint.size_bytes, fingerprint.mtime_ns


def _make_footage(folder: Path, *, own: Sequence[Media], seed: int) -> None:
    num_workers = len(os.sched_getaffinity(0))
    for role in ("references", "distractors"):
        (folder / role).mkdir()
    copy_videos(folder)
    moves = plan_moves(folder, seed=seed)
    with progress("footage", len(moves)) as advance:
        for _ in in_processes(make_move, moves, num_workers=num_workers):
            advance()
    built_in, distractors = (
        [Media(path.stem, path) for path in sorted((folder / role).iterdir())] for role in ("references", "distractors")
    )
    with progress("queries", NUM_COPIES + NUM_PLAIN) as advance:
        synthesize(
            _copied(own) if own else built_in,
            folder,
            distractors=distractors + (built_in if own else []),
            num_copies=NUM_COPIES,
            num_plain=NUM_PLAIN,
            seed=seed,
            short_side_px=SHORT_SIDE_PX,
            max_source_s=MAX_SOURCE_S,
            num_workers=num_workers,
            advance=advance,
        )


def _copied(own: Sequence[Media]) -> list[Media]:
    """At most 32 of the user's videos, from all over the folder; those that cannot be read are named and left out."""
    readable = []
    for media in own[:: -(-len(own) // MAX_COPIED_VIDEOS)]:
        try:
            index_timeline(media)
        except MediaError as error:
            say(f"left out: {error}")
        else:
            readable.append(media)
    return readable


def run_engine(data: DemoData, output: Path) -> dict[str, Any]:
    """Run ``vsc-engine run`` as a user would, with the norm set that comes with `lite`.

    Returns the JSON object that it prints last. Raises ``EngineError`` if it fails.
    """
    command = [sys.executable, "-m", "engine", "run", "--queries", str(data.queries)]
    command += ["--references", str(data.references), "--ground-truth", str(data.ground_truth), "--output", str(output)]
    say(f"$ {' '.join(['vsc-engine', *command[3:]])}")
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode not in (0, EXIT_SOME_FAILED):
        raise EngineError(f"`vsc-engine run` ended with status {finished.returncode}; its messages are above")
    metrics: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return metrics


def show(data: DemoData, results: Path, metrics: dict[str, Any], *, seconds: float) -> None:
    """Print the best matches with what is true of them, the metrics, and where everything lies."""
    console = Console() if sys.stdout.isatty() else Console(width=140)
    matches = sorted(read_matches(results / "matches.csv"), key=lambda match: -match.score)
    console.print(matches_table(matches[:NUM_SHOWN], data))
    console.print(f"[bold]uAP {metrics['uap']:.4f}[/], segment AP {metrics['segment_ap']:.4f}, {seconds:.0f} s in all")
    for what, path in (
        ("precision-recall curve", results / "precision_recall.png"),
        ("candidate pairs", results / "candidates.csv"),
        ("matches", results / "matches.csv"),
        ("ground truth", data.ground_truth),
        ("how the queries were made", data.provenance),
        ("videos", data.folder),
    ):
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True)


def matches_table(matches: Sequence[Match], data: DemoData) -> Table:
    """A row for each match; it is right if it overlaps a true one of the same videos on both time axes."""
    truth = read_ground_truth(data.ground_truth).matches or ()
    edits = edits_of_copies(data.provenance)
    table = Table("query", "reference", "query segment", "reference segment", "score", "", "edits")
    table.title = f"the {len(matches)} best matches"
    for match in matches:
        is_right = any(overlaps(match, true) for true in truth)
        table.add_row(
            printable(match.query_id),
            printable(match.ref_id),
            f"{match.query_start_s:.1f} - {match.query_end_s:.1f} s",
            f"{match.ref_start_s:.1f} - {match.ref_end_s:.1f} s",
            f"{match.score:.3f}",
            "[green]right[/]" if is_right else "[red]wrong[/]",
            edits.get((match.query_id, match.ref_id), "not a copy"),
        )
    return table


def overlaps(match: Match, true: Match) -> bool:
    """Whether two matches of the same videos share a part of the query and a part of the reference."""
    return (
        (match.query_id, match.ref_id) == (true.query_id, true.ref_id)
        and min(match.query_end_s, true.query_end_s) > max(match.query_start_s, true.query_start_s)
        and min(match.ref_end_s, true.ref_end_s) > max(match.ref_start_s, true.ref_start_s)
    )


def edits_of_copies(provenance: Path) -> dict[tuple[str, str], str]:
    """The names of the edits of each true pair (query id, reference id); a semicolon stands between two copies."""
    queries = json.loads(provenance.read_text(encoding="utf-8"))["queries"]
    lines: dict[tuple[str, str], str] = {}
    for query_id, query in queries.items():
        for segment in (segment for segment in query["segments"] if segment["is_copy"]):
            pair = query_id, segment["source"]
            names = ", ".join(edit["name"] for edit in segment["edits"])
            lines[pair] = f"{lines[pair]}; {names}" if pair in lines else names
    return lines


app = command_line(main)

if __name__ == "__main__":
    app()
