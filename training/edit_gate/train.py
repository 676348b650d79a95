"""``python -m training.edit_gate.train --videos DIR --ground-truth CSV --output RUN``: trains an edit gate.

It learns which queries hold a copy, from features that the engine's own graph computes once. Started again, it goes on
where it stopped. The last line of stdout is a JSON object with the figures of the best epoch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from engine.build.export import Weights
from engine.config import NoGate, load_preset
from engine.console import LogLines, progress, say
from engine.errors import ConfigError, EngineError
from engine.models.checkpoints import load_weights
from engine.models.edit_score import build_edit_score
from engine.records import Match, Media
from engine.store.tables import read_ground_truth
from engine.video.media import find_videos
from engine.video.sampling import slot_timestamps
from training.distributed import Ranks, joined_ranks
from training.edit_gate.config import EditScorePreset, load_edit_score_preset
from training.edit_gate.frame_features import FeatureExtractor
from training.edit_gate.trainer import WEIGHTS, EditScoreTrainer, LabelledVideo, average_precision
from training.footage.query_plans import Difficulty
from training.footage.synthesizer import GROUND_TRUTH, QUERIES, synthesize

FEATURES, SYNTHESIZED = "features", "synthesized"
NUM_EDITS = (1, 4)
MAX_PLAIN_PIECES = 3
LETTERBOXED_SHARE = 0.15
"""So that about every tenth plain query has bars, as in the train split of vsc-mini."""

SYNTHESIZED_FPS = 4
"""The gate samples a frame a second; more would be edited and encoded for nothing."""

PASSED_SHARES = (1.0, 0.99, 0.98, 0.95, 0.9)
"""Shares of the validation's copies for which the highest threshold that lets them pass is reported."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class QuerySet:
    """A folder of query videos, the ground truth that says which of them hold a copy, and how often to show each."""

    videos: Path
    ground_truth: Path
    repeats: int = 1

    def copies(self) -> dict[str, list[Match]]:
        """The queries that hold a copy, by id, and where.

        Raises ``ConfigError`` for a ground truth without segments.
        """
        truth = read_ground_truth(self.ground_truth)
        if truth.matches is None:
            raise ConfigError(f"{self.ground_truth} names no segments; the matching ground truth is needed")
        found: dict[str, list[Match]] = {}
        for match in truth.matches:
            found.setdefault(match.query_id, []).append(match)
        return found


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Run folder.")],
    videos: Annotated[list[Path] | None, typer.Option(help="Folder of query videos; may be repeated.")] = None,
    ground_truth: Annotated[list[Path] | None, typer.Option(help="CSV for each --videos, in the same order.")] = None,
    synthesize_from: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of videos to make more queries of; may be repeated. Of a folder that is also given with "
            "--videos, only queries without a copy."
        ),
    ] = None,
    num_synthesized: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Queries to make, half of them with a copy, for each --synthesize-from."),
    ] = None,
    val_videos: Annotated[Path | None, typer.Option(help="Queries to validate on; default: a held-out part.")] = None,
    val_ground_truth: Annotated[Path | None, typer.Option(help="CSV for --val-videos.")] = None,
    preset: Annotated[str, typer.Option(help="Name of a preset, or a TOML file.")] = "lite",
    checkpoints: Annotated[Path | None, typer.Option(help="Folder with the weights that give the features.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Videos read at once.")] = 2,
) -> None:
    """Train the edit-score model of a preset."""
    logging.basicConfig(level=logging.INFO, handlers=[LogLines()], format="%(message)s")
    try:
        recipe = load_edit_score_preset(preset)
        training = _query_sets(videos or [], ground_truth or [], repeats=recipe.repeats)
        validation = None
        if val_videos is not None or val_ground_truth is not None:
            [validation] = _query_sets(*([path] if path else [] for path in (val_videos, val_ground_truth)))
        with joined_ranks() as ranks:
            with ranks.first_before_others():
                training += _synthesized(
                    synthesize_from or [],
                    num_synthesized or [],
                    output / SYNTHESIZED,
                    given=training,
                    seed=recipe.seed,
                    num_workers=workers,
                )
            figures = train(
                recipe,
                training,
                validation=validation,
                checkpoints=checkpoints,
                output=output,
                num_workers=workers,
                ranks=ranks,
            )
            if ranks.is_first:
                print(json.dumps(figures))
    except EngineError as error:
        say(f"train_edit_score: {error}")
        raise typer.Exit(1) from error


