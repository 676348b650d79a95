"""``vsc-engine evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError


def evaluate(
    ground_truth: Annotated[Path, typer.Option(help="The challenge's ground-truth CSV, of segments or of pairs.")],
    candidates: Annotated[Path | None, typer.Option(help="CSV of candidate pairs: gives uAP.")] = None,
    matches: Annotated[Path | None, typer.Option(help="CSV of matches: gives the segment metric.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries, to search now.")] = None,
    references: Annotated[Path | None, typer.Option(help="Descriptors of the references, to search now.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the precision-recall curve to write.")] = None,
) -> None:
    """Score candidates (uAP) or matches (segment metric) against ground truth.

    Example: vsc-engine evaluate --candidates out/candidates.csv --ground-truth ground_truth.csv
    """
    from engine.evaluate.figures import candidate_figures, match_figures
    from engine.search.candidates import find_candidates
    from engine.search.exact_copies import read_sides
    from engine.store.tables import read_candidates, read_ground_truth, read_matches

    given = (candidates is not None, matches is not None, queries is not None and references is not None)
    if sum(given) != 1 or (queries is None) != (references is None):
        raise ConfigError("give exactly one of --candidates, --matches, or --queries with --references")
    truth = read_ground_truth(ground_truth)
    if matches is not None:
        figures = match_figures(read_matches(matches), truth, plot=plot)
    elif candidates is not None:
        figures = candidate_figures(read_candidates(candidates), truth, plot=plot)
    elif queries is not None and references is not None:
        figures = candidate_figures(find_candidates(*read_sides(queries, references)), truth, plot=plot)
    print(json.dumps(figures))
