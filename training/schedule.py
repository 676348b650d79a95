"""Learning rates over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate_factor(step: int, *, num_steps: int, warmup: float, decay: Literal["linear", "cosine"]) -> float:
    """What the rate is multiplied with in ``step`` of ``num_steps``: rises over ``warmup`` of them, then falls to 0."""
    num_warmup = round(warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return 1 - progress if decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
