"""Uploads against a catalogue, one at a time: `python -m benchmarks.bench_verdict SET [--output benchmarks/results]`.

The references of SET become a catalogue, and every query of it is matched as an upload, with the engine warm: how many
of the pairs called a copy, or a copy or a case for review, are copies (precision), how many copies that finds (recall),
how many uploads without any copy are told one, and the seconds from file to verdict.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.data_sets import find_data_set
from benchmarks.harness import OutputOption, command_line, cpu_seconds, report
from engine.catalog.catalog import Catalog
from engine.console import progress
from engine.evaluate.calibration import Verdict
from engine.store.tables import read_ground_truth
from engine.video.discovery import find_videos

COUNTED: dict[str, tuple[Verdict, ...]] = {"copy": ("copy",), "copy or review": ("copy", "review")}


@dataclass(frozen=True)
class Told:
    """A verdict on a pair of an upload and a video of the catalogue."""

    query_id: str
    ref_id: str
    verdict: Verdict


@dataclass(frozen=True)
class Figures:
    """Of the pairs with one of some verdicts: how many there are, how many are copies, and how many copies there are.

    ``num_uploads_wrong``: of ``num_uploads_without`` uploads without any copy, those that got such a verdict.
    """

    verdicts: str
    num_told: int
    num_right: int
    num_true: int
    num_uploads_wrong: int
    num_uploads_without: int


def count(
    told: Iterable[Told], true_pairs: frozenset[tuple[str, str]], *, query_ids: Sequence[str], name: str
) -> Figures:
    """Count the pairs of ``told`` whose verdict is one of `COUNTED`."""
    pairs = {(item.query_id, item.ref_id) for item in told if item.verdict in COUNTED[name]}
    without = set(query_ids) - {query_id for query_id, _ in true_pairs}
    wrong = {query_id for query_id, _ in pairs} & without
    return Figures(name, len(pairs), len(pairs & true_pairs), len(true_pairs), len(wrong), len(without))


def lines(figures: Sequence[Figures], wall_s: Sequence[float], mean_cpu_s: float) -> list[str]:
    """The tables of the report."""
    table = [f"{'verdict':<16}{'pairs':>7}{'precision':>11}{'recall':>9}{'uploads without a copy told one':>34}"]
    for item in figures:
        precision = f"{item.num_right / item.num_told:.3f}" if item.num_told else "-"
        recall = f"{item.num_right / item.num_true:.3f}"
        wrong = f"{item.num_uploads_wrong} of {item.num_uploads_without}"
        table.append(f"{item.verdicts:<16}{item.num_told:>7}{precision:>11}{recall:>9}{wrong:>34}")
    p50_s, p95_s = np.quantile(wall_s, (0.5, 0.95))
    table.append(f"seconds to a verdict: {p50_s:.2f} (p50), {p95_s:.2f} (p95)")
    table.append(f"CPU seconds of an upload, of all processes, in the mean: {mean_cpu_s:.2f}")
    return table


def main(
    data: Annotated[Path, typer.Argument(metavar="SET", help="Evaluation set.")],
    output: OutputOption = None,
) -> None:
    """Match every query of a set against a catalogue of its references, and count what the verdicts say.

    Example: python -m benchmarks.bench_verdict val/
    """
    source = find_data_set(data)
    true_pairs = read_ground_truth(source.ground_truth).pairs
    uploads = find_videos([source.queries])
    told: list[Told] = []
    wall_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Catalog.create(Path(folder) / "catalogue") as catalog:
        catalog.add([source.references], progress=progress)
        catalog.match(uploads[0].path)  # opens the engine
        before_s = cpu_seconds()
        with progress("match", len(uploads)) as advance:
            for upload in uploads:
                start_s = time.perf_counter()
                answer = catalog.match(upload.path)
                wall_s.append(time.perf_counter() - start_s)
                verdicts = [(pair.ref_id, answer.verdict_on(pair.ref_id)) for pair in answer.candidates]
                told += [Told(upload.video_id, ref_id, verdict) for ref_id, verdict in verdicts if verdict is not None]
                advance()
    mean_cpu_s = (cpu_seconds() - before_s) / len(uploads)  # with the process that looked at pictures, which has ended
    query_ids = [upload.video_id for upload in uploads]
    figures = [count(told, true_pairs, query_ids=query_ids, name=name) for name in COUNTED]
    report(
        "bench_verdict",
        lines=[f"{source.name}: {len(uploads)} uploads", *lines(figures, wall_s, mean_cpu_s)],
        figures={
            "data": source.name,
            "results": [asdict(item) for item in figures],
            "wall_s": wall_s,
            "mean_cpu_s": mean_cpu_s,
        },
        output=output,
    )


app = command_line(main)

if __name__ == "__main__":
    app()
