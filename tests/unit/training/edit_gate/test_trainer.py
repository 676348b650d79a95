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
from training.edit_gate.config import EditScoreOptimization, EditScorePreset  # noqa: E402
from training.edit_gate.frame_features import VideoFeatures  # noqa: E402
from training.edit_gate.trainer import (  # noqa: E402
    WEIGHTS,
    EditScoreModel,
    EditScoreTrainer,
    LabelledVideo,
    average_precision,
    pad,
)

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
        copied_frames = (np.arange(len(rows)) <= len(rows) // 3) & is_copy
        rows[copied_frames, 0] += 4
        found.append(LabelledVideo(VideoFeatures(f"Q{number}", rows), is_copy, copied_frames))
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


def test_the_linear_model_learns_which_frames_are_copied(tmp_path: Path) -> None:
    """Frames of other footage have a mark, too: a model that learned from whole videos would take it for an edit."""
    shown = []
    for video in drawn_videos(64, seed=0):
        video.features.rows[:, 1] = 4.0 * (video.is_copy & ~video.copied_frames)
        shown.append(video)
    run = EditScoreTrainer(
        pooled(), preset(epochs=20, lr=1e-2), shown=shown, held_out=shown, ranks=ALONE, folder=tmp_path
    )
    run.run()
    copied, other = run.model.frame.weight[0, :2].tolist()
    assert other < 0 < copied


def test_the_loss_is_that_of_the_frames_and_of_the_videos(tmp_path: Path) -> None:
    videos = drawn_videos(8, seed=0)
    recipe = preset(epochs=1, lr=1e-9).model_copy(update={"min_frames_share": 1.0})
    run = EditScoreTrainer(pooled(), recipe, shown=videos, held_out=videos, ranks=ALONE, folder=tmp_path)
    with torch.no_grad():
        run.model.frame.weight.copy_(torch.linspace(-1, 1, NUM_FEATURES))
        run.model.video.weight.copy_(torch.linspace(1, -2, 2 * NUM_FEATURES))
    weight, bias = (tensor.detach().double().numpy() for tensor in (run.model.frame.weight[0], run.model.frame.bias))
    mean, std = run.model.mean.double().numpy(), run.model.std.double().numpy()
    losses = []
    for video in videos:
        logits = np.clip((video.features.rows - mean) / std, -5, 5) @ weight + bias
        score = float(run.scores([video])[0])
        of_video = -np.log(score if video.is_copy else 1 - score)
        losses.append(of_video + np.mean(np.log1p(np.exp(np.where(video.copied_frames, -logits, logits)))))
    run.run()
    assert run.history[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


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
    with pytest.raises(ConfigError, match="another preset;"):
        trainer(tmp_path, pooled(), preset(epochs=2)).resume()
    fewer = EditScoreTrainer(
        pooled(),
        preset(epochs=1),
        shown=drawn_videos(63, seed=0),
        held_out=drawn_videos(40, seed=1),
        ranks=ALONE,
        folder=tmp_path,
    )
    with pytest.raises(ConfigError, match="another set of videos;"):
        fewer.resume()


def test_features_are_standardized_over_all_training_frames_and_their_variation_over_the_videos(tmp_path: Path) -> None:
    model = pooled()
    trainer(tmp_path, model)
    videos = [video.features.rows.astype(np.float64) for video in drawn_videos(64, seed=0)]
    rows = np.concatenate(videos)
    np.testing.assert_allclose(model.mean.numpy(), rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.std.numpy(), rows.std(axis=0), atol=1e-6)
    changes = np.array([np.abs(np.diff(video / rows.std(axis=0), axis=0)).mean(axis=0) for video in videos])
    np.testing.assert_allclose(model.variation_mean.numpy()[NUM_FEATURES:], changes.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(model.variation_std.numpy()[NUM_FEATURES:], changes.std(axis=0, ddof=1), atol=1e-3)


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
        LabelledVideo(VideoFeatures("same id", np.ones((1, 1), np.float32)), flag, np.array([flag]))
        for flag in (True, False, True)
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
