"""Statistics of the stages, against NumPy, and that computing them leaves the descriptor alone."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.edit_features import LITE0_STATISTICS, WithStatistics, statistics  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor  # noqa: E402

pytestmark = pytest.mark.torch


def test_mean_and_mean_absolute_deviation_of_every_channel() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.standard_normal((2, 3, 5, 4)), 7 + generator.standard_normal((2, 2, 3, 3))]
    expected = []
    for values in maps:
        mean = values.mean(axis=(2, 3))
        expected += [mean, np.abs(values - mean[:, :, None, None]).mean(axis=(2, 3))]
    found = statistics([torch.from_numpy(values) for values in maps]).numpy()
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-12)


@torch.no_grad()
def test_the_embedding_is_that_of_the_model_and_the_features_are_those_of_its_stages() -> None:
    model = EfficientNetLiteDescriptor().eval()
    random_weights(model, seed=0)
    frames = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    embedding, features = WithStatistics(model)(frames)
    torch.testing.assert_close(embedding, model(frames), rtol=0, atol=0)
    assert features.shape == (2, LITE0_STATISTICS)
    stem = torch.nn.functional.relu6(model.backbone.stem(frames))
    torch.testing.assert_close(features[:, :32], stem.mean(dim=(2, 3)))
