"""The figures that `evaluate` and `run` print: predictions against ground truth, as one flat JSON object each."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import ConfigError
from engine.evaluate.metrics import best_per_pair, micro_average_precision, segment_average_precision
from engine.evaluate.plots import save_precision_recall_plot
from engine.records import CandidatePair, Match
from engine.storage.location import Location
from engine.store.tables import GroundTruth

Figures = dict[str, float | int | str | None]


def candidate_figures(
    candidates: Sequence[CandidatePair], ground_truth: GroundTruth, *, plot: Location | None = None
) -> Figures:
    """uAP of pairs of videos, and the recall that a threshold with 90% precision reaches; ``plot`` is a PNG to write.

    Raises ``ConfigError`` without ground truth, ``BackendUnavailable`` if a plot is asked for and cannot be drawn.
    """
    curve = micro_average_precision(candidates, ground_truth.pairs)
    if plot is not None:
        save_precision_recall_plot(curve, plot, title=f"uAP {curve.average_precision:.4f}")
    return {
        "uap": curve.average_precision,
        "recall_at_precision_90": curve.recall_at_precision(0.9),
        "num_candidates": len(candidates),
    }


def match_figures(matches: Sequence[Match], ground_truth: GroundTruth, *, plot: Location | None = None) -> Figures:
    """The segment metric of the matching track, and uAP of the pairs that have matches (score: their best match).

    Raises ``ConfigError`` if the ground truth has no segments, ``BackendUnavailable`` as `candidate_figures`.
    """
    if ground_truth.matches is None:
        raise ConfigError(
            "the ground truth has no segments (columns query_start, query_end, ref_start, ref_end), which matches need"
        )
    curve = segment_average_precision(matches, ground_truth.matches)
    if plot is not None:
        save_precision_recall_plot(curve, plot, title=f"segment AP {curve.average_precision:.4f}")
    by_pair = micro_average_precision(best_per_pair(matches), ground_truth.pairs)
    return {
        "segment_ap": curve.average_precision,
        "pairwise_uap": by_pair.average_precision,
        "num_matches": len(matches),
    }
