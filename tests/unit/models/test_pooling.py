from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.models.pooling import gem

pytestmark = pytest.mark.torch


def test_gem_is_the_cubic_mean_of_what_is_above_the_floor() -> None:
    values = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = np.cbrt((np.maximum(values.double().numpy(), 1e-6) ** 3).mean(axis=1))
    np.testing.assert_allclose(gem(values, dim=1).numpy(), expected, rtol=1e-6)


def test_gem_of_two_dimensions_is_that_of_the_flattened_ones() -> None:
    values = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gem(values, dim=(2, 3)), gem(values.flatten(2), dim=2))


def test_gem_of_negative_values_is_the_floor_and_has_a_gradient() -> None:
    values = torch.full((1, 4, 2), -3.0, requires_grad=True)
    pooled = gem(values, dim=1)
    pooled.sum().backward()
    np.testing.assert_allclose(pooled.detach().numpy(), 1e-6, rtol=1e-4)
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
