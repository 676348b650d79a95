"""The small edit-score model against a float64 computation of the same formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.edit_score import build_edit_score  # noqa: E402
from engine.models.pooled_edit_score import PooledEditScore  # noqa: E402

pytestmark = pytest.mark.torch

FEATURES, HIDDEN = 10, 6


@pytest.fixture(scope="module")
def model() -> PooledEditScore:
    model = PooledEditScore(feature_dim=FEATURES, hidden_dim=HIDDEN)
    random_weights(model, seed=0)
    generator = torch.Generator().manual_seed(1)
    model.mean.normal_(generator=generator)
    model.std.uniform_(0.1, 2, generator=generator)
    return model.eval()


def features(num_frames: int) -> torch.Tensor:
    return 3 * torch.randn(num_frames, FEATURES, generator=torch.Generator().manual_seed(num_frames))


def gelu(values: np.ndarray) -> np.ndarray:
    return values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def expected_score(model: PooledEditScore, rows: np.ndarray) -> float:
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def linear(name: str, values: np.ndarray) -> np.ndarray:
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    hidden = gelu(linear("frame", np.clip((rows - state["mean"]) / state["std"], -5, 5)))
    mean = hidden.mean(axis=0)
    pooled = np.concatenate([mean, np.abs(hidden - mean).mean(axis=0)])
    return float(1 / (1 + np.exp(-linear("output", gelu(linear("video", pooled)))[0])))


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_scores_are_those_of_the_formula(model: PooledEditScore, num_frames: int) -> None:
    rows = features(num_frames)
    score = model(rows)
    assert score.shape == (1,)
    assert score.item() == pytest.approx(expected_score(model, rows.double().numpy()), rel=1e-5)


@torch.no_grad()
def test_padding_and_the_order_of_frames_change_nothing(model: PooledEditScore) -> None:
    batch = torch.zeros(2, 7, FEATURES)
    batch[0, :3], batch[1] = features(3), features(7).flip(0)
    torch.testing.assert_close(model.logits(batch).sigmoid(), torch.cat([model(features(3)), model(features(7))]))


def test_every_weight_is_trained(model: PooledEditScore) -> None:
    model.logits(features(4)[None]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()


def test_it_is_small() -> None:
    model = build_edit_score("edit_score_pooled")
    assert sum(parameter.numel() for parameter in model.parameters()) <= 500_000
