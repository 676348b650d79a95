"""What scores unrelated videos reach: `python -m benchmarks.calibrate FIT... [--check SET] [--output DIR]`.

Every query of a set is compared with every reference of it, and the pairs that the ground truth does not name are
unrelated. `engine.evaluate.calibration.FalseMatchModel` is fitted to all of FIT together; its figures go into a preset
(``[false_matches]``). On ``--check``, which it has not seen, the model is held against what is there: uploads that hold
no copy of the reference's videos and still reach the score of a verdict, and copies that do; then what the model says
of the same copies in larger catalogues, by their scores alone and with what their pictures showed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.ablation import Bench, Row
from benchmarks.data_sets import DataSet, find_data_set
from benchmarks.harness import command_line, report
from engine.build.cache import user_engines
from engine.config import FalseMatches, Preset
from engine.evaluate.calibration import FalseMatchModel, VerdictScores
from engine.records import CandidatePair, FloatArray, Match
from engine.runtime.engines_directory import EnginesDirectory
from engine.search.localization import MAX_INLIERS
from engine.store.tables import read_candidates, read_ground_truth, read_matches

RATES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
SIZES = (1_000, 10_000, 100_000, 1_000_000, 67_000_000)


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a set, ``(Q, R)``: every query with every reference, -inf where a search did not return the pair.

    ``is_true``: bool ``(Q, R)``. ``num_inliers``: int ``(Q, R)``, of the best match of a pair, -1 where nobody looked.
    """

    data: str
    scores: FloatArray
    is_true: np.ndarray
    num_inliers: np.ndarray

    @property
    def unrelated(self) -> FloatArray:
        """The scores of the pairs that are no copies, in any order."""
        unrelated: FloatArray = self.scores[~self.is_true]
        return unrelated


def score_matrix(
    name: str,
    candidates: Sequence[CandidatePair],
    matches: Sequence[Match],
    true_pairs: frozenset[tuple[str, str]],
    *,
    query_ids: Sequence[str],
    ref_ids: Sequence[str],
) -> Scores:
    """The candidates of a set and what their pictures showed, as matrices."""
    places = {pair: place for place, pair in enumerate((q, r) for q in query_ids for r in ref_ids)}
    scores = np.full(len(places), -np.inf, dtype=np.float32)
    for pair in candidates:
        scores[places[pair.query_id, pair.ref_id]] = pair.score
    num_inliers = np.full(len(places), -1)
    for match in matches:
        place = places[match.query_id, match.ref_id]
        num_inliers[place] = max(num_inliers[place], -1 if match.num_inliers is None else match.num_inliers)
    is_true = np.array([pair in true_pairs for pair in places], dtype=np.bool_)
    shape = len(query_ids), len(ref_ids)
    return Scores(name, scores.reshape(shape), is_true.reshape(shape), num_inliers.reshape(shape))


def check_lines(scores: Scores, model: FalseMatchModel) -> list[str]:
    """A line for each rate: the score it asks for, the uploads with a false pair there, and the copies above it."""
    num_refs = scores.scores.shape[1]
    false_best = np.where(scores.is_true, -np.inf, scores.scores).max(axis=1)
    copies = scores.scores[scores.is_true]
    lines = [f"{'rate asked for':<16}{'score from':>11}{'uploads with a false pair':>28}{'copies found':>15}"]
    for rate in RATES:
        score = model.score_at(rate, num_references=num_refs)
        num_false = int((false_best >= score).sum())
        share = f"{num_false} of {len(false_best)} ({num_false / len(false_best):.3f})"
        found = f"{int((copies >= score).sum())} of {len(copies)}"
        lines.append(f"{rate:<16g}{score:>11.3f}{share:>28}{found:>15}")
    return lines


def picture_line(sets: Sequence[Scores]) -> str:
    """How many features agreed in pairs that were looked at."""
    unrelated, copies = (
        np.concatenate([item.num_inliers[item.is_true == is_true] for item in sets]) for is_true in (False, True)
    )
    unrelated, copies = unrelated[unrelated >= 0], copies[copies >= 0]
    largest = sorted(unrelated.tolist(), reverse=True)[:3]
    above = int((copies > max(largest, default=0)).sum())
    return (
        f"pictures of {len(unrelated)} unrelated pairs of {', '.join(item.data for item in sets)}: in "
        f"{int((unrelated > 0).sum())} some feature agrees, most {', '.join(map(str, largest))}; of {len(copies)} "
        f"copies {above} have more than all of them"
    )


