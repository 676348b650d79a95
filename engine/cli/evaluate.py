"""``vsc-engine evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import picture_to_write, print_json
from engine.console import say
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.evaluate.calibration import OperatingPoint
    from engine.records import CandidatePair, Match
    from engine.store.tables import GroundTruth


def evaluate(
    ground_truth: Annotated[str, typer.Option(help="The challenge's ground-truth CSV, of segments or of pairs.")],
    candidates: Annotated[str | None, typer.Option(help="Table of candidate pairs: gives uAP.")] = None,
    matches: Annotated[str | None, typer.Option(help="Table of matches: gives the segment metric.")] = None,
    queries: Annotated[str | None, typer.Option(help="Descriptors of the queries, to search now.")] = None,
    references: Annotated[str | None, typer.Option(help="Descriptors of the references, to search now.")] = None,
    precision: Annotated[
        list[float] | None, typer.Option(help="Also print the score that has this precision (0-1); may be repeated.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="PNG of the precision-recall curve to write.", callback=picture_to_write)
    ] = None,
) -> None:
    """Score candidates (uAP) or matches (segment metric) against ground truth.

    Tables are .csv, .jsonl or .parquet, as `search`, `localize` and `run` write them.

    Example: vsc-engine evaluate --candidates out/candidates.csv --ground-truth ground_truth.csv
    """
    from engine.evaluate.calibration import operating_points
    from engine.evaluate.figures import candidate_figures, match_figures
    from engine.evaluate.ids import in_ids_of, unmatched_lines
    from engine.evaluate.metrics import best_per_pair
    from engine.search.candidates import find_candidates
    from engine.search.exact_copies import read_sides
    from engine.storage.location import location
    from engine.store.tables import read_candidates, read_ground_truth, read_matches

    given = (candidates is not None, matches is not None, queries is not None and references is not None)
    if sum(given) != 1 or (queries is None) != (references is None):
        raise ConfigError("give exactly one of --candidates, --matches, or --queries with --references")
    truth = read_ground_truth(location(ground_truth))
    picture = None if plot is None else location(plot)

    def truth_for(found: Sequence[CandidatePair] | Sequence[Match], among: str) -> GroundTruth:
        query_ids, ref_ids = {item.query_id for item in found}, {item.ref_id for item in found}
        known = in_ids_of(truth, query_ids=query_ids, ref_ids=ref_ids)
        for line in unmatched_lines(known, query_ids=query_ids, ref_ids=ref_ids, among=among):
            say(line)
        return known

    if matches is not None:
        segments = read_matches(location(matches))
        known = truth_for(segments, "the matches")
        figures: dict[str, object] = {**match_figures(segments, known, plot=picture)}
        pairs = best_per_pair(segments)
    else:
        pairs = []
        if candidates is not None:
            pairs = read_candidates(location(candidates))
        elif queries is not None and references is not None:
            pairs = find_candidates(*read_sides(location(queries), location(references)))
        known = truth_for(pairs, "the candidates")
        figures = {**candidate_figures(pairs, known, plot=picture)}
    if precision:
        points = operating_points(pairs, known.pairs, precisions=precision)
        figures["operating_points"] = [asdict(point) for point in points]
        for line in _table(points):
            say(line)
    print_json(figures)


def _table(points: Sequence[OperatingPoint]) -> list[str]:
    """Lines with a heading: a line for each precision, with 95% intervals over queries."""
    lines = [f"{'precision':<11}{'score from':<26}{'recall':<24}"]
    for point in points:
        score = _interval(point.score, point.score_low, point.score_high)
        recall = _interval(point.recall, point.recall_low, point.recall_high)
        lines.append(f"{point.precision:<11g}{score:<26}{recall:<24}")
    return lines


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not reached"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
