"""``python -m training.descriptor.train --preset lite --store STORE --output RUN``: trains one descriptor model.

Under ``torchrun`` all ranks share each batch. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from engine.console import LogLines, progress, say
from engine.errors import ConfigError, EngineError
from engine.records import Match
from training.descriptor.annotated_pairs import AnnotatedPairSource
from training.descriptor.config import EditedAugmentation, TrainingPreset, WideAugmentation, load_training_preset
from training.descriptor.data import PlannedBatches, ViewPairs, group_names, load_batches, video_of
from training.descriptor.hand_over import write_engine_preset
from training.descriptor.reference_views import ReferenceViews
from training.descriptor.start import start_model
from training.descriptor.trainer import BEST, Intervals, Trainer
from training.descriptor.validation import PictureRetrieval
from training.descriptor.views import EditedViews, Views, WideViews
from training.distributed import Ranks, joined_ranks
from training.ground_truth import read_segments
from training.picture_hashes import near_pairs, picture_hash
from training.report import write_report
from training.run_folder import LOG
from training.store.frame_store import FrameStore

logger = logging.getLogger(__name__)

CACHE_BYTES = 2 << 30

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    store: Annotated[Path, typer.Option(help="Frame store, see training.store.build.")],
    output: Annotated[Path, typer.Option(help="Run folder.")],
    preset: Annotated[str, typer.Option(help="Name of a preset, or a TOML file.")] = "lite",
    ground_truth: Annotated[
        Path | None, typer.Option(help="CSV of annotated copies whose videos are in the store.")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Checkpoint to start from, instead of the preset's.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make views.")] = 1,
    save_seconds: Annotated[float, typer.Option(min=0, help="Time between two checkpoints.")] = 120.0,
) -> None:
    """Train one descriptor model.

    Example: python -m training.descriptor.train --preset lite --store store/ --output run/
    """
    logging.basicConfig(level=logging.INFO, handlers=[LogLines()], format="%(message)s")
    try:
        with FrameStore.open(store, cache_bytes=CACHE_BYTES) as pictures, joined_ranks() as ranks:
            train(
                _starting_from(load_training_preset(preset), start),
                store=pictures,
                output=output,
                matches=() if ground_truth is None else tuple(read_segments(ground_truth)),
                num_workers=workers,
                save_s=save_seconds,
                ranks=ranks,
            )
    except EngineError as error:
        say(f"train_descriptor: {error}")
        raise typer.Exit(1) from error


def _starting_from(preset: TrainingPreset, start: Path | None) -> TrainingPreset:
    if start is None:
        return preset
    return preset.model_copy(update={"model": preset.model.model_copy(update={"start": str(start)})})


def train(
    preset: TrainingPreset,
    *,
    store: FrameStore,
    output: Path,
    matches: tuple[Match, ...],
    num_workers: int,
    save_s: float,
    ranks: Ranks,
) -> Trainer:
    """Train, or go on training, the model of ``preset`` in the run folder ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    names = store.names()
    same = [(match.query_id, match.ref_id) for match in matches]
    groups = group_names(names, same=[*same, *_near_duplicates(store, names, max_bits=preset.near_duplicate_bits)])
    split_seed = preset.seed if preset.held_out_seed is None else preset.held_out_seed
    shown, held_out = _split(groups, share=preset.validation_share, seed=split_seed)
    batch = preset.optimization.pairs_per_rank * ranks.world_size
    if len(shown) < batch:
        raise ConfigError(f"the store has {len(shown)} pictures to train on, fewer than a batch of {batch}")
    num_steps = round(preset.optimization.epochs * (len(shown) // batch))
    model = start_model(preset.model, seed=preset.seed, store=store, pictures=shown)
    trainer = Trainer(model, preset, num_steps=num_steps, ranks=ranks, folder=output)
    if trainer.resume():
        logger.info("going on after step %d of %d", trainer.step, num_steps)
    if ranks.is_first:  # first, so that a recipe that cannot be handed over is refused before it trains
        write_engine_preset(output, preset, checkpoint=BEST)
    num_annotated = round(preset.annotated_pairs.share * batch)
    views = _views(preset)
    annotated = AnnotatedPairSource.of(matches, names, fps=store.fps) if num_annotated else None
    plan = PlannedBatches(
        shown,
        pairs_per_rank=preset.optimization.pairs_per_rank,
        rank=ranks.rank,
        world_size=ranks.world_size,
        num_annotated=num_annotated,
        sizes_px=[preset.input_px_at(step / num_steps) for step in range(num_steps)],
        seed=preset.seed,
        first_step=trainer.step,
    )
    dataset = ViewPairs(store, shown, views, groups, annotated=annotated, seed=preset.seed)
    validation = None
    if ranks.is_first and len(held_out) > 1:
        px = preset.model.input_px
        validation = PictureRetrieval.draw(store, held_out, views, input_px=px, seed=preset.seed)
    intervals = Intervals(validate_steps=max(1, num_steps // preset.num_validations), save_s=save_s)
    with progress("steps", num_steps - trainer.step) as advance:
        batches = iter(load_batches(dataset, plan, num_workers=num_workers))
        trainer.run(batches, validation=validation, intervals=intervals, advance=advance)
    if ranks.is_first:
        write_report(output, log=output / LOG, recipe=preset.model_dump(mode="json"))
    return trainer


def _near_duplicates(store: FrameStore, names: list[str], *, max_bits: int | None) -> list[tuple[str, str]]:
    """Pairs of names, of videos where pictures are theirs, that show nearly the same."""
    if max_bits is None:
        return []
    hashes = [picture_hash(store.picture(index)) for index in range(len(store))]
    keys = [video_of(name) or name for name in names]
    found = [(keys[i], keys[j]) for i, j in near_pairs(hashes, max_bits=max_bits) if keys[i] != keys[j]]
    logger.info("%d pairs of pictures differ in at most %d bits", len(found), max_bits)
    return found


def _split(groups: NDArray[np.int64], *, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of pictures to train on, and of held-out ones; all pictures of a group are on one side."""
    numbers = np.unique(groups)
    chosen = np.random.default_rng([seed, 0]).permutation(numbers)[: round(share * len(numbers))]
    is_held_out = np.isin(groups, chosen)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _views(preset: TrainingPreset) -> Views:
    settings = preset.augmentation
    if isinstance(settings, EditedAugmentation):
        return EditedViews(
            min_edits=settings.min_edits, max_edits=settings.max_edits, crop_probability=settings.crop_probability
        )
    if isinstance(settings, WideAugmentation):
        return WideViews(
            min_edits=settings.min_edits, max_edits=settings.max_edits, both_probability=settings.both_probability
        )
    return ReferenceViews(
        hard_mix=settings.hard_mix,
        overlay_probability=settings.overlay_probability,
        min_crop_area=settings.min_crop_area,
        both_easy_probability=settings.both_easy_probability,
        hard_probability=settings.hard_probability,
        easy_probability=settings.easy_probability,
    )


if __name__ == "__main__":
    app()