def size_lines(scores: Scores, model: FalseMatchModel, preset: Preset) -> list[str]:
    """A line for each size of catalogue: the thresholds, and the copies that would be told, without and with pictures.

    Pictures count where so few unrelated videos are expected above the pair's score alone that it would be looked at.
    """
    seen = np.clip(scores.num_inliers[scores.is_true], 0, MAX_INLIERS)
    raised = scores.scores[scores.is_true].astype(np.float64)
    alone = raised - preset.search.inlier_weight * seen
    config = FalseMatches(tail_start=model.start, tail_share=model.tail_share, mean_excess=model.mean_excess)
    lines = [
        f"{'videos':<12}{'copy from':>10}{'review from':>13}{'copies told alone, with pictures':>36}{'or review':>16}"
    ]
    for size in SIZES:
        thresholds = VerdictScores.of(config, num_references=size)
        expected_above = np.array([size * model.rate(score, num_references=1) for score in alone])
        is_looked_at = expected_above < preset.localization.verified_per_query
        told = np.where(is_looked_at, raised, alone)
        counts = [
            f"{int((alone >= limit).sum())}, {int((told >= limit).sum())} of {len(told)}"
            for limit in (thresholds.act, thresholds.review)
        ]
        lines.append(f"{size:<12}{thresholds.act:>10.3f}{thresholds.review:>13.3f}{counts[0]:>36}{counts[1]:>16}")
    return lines


def _measured(data: DataSet, bench: Bench, engines: EnginesDirectory) -> Scores:
    preset = _searching_all(engines.manifest.preset)
    bench.measure(Row("calibrate", engines, preset), data)
    output = max(bench.folder.iterdir())
    stores = {name: sorted(path.stem for path in getattr(data, name).iterdir()) for name in ("queries", "references")}
    return score_matrix(
        data.name,
        read_candidates(output / "candidates.csv"),
        read_matches(output / "matches.csv"),
        read_ground_truth(data.ground_truth).pairs,
        query_ids=stores["queries"],
        ref_ids=stores["references"],
    )


def _searching_all(preset: Preset) -> Preset:
    """Settings with which no pair of videos is left out."""
    everything = 10**6
    search = preset.search.model_copy(update={"retrieve_per_query": everything, "candidates_per_query": everything})
    localization = preset.localization.model_copy(update={"candidates_per_query": everything})
    return preset.model_copy(update={"search": search, "localization": localization})


def main(
    fit: Annotated[list[Path], typer.Argument(metavar="FIT...", help="Evaluation sets to fit to.")],
    check: Annotated[Path | None, typer.Option(help="A set to hold the model against; none of FIT.")] = None,
    engines: Annotated[Path | None, typer.Option(help="Engines directory; default: preset lite.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the report, e.g. benchmarks/results.")] = None,
) -> None:
    """Fit the distribution of the scores of unrelated videos, and hold it against another set.

    Example: python -m benchmarks.calibrate val-hard/ --check val/
    """
    directory = user_engines("lite") if engines is None else EnginesDirectory.open(engines)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        fitted = [_measured(find_data_set(path), bench, directory) for path in fit]
        unrelated = np.concatenate([scores.unrelated for scores in fitted])
        model = FalseMatchModel.fit(unrelated[np.isfinite(unrelated)])
        checked = None if check is None else _measured(find_data_set(check), bench, directory)
    names = ", ".join(scores.data for scores in fitted)
    lines = [
        f"{len(unrelated)} unrelated pairs of {names}: a share of {model.tail_share:.4f} scores above "
        f"{model.start:.4f}, by {model.mean_excess:.4f} in the mean",
        picture_line(fitted),
    ]
    figures: dict[str, object] = {"fit": names, "num_unrelated": len(unrelated), **asdict(model)}
    if checked is not None:
        num_refs = checked.scores.shape[1]
        config = FalseMatches(tail_start=model.start, tail_share=model.tail_share, mean_excess=model.mean_excess)
        verdicts = VerdictScores.of(config, num_references=num_refs)
        lines += [
            f"checked on {checked.data}, {num_refs} references: copy from {verdicts.act:.3f}, review from "
            f"{verdicts.review:.3f}",
            *check_lines(checked, model),
            picture_line([checked]),
            *size_lines(checked, model, directory.manifest.preset),
        ]
        figures |= {"check": checked.data, **asdict(verdicts)}
    report("calibrate", lines=lines, figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
