"""Training on features that are drawn: what is learned, what a killed run goes on with, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import ConfigError  # noqa: E402
from engine.models.checkpoints import load_weights  # noqa: E402
from engine.models.edit_score import EditScore  # noqa: E402
from engine.models.pooled_edit_score import PooledEditScore  # noqa: E402
from training.distributed import Ranks  # noqa: E402
from training.edit_score_config import EditScoreOptimization, EditScorePreset  # noqa: E402
from training.edit_score_trainer import (  # noqa: E402
    WEIGHTS,
    EditScoreModel,
    EditScoreTrainer,
    LabelledVideo,
    average_precision,
    pad,
)
from training.frame_features import VideoFeatures  # noqa: E402

pytestmark = pytest.mark.torch

NUM_FEATURES = 12
ALONE = Ranks(0, 1, torch.device("cpu"))


def preset(*, epochs: int = 6, lr: float = 3e-3) -> EditScorePreset:
    settings = EditScoreOptimization(lr=lr, epochs=epochs, videos_per_rank=8)
    return EditScorePreset(name="t", engine_preset="lite", seed=3, min_frames_share=0.5, optimization=settings)


def drawn_videos(num: int, *, seed: int) -> list[LabelledVideo]:
    """In copies, the first feature of a third of the frames is higher."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num):
        rows = rng.standard_normal((int(rng.integers(3, 12)), NUM_FEATURES)).astype(np.float32)
        is_copy = number % 2 == 0
        rows[: 1 + len(rows) // 3, 0] += 4 * is_copy
        found.append(LabelledVideo(VideoFeatures(f"Q{number}", rows), is_copy))
    return found


def pooled() -> PooledEditScore:
    return PooledEditScore(feature_dim=NUM_FEATURES)


def bert() -> EditScore:
    return EditScore(
        feature_dim=NUM_FEATURES,
        hidden_dim=12,
        intermediate_dim=16,
        num_layers=1,
        num_heads=2,
        max_frames=12,
        vocabulary_size=110,
        num_positions=16,
    )


def trainer(folder: Path, model: EditScoreModel, recipe: EditScorePreset | None = None) -> EditScoreTrainer:
    return EditScoreTrainer(
        model,
        recipe or preset(),
        shown=drawn_videos(64, seed=0),
        held_out=drawn_videos(40, seed=1),
        ranks=ALONE,
        folder=folder,
    )


@pytest.mark.parametrize("make", [pooled, bert])
def test_both_models_learn_and_the_best_weights_are_kept(make: type, tmp_path: Path) -> None:
    run = trainer(tmp_path, make(), preset(epochs=20, lr=1e-2))
    run.run()
    assert run.best_ap > 0.9
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    kept = make()
    load_weights(kept, checkpoint=WEIGHTS, folder=tmp_path)
    scored = trainer(tmp_path / "other", kept)
    load_weights(kept, checkpoint=WEIGHTS, folder=tmp_path)  # the trainer starts models anew
    held_out = drawn_videos(40, seed=1)
    assert average_precision(held_out, scored.scores(held_out)) == pytest.approx(run.best_ap)


def test_a_run_that_stopped_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", pooled())
    whole.run()

    class KilledError(Exception):
        pass

    def kill_after_two() -> None:
        if len(stopped.history) == 2:
            raise KilledError

    stopped = trainer(tmp_path / "stopped", pooled())
    with pytest.raises(KilledError):
        stopped.run(advance=kill_after_two)
    again = trainer(tmp_path / "stopped", pooled())
    assert again.resume()
    assert len(again.history) == 2
    again.run()
    assert again.history == whole.history


def test_a_new_folder_has_nothing_to_go_on_with_and_another_recipe_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, pooled(), preset(epochs=1))
    assert not run.resume()
    run.run()
    with pytest.raises(ConfigError, match="another preset or of other videos"):
        trainer(tmp_path, pooled(), preset(epochs=2)).resume()


def test_features_are_standardized_over_all_training_frames(tmp_path: Path) -> None:
    model = pooled()
    trainer(tmp_path, model)
    rows = np.concatenate([video.features.rows for video in drawn_videos(64, seed=0)]).astype(np.float64)
    np.testing.assert_allclose(model.mean.numpy(), rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.std.numpy(), rows.std(axis=0), atol=1e-6)


def test_one_sided_or_too_few_videos_fail(tmp_path: Path) -> None:
    videos = drawn_videos(40, seed=0)
    copies = [video for video in videos if video.is_copy]
    for shown, held_out, message in (
        (copies, videos, "training needs queries with a copy and without, got 20 with a copy of 20"),
        (videos, copies, "validation needs"),
        (videos[:4], videos, "4 training videos are fewer than a batch of 8"),
    ):
        with pytest.raises(ConfigError, match=message):
            EditScoreTrainer(pooled(), preset(), shown=shown, held_out=held_out, ranks=ALONE, folder=tmp_path)


def test_shorter_videos_are_padded_with_zeros() -> None:
    batch = pad([np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)])
    assert batch.tolist() == [[[1, 1], [0, 0], [0, 0]], [[1, 1]] * 3]


def test_average_precision_of_a_ranking() -> None:
    videos = [
        LabelledVideo(VideoFeatures("same id", np.ones((1, 1), np.float32)), flag) for flag in (True, False, True)
    ]
    # Ranked: copy, plain, copy; precision 1/1 and 2/3 at the copies.
    assert average_precision(videos, np.array([0.9, 0.5, 0.1])) == pytest.approx((1 + 2 / 3) / 2)


def test_an_epoch_shows_a_video_as_often_as_asked(tmp_path: Path) -> None:
    repeated = [
        dataclasses.replace(video, repeats=1 + index % 2) for index, video in enumerate(drawn_videos(16, seed=0))
    ]
    several = [video for video in repeated for _ in range(video.repeats)]
    losses = []
    for name, shown in (
        ("repeats", repeated),
        ("copies", [dataclasses.replace(video, repeats=1) for video in several]),
    ):
        run = EditScoreTrainer(
            bert(), preset(epochs=2), shown=shown, held_out=drawn_videos(8, seed=1), ranks=ALONE, folder=tmp_path / name
        )
        run.run()
        losses.append([epoch["loss"] for epoch in run.history])
    assert losses[0] == losses[1]
