"""``python -m training.edit_gate.train --preset lite --data DATA --output RUN``: trains an edit gate.

It learns which queries hold a copy, from features that the engine's own graph computes once. Started again, it goes on
where it stopped. The last line of stdout is a JSON object with the figures of the best epoch.
"""

from __future__ import annotations

import json
import logging
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
from training.distributed import Ranks, joined_ranks
from training.edit_gate.config import EditScorePreset, load_edit_score_preset
from training.edit_gate.frame_features import FeatureExtractor
from training.edit_gate.queries import QuerySet, labelled_videos, split, training_queries
from training.edit_gate.trainer import WEIGHTS, EditScoreTrainer, average_precision

FEATURES, SYNTHESIZED = "features", "synthesized"

PASSED_SHARES = (1.0, 0.99, 0.98, 0.95, 0.9)
"""Shares of the validation's copies for which the highest threshold that lets them pass is reported."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Run folder.")],
    preset: Annotated[str, typer.Option(help="Name of a recipe, or a TOML file.")] = "lite",
    data: Annotated[Path, typer.Option(help="Folder in which those that the recipe names lie.")] = Path(),
    checkpoints: Annotated[Path | None, typer.Option(help="Folder with the weights that give the features.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Videos read at once.")] = 2,
) -> None:
    """Train the edit-score model of a recipe.

    Example: python -m training.edit_gate.train --preset lite --data vsc-mini/ --checkpoints run/ --output gate/
    """
    logging.basicConfig(level=logging.INFO, handlers=[LogLines()], format="%(message)s")
    try:
        recipe = load_edit_score_preset(preset)
        with joined_ranks() as ranks:
            figures = train(recipe, data=data, checkpoints=checkpoints, output=output, num_workers=workers, ranks=ranks)
            if ranks.is_first:
                print(json.dumps(figures))
    except EngineError as error:
        say(f"train_edit_score: {error}")
        raise typer.Exit(1) from error


def train(
    recipe: EditScorePreset,
    *,
    data: Path,
    checkpoints: Path | None,
    output: Path,
    num_workers: int,
    ranks: Ranks,
) -> dict[str, object]:
    """Train, or go on training, in the run folder ``output``; the figures are those of the best epoch's weights.

    ``data``: the folder in which those that the recipe names lie. ``checkpoints``: that of the weights that give the
    features.

    Raises ``ConfigError`` where a label names a video that is not there, or either side lacks copies or plain queries.
    """
    preset = load_preset(recipe.engine_preset)
    if isinstance(preset.gate, NoGate):
        raise ConfigError(f"preset {preset.name!r} has no edit gate to train; name its models in [gate]")
    output.mkdir(parents=True, exist_ok=True)
    with ranks.first_before_others():
        training = training_queries(recipe, data=data, output=output / SYNTHESIZED, num_workers=num_workers)
    validation = None if recipe.validation is None else QuerySet.of(recipe.validation, data=data)
    weights = Weights(folder=checkpoints, random=False)
    model = build_edit_score(preset.gate.score_architecture)
    features = FeatureExtractor(preset, weights, folder=output / FEATURES)
    with ranks.first_before_others(), features as extractor:  # the first rank fills the cache of features
        shown = [video for part in training for video in labelled_videos(part, extractor, num_workers=num_workers)]
        held_out = [] if validation is None else labelled_videos(validation, extractor, num_workers=num_workers)
    if validation is None:
        shown, held_out = split(shown, share=recipe.validation_share, seed=recipe.seed)
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


if __name__ == "__main__":
    app()
