"""``python -m training.train_descriptor --preset lite --store STORE --output RUN``: trains one descriptor model.

Under ``torchrun`` all ranks share each batch. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.console import LogLines, progress, say
from engine.errors import ConfigError, EngineError
from engine.models.checkpoints import load_imagenet_lite, load_weights, random_weights
from engine.models.descriptor import build_descriptor_model
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor
from engine.models.export import Normalize
from engine.models.pooling import gem
from engine.records import Match
from engine.tables import read_ground_truth
from training.annotated_pairs import AnnotatedPairSource
from training.config import EditedAugmentation, Model, TrainingPreset, WideAugmentation, load_training_preset
from training.data import PlannedBatches, ViewPairs, group_names, load_batches, video_of
from training.distributed import Ranks, joined_ranks
from training.frame_store import FrameStore
from training.hand_over import write_engine_preset
from training.picture_hashes import near_pairs, picture_hash
from training.reference_views import ReferenceViews
from training.report import write_report
from training.trainer import BEST, LOG, Intervals, Trainer
from training.validation import PictureRetrieval
from training.views import EditedViews, Views, WideViews, fit

logger = logging.getLogger(__name__)

CACHE_BYTES = 2 << 30
_WHITENING_PICTURES = 2048
_WHITENING_PX = 160
_WHITENING_FLOOR = 1e-3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    store: Annotated[Path, typer.Option(help="Frame store, see training.build_store.")],
    output: Annotated[Path, typer.Option(help="Run folder.")],
    preset: Annotated[str, typer.Option(help="Name of a preset, or a TOML file.")] = "lite",
    ground_truth: Annotated[
        Path | None, typer.Option(help="CSV of annotated copies whose videos are in the store.")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Checkpoint to start from, instead of the preset's.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make views.")] = 1,
    validation_share: Annotated[float, typer.Option(min=0, max=0.5, help="Pictures held out.")] = 0.05,
    save_seconds: Annotated[float, typer.Option(min=0, help="Time between two checkpoints.")] = 120.0,
    validations: Annotated[int, typer.Option(min=1, help="How often to validate.")] = 20,
) -> None:
    """Train one descriptor model."""
    logging.basicConfig(level=logging.INFO, handlers=[LogLines()], format="%(message)s")
    try:
        with FrameStore.open(store, cache_bytes=CACHE_BYTES) as pictures, joined_ranks() as ranks:
            train(
                _starting_from(load_training_preset(preset), start),
                store=pictures,
                output=output,
                matches=_matches(ground_truth),
                num_workers=workers,
                validation_share=validation_share,
                num_validations=validations,
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


def _matches(ground_truth: Path | None) -> tuple[Match, ...]:
    if ground_truth is None:
        return ()
    matches = read_ground_truth(ground_truth).matches
    if not matches:
        raise ConfigError(f"{ground_truth} names no segments; the matching ground truth is needed")
    return tuple(matches)


def train(
    preset: TrainingPreset,
    *,
    store: FrameStore,
    output: Path,
    matches: tuple[Match, ...],
    num_workers: int,
    validation_share: float,
    num_validations: int,
    save_s: float,
    ranks: Ranks,
) -> Trainer:
    """Train, or go on training, the model of ``preset`` in the run folder ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    names = store.names()
    same = [(match.query_id, match.ref_id) for match in matches]
    groups = group_names(names, same=[*same, *_near_duplicates(store, names, max_bits=preset.near_duplicate_bits)])
    split_seed = preset.seed if preset.held_out_seed is None else preset.held_out_seed
    shown, held_out = _split(groups, share=validation_share, seed=split_seed)
    batch = preset.optimization.pairs_per_rank * ranks.world_size
    if len(shown) < batch:
        raise ConfigError(f"the store has {len(shown)} pictures to train on, fewer than a batch of {batch}")
    num_steps = round(preset.optimization.epochs * (len(shown) // batch))
    model = _start(preset.model, seed=preset.seed, store=store, pictures=shown)
    trainer = Trainer(model, preset, num_steps=num_steps, ranks=ranks, folder=output)
    if trainer.resume():
        logger.info("going on after step %d of %d", trainer.step, num_steps)
    num_annotated = round(preset.annotated_pairs.share * batch)
    views = _views(preset)
    annotated = AnnotatedPairSource.of(matches, names, fps=1.0) if num_annotated else None
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
    intervals = Intervals(validate_steps=max(1, num_steps // num_validations), save_s=save_s)
    with progress("steps", num_steps - trainer.step) as advance:
        batches = iter(load_batches(dataset, plan, num_workers=num_workers))
        trainer.run(batches, validation=validation, intervals=intervals, advance=advance)
    if ranks.is_first:
        write_engine_preset(output, preset, checkpoint=BEST)
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
    """Positions of pictures to train on, and of those held out; all pictures of a group are on one side."""
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
    )


def _start(config: Model, *, seed: int, store: FrameStore, pictures: NDArray[np.int64]) -> nn.Module:
    model = build_descriptor_model(config.architecture)
    random_weights(model, seed=seed)
    if config.start == "imagenet":
        if not isinstance(model, EfficientNetLiteDescriptor):
            raise ConfigError(f"there are no ImageNet weights for {config.architecture}; start it from a file")
        load_imagenet_lite(model.backbone)
    elif config.start != "random":
        path = Path(config.start)
        load_weights(model, checkpoint=path.name, folder=path.parent)
    if config.whiten_projection:
        if not isinstance(model, EfficientNetLiteDescriptor):
            raise ConfigError(f"whiten_projection is not made for {config.architecture}")
        _whiten(model, config, _sample(store, pictures, seed=seed))
    return model


def _sample(store: FrameStore, pictures: NDArray[np.int64], *, seed: int) -> NDArray[np.uint8]:
    chosen = np.random.default_rng([seed, 2]).permutation(pictures)[:_WHITENING_PICTURES]
    return np.stack([fit(store.picture(int(index)), _WHITENING_PX) for index in chosen])


def _whiten(model: EfficientNetLiteDescriptor, config: Model, frames: NDArray[np.uint8]) -> None:
    """Let the projection be the whitening PCA of the pooled features of ``frames``: equal variance everywhere."""
    num = model.projection.out_features
    if len(frames) <= num:
        raise ConfigError(f"whiten_projection needs more than {num} pictures to train on, got {len(frames)}")
    normalize = Normalize(config.mean, config.std)
    pooled: list[Tensor] = []
    with torch.inference_mode():
        for part in torch.split(torch.from_numpy(frames), 64):
            pooled.append(gem(model.eval().backbone(normalize(part)), dim=(2, 3)))
    features = torch.cat(pooled).double()
    mean = features.mean(dim=0)
    _, singular, components = torch.linalg.svd(features - mean, full_matrices=False)
    scales = 1 / (singular[:num] / len(features) ** 0.5).clamp_min(_WHITENING_FLOOR)
    weight = components[:num] * scales[:, None]
    with torch.no_grad():
        model.projection.weight.copy_(weight.float())
        model.projection.bias.copy_((-weight @ mean).float())


if __name__ == "__main__":
    app()
