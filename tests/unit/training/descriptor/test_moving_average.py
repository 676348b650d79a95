"""The moving average against the recurrence written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.descriptor.moving_average import moving_average  # noqa: E402

pytestmark = pytest.mark.torch


class Model(torch.nn.Module):
    """A trained weight, a frozen one and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.frozen = torch.nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.register_buffer("scale", torch.tensor(1.0))


def test_it_is_the_recurrence_with_a_short_start() -> None:
    model, decay = Model(), 0.8
    average = moving_average(model, decay=decay)
    expected = model.trained.detach().double().numpy().copy()
    assert average.module.trained.tolist() == expected.tolist()
    rng = np.random.default_rng(0)
    for step in range(50):
        weights = rng.standard_normal(3).astype(np.float32)
        with torch.no_grad():
            model.trained.copy_(torch.from_numpy(weights))
            model.scale.fill_(step)
        average.update_parameters(model)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weights
        np.testing.assert_allclose(average.module.trained.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert average.module.frozen.tolist() == [5.0]
    assert average.module.scale.item() == 49


def test_a_restored_average_goes_on() -> None:
    model = Model()
    whole = moving_average(model, decay=0.9)
    whole.update_parameters(model)
    restored = moving_average(Model(), decay=0.9)
    restored.load_state_dict(whole.state_dict())
    with torch.no_grad():
        model.trained.mul_(-3)
    for average in (whole, restored):
        average.update_parameters(model)
    assert restored.module.trained.tolist() == whole.module.trained.tolist()