def train(
    recipe: EditScorePreset,
    training: Sequence[QuerySet],
    *,
    validation: QuerySet | None,
    checkpoints: Path | None,
    output: Path,
    num_workers: int,
    ranks: Ranks,
) -> dict[str, object]:
    """Train, or go on training, in the run folder ``output``; the figures are those of the best epoch's weights.

    Raises ``ConfigError`` where a label names a video that is not there, or either side lacks copies or plain queries.
    """
    preset = load_preset(recipe.engine_preset)
    if isinstance(preset.gate, NoGate):
        raise ConfigError(f"preset {preset.name!r} has no edit gate to train; name its models in [gate]")
    if not training:
        raise ConfigError("there is nothing to train on; give --videos with --ground-truth, or --num-synthesized")
    output.mkdir(parents=True, exist_ok=True)
    weights = Weights(folder=checkpoints, random=False)
    model = build_edit_score(preset.gate.score_architecture)
    features = FeatureExtractor(preset, weights, folder=output / FEATURES)
    with ranks.first_before_others(), features as extractor:  # the first rank fills the cache of features
        shown = [video for part in training for video in _labelled(part, extractor, num_workers=num_workers)]
        held_out = [] if validation is None else _labelled(validation, extractor, num_workers=num_workers)
    if validation is None:
        shown, held_out = _split(shown, share=recipe.validation_share, seed=recipe.seed)
    trainer = EditScoreTrainer(model, recipe, shown=shown, held_out=held_out, ranks=ranks, folder=output)
    if trainer.resume():
        say(f"going on after epoch {len(trainer.history)} of {recipe.optimization.epochs}")
    with progress("epochs", recipe.optimization.epochs - len(trainer.history)) as advance:
        trainer.run(advance=advance)
    ranks.wait()
    load_weights(model, checkpoint=WEIGHTS, folder=output)
    scores = trainer.scores(held_out)
    copies = scores[[video.is_copy for video in held_out]]
    return {
        "validation_ap": average_precision(held_out, scores),
        "training_ap": average_precision(shown, trainer.scores(shown)),
        "num_training": len(shown),
        "num_validation": len(held_out),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "thresholds": {str(share): passing_threshold(copies, share=share) for share in PASSED_SHARES},
        "weights": str(output / WEIGHTS),
    }


def passing_threshold(copies: NDArray[np.float64], *, share: float) -> float:
    """The highest threshold that at least ``share`` of the scores of copies reach."""
    falling = np.sort(copies)[::-1]
    return float(falling[int(np.ceil(share * len(falling))) - 1])


def _query_sets(videos: Sequence[Path], ground_truth: Sequence[Path], *, repeats: int = 1) -> list[QuerySet]:
    if len(videos) != len(ground_truth):
        raise ConfigError(
            f"each folder of videos needs one ground truth, got {len(videos)} folders and {len(ground_truth)} CSV files"
        )
    return [QuerySet(*pair, repeats) for pair in zip(videos, ground_truth, strict=True)]


def _synthesized(
    folders: Sequence[Path],
    nums: Sequence[int],
    output: Path,
    *,
    given: Sequence[QuerySet],
    seed: int,
    num_workers: int,
) -> list[QuerySet]:
    """Queries made of the videos of each folder, which are copied and plain alike: no content may tell which is which.

    Nor may cuts, or black beside footage of another shape: a plain query shows up to three videos, as a query with a
    copy between other footage does, and some of them are letterboxed.
    """
    if len(folders) != len(nums):
        raise ConfigError(
            f"each --synthesize-from needs one --num-synthesized, got {len(folders)} folders and {len(nums)} numbers"
        )
    made = []
    for number, (folder, num) in enumerate(zip(folders, nums, strict=True)):
        queries = QuerySet(output / str(number) / QUERIES, output / str(number) / GROUND_TRUTH)
        made.append(queries)
        if queries.ground_truth.is_file():
            continue
        copies = {query_id for known in given if known.videos.samefile(folder) for query_id in known.copies()}
        paths = [item.path for item in find_videos([folder]) if item.video_id not in copies]
        with progress(f"synthesize from {folder.name}", num) as advance:
            synthesize(
                paths,
                output / str(number),
                distractors=paths,
                num_copies=num // 2,
                num_plain=num - num // 2,
                seed=seed + number,
                difficulty=Difficulty(num_edits=NUM_EDITS),
                copied_share=1.0,
                max_plain_pieces=MAX_PLAIN_PIECES,
                letterboxed_share=LETTERBOXED_SHARE,
                max_fps=SYNTHESIZED_FPS,
                num_workers=num_workers,
                advance=advance,
            )
    return made


def _labelled(queries: QuerySet, extractor: FeatureExtractor, *, num_workers: int) -> list[LabelledVideo]:
    media: list[Media] = find_videos([queries.videos])
    copies = queries.copies()
    absent = sorted(copies.keys() - {item.video_id for item in media})
    if absent:
        raise ConfigError(
            f"{queries.ground_truth} names {len(absent)} queries that {queries.videos} does not hold, such as "
            f"{absent[0]!r}"
        )
    with progress(f"features of {queries.videos.name}", len(media)) as advance:
        found = extractor.extract(media, num_workers=num_workers, advance=advance)
    return [
        LabelledVideo(
            features,
            is_copy=features.video_id in copies,
            copied_frames=copied_frames(len(features.rows), copies.get(features.video_id, ())),
            repeats=queries.repeats,
        )
        for features in found
    ]


def copied_frames(num_frames: int, matches: Sequence[Match]) -> NDArray[np.bool_]:
    """Which frames, one a second, show a copy, bool ``(num_frames,)``: those with the middle of their second in it."""
    middles_s = slot_timestamps(num_frames).mean(axis=1)
    copied = np.zeros(num_frames, dtype=bool)
    for match in matches:
        copied |= (match.query_start_s <= middles_s) & (middles_s < match.query_end_s)
    return copied


def _split(
    videos: Sequence[LabelledVideo], *, share: float, seed: int
) -> tuple[list[LabelledVideo], list[LabelledVideo]]:
    """Videos to train on and those held out, the same share of copies and of plain queries."""
    rng = np.random.default_rng(seed)
    shown: list[LabelledVideo] = []
    held_out: list[LabelledVideo] = []
    for is_copy in (True, False):
        kind = [video for video in videos if video.is_copy == is_copy]
        order = rng.permutation(len(kind))
        num_held_out = round(share * len(kind))
        held_out += [kind[index] for index in order[:num_held_out]]
        shown += [kind[index] for index in order[num_held_out:]]
    return shown, held_out


if __name__ == "__main__":
    app()
