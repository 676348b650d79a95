"""Are copies found that nobody changed: `python -m benchmarks.exact_copies DATA --output DIR`.

DATA is a set with references among its queries, byte for byte (`benchmarks.val_hard --sets exact-copies`). A copy is
found if its reference is the best candidate of the query, strictly above every false one, and has a match. Only the
exact copies are queries here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.builds import BuildsOption, origins, parse_builds, run_build
from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import command_line, report
from benchmarks.val_hard import make_set
from engine.errors import ConfigError
from engine.files import file_sha256
from engine.records import CandidatePair, Match
from engine.store.tables import read_candidates, read_ground_truth, read_matches
from engine.video.discovery import find_videos

Pair = tuple[str, str]


@dataclass(frozen=True)
class Copy:
    """What became of one exact copy. Scores are None where there is no such candidate."""

    build: str
    query_id: str
    ref_id: str
    score: float | None
    best_false_score: float | None
    has_match: bool

    @property
    def is_found(self) -> bool:
        """Whether the true reference is above all false ones and has a match."""
        if self.score is None or not self.has_match:
            return False
        return self.best_false_score is None or self.score > self.best_false_score


def exact_pairs(data: DataSet) -> list[Pair]:
    """Queries and references whose files are equal byte for byte. Raises ``ConfigError`` if there are none."""
    references = {file_sha256(media.local_path): media.video_id for media in find_videos([data.references])}
    queries = [(media.video_id, file_sha256(media.local_path)) for media in find_videos([data.queries])]
    pairs = [(query_id, references[digest]) for query_id, digest in queries if digest in references]
    if not pairs:
        raise ConfigError(f"no query of {data.queries} is a reference byte for byte; there is nothing to look for")
    return pairs


def link_copies(data: DataSet, pairs: Sequence[Pair], output: Path) -> None:
    """Links in ``output`` to those queries that are exact copies."""
    copies = {query_id for query_id, _ in pairs}
    for media in find_videos([data.queries]):
        if media.video_id in copies:
            (output / media.path.name).symlink_to(media.local_path.resolve())


def copies_of(
    pairs: Sequence[Pair],
    candidates: Sequence[CandidatePair],
    matches: Sequence[Match],
    *,
    true_pairs: Collection[Pair],
    build: str,
) -> list[Copy]:
    """What was found of each pair. A candidate of a query that is not among ``true_pairs`` is false."""
    scores = {(item.query_id, item.ref_id): item.score for item in candidates}
    matched = {(item.query_id, item.ref_id) for item in matches}
    found = []
    for query_id, ref_id in pairs:
        false = [score for pair, score in scores.items() if pair[0] == query_id and pair not in true_pairs]
        pair = query_id, ref_id
        found.append(Copy(build, *pair, scores.get(pair), max(false, default=None), pair in matched))
    return found


def table(copies: Sequence[Copy]) -> list[str]:
    """A line for each copy and build, and how many each build finds."""
    lines = [f"{'build':<12}{'copy':<12}{'reference':<12}{'score':>10}{'best false':>12}{'match':>7}{'found':>7}"]
    for copy in copies:
        scores = f"{_text(copy.score):>10}{_text(copy.best_false_score):>12}"
        answers = "".join(f"{'yes' if is_so else 'NO':>7}" for is_so in (copy.has_match, copy.is_found))
        lines.append(f"{copy.build:<12}{copy.query_id:<12}{copy.ref_id:<12}{scores}{answers}")
    for build in dict.fromkeys(copy.build for copy in copies):
        mine = [copy for copy in copies if copy.build == build]
        lines.append(f"{build}: {sum(copy.is_found for copy in mine)} of {len(mine)} exact copies found")
    return lines


def _text(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def main(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a set with exact copies.")],
    output: Annotated[Path, typer.Option(help="Folder that gets the runs.")],
    builds: BuildsOption = None,
    results: Annotated[Path | None, typer.Option(help="Folder for the report, e.g. benchmarks/results.")] = None,
) -> None:
    """Look for every exact copy of a set, one by one, with each build.

    Example: python -m benchmarks.exact_copies sets/exact-copies --output runs/
    """
    data_set = find_data_set(data)
    compared = parse_builds(builds)
    pairs, truth = exact_pairs(data_set), read_ground_truth(data_set.ground_truth)
    copies, queries, runs = [], output / "queries", output / "runs"
    make_set(queries, lambda folder: link_copies(data_set, pairs, folder))
    for build in compared:
        folder = runs / build.name
        run_build(build, queries=queries, references=data_set.references, output=folder, cache=runs)
        candidates, matches = read_candidates(folder / "candidates.csv"), read_matches(folder / "matches.csv")
        copies += copies_of(pairs, candidates, matches, true_pairs=truth.pairs, build=build.name)
    figures = {"copies": [{**asdict(copy), "is_found": copy.is_found} for copy in copies]}
    report("exact_copies", lines=[*origins(compared), *table(copies)], figures=figures, output=results)


app = command_line(main)

if __name__ == "__main__":
    app()
