from __future__ import annotations

import pytest

from training.schedule import learning_rate_factor


def factors(decay: str, warmup: float = 0.1) -> list[float]:
    return [learning_rate_factor(step, num_steps=100, warmup=warmup, decay=decay) for step in range(100)]


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_rises_over_the_warm_up_and_falls_after_it(decay: str) -> None:
    values = factors(decay)
    assert values[0] == pytest.approx(0.1)
    assert values[9] == values[10] == 1
    assert values[10:] == sorted(values[10:], reverse=True)
    assert 0 < values[-1] < 0.02


def test_half_way_both_are_a_half() -> None:
    for decay in ("linear", "cosine"):
        assert learning_rate_factor(50, num_steps=100, warmup=0, decay=decay) == pytest.approx(0.5)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert factors("linear", warmup=0)[0] == 1
