"""The small edit-score model against a float64 computation of the same formulas."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.edit_score import build_edit_score  # noqa: E402
from engine.models.pooled_edit_score import PooledEditScore  # noqa: E402

pytestmark = pytest.mark.torch

FEATURES = 10


@pytest.fixture(scope="module")
def model() -> PooledEditScore:
    model = PooledEditScore(feature_dim=FEATURES)
    random_weights(model, seed=0)
    generator = torch.Generator().manual_seed(1)
    for mean, std in ((model.mean, model.std), (model.variation_mean, model.variation_std)):
        mean.normal_(generator=generator)
        std.uniform_(0.1, 2, generator=generator)
    return model.eval()


def features(num_frames: int) -> torch.Tensor:
    return 3 * torch.randn(num_frames, FEATURES, generator=torch.Generator().manual_seed(num_frames))


def expected_score(model: PooledEditScore, rows: np.ndarray) -> float:
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    values = np.clip((rows - state["mean"]) / state["std"], -5, 5)
    logits = values @ state["frame.weight"][0] + state["frame.bias"][0]
    odds = np.exp(logits)
    change = np.abs(np.diff(values, axis=0)).mean(axis=0) if len(values) > 1 else np.zeros(FEATURES)
    variation = np.concatenate([np.abs(values - values.mean(axis=0)).mean(axis=0), change])
    deviations = np.clip((variation - state["variation_mean"]) / (2 * state["variation_std"]), -2, 2)
    logit = (odds * logits).sum() / odds.sum() + state["video.weight"][0] @ deviations
    return float(1 / (1 + np.exp(-logit)))


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_scores_are_those_of_the_formula(model: PooledEditScore, num_frames: int) -> None:
    rows = features(num_frames)
    score = model(rows)
    assert score.shape == (1,)
    assert score.item() == pytest.approx(expected_score(model, rows.double().numpy()), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("filling", [0.0, 7.0])
def test_frames_outside_of_the_mask_change_nothing(model: PooledEditScore, filling: float) -> None:
    lengths = torch.tensor([3, 7, 1])
    batch, mask = torch.full((3, 7, FEATURES), filling), torch.arange(7) < lengths[:, None]
    batch[0, :3], batch[1], batch[2, :1] = features(3), features(7), features(1)
    alone = torch.cat([model(features(num)) for num in (3, 7, 1)])
    torch.testing.assert_close(model.logits(batch, mask).sigmoid(), alone)


@torch.no_grad()
def test_a_frame_of_zeros_counts_as_any_other(model: PooledEditScore) -> None:
    rows = features(4)
    rows[1] = 0
    assert model(rows).item() == pytest.approx(expected_score(model, rows.double().numpy()), rel=1e-5)


@torch.no_grad()
def test_a_short_copy_counts_and_a_single_frame_does_not_decide(model: PooledEditScore) -> None:
    logits = model.frame_logits(features(9)[None])[0]
    assert logits.shape == (9,)
    assert logits.mean() < model.weigh_frames(logits[None], torch.ones(1, 9, dtype=torch.bool))[0] < logits.max()


def test_every_weight_is_trained(model: PooledEditScore) -> None:
    model(features(4)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()


def test_it_is_small() -> None:
    model = build_edit_score("edit_score_pooled")
    assert sum(parameter.numel() for parameter in model.parameters()) <= 500_000
