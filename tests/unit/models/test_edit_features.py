"""Statistics of the stages, against NumPy, and that computing them leaves the descriptor alone."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.edit_features import LITE0_STATISTICS, WithStatistics, statistics  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor  # noqa: E402

pytestmark = pytest.mark.torch


def expected_statistics(values: np.ndarray, num_rows: int, num_columns: int) -> list[np.ndarray]:
    """One map, its grid of cells of ``num_rows`` by ``num_columns`` pixels, one channel of one frame at a time."""
    found = np.empty((6, *values.shape[:2]))
    for index in np.ndindex(values.shape[:2]):
        pixels = values[index]
        height, width = pixels.shape
        mean = sum(pixels.flat) / pixels.size
        rows, columns = [row.mean() for row in pixels], [column.mean() for column in pixels.T]
        cells = [
            pixels[top : top + num_rows, left : left + num_columns].mean()
            for top in range(0, height - num_rows + 1, num_rows)
            for left in range(0, width - num_columns + 1, num_columns)
        ]
        deviations = [np.mean([abs(value - mean) for value in some]) for some in (pixels.flat, rows, columns)]
        found[(slice(None), *index)] = [mean, *deviations, max(cells), min(cells)]
    return list(found)


def test_the_statistics_of_every_channel() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.standard_normal((2, 3, 5, 14)), 7 + generator.standard_normal((2, 2, 23, 7))]
    expected = expected_statistics(maps[0], 1, 2) + expected_statistics(maps[1], 3, 1)
    found = statistics([torch.from_numpy(values) for values in maps]).numpy()
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-11)


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
