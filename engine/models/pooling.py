"""Generalized-mean (GeM) pooling as the descriptor models use it."""

from __future__ import annotations

from torch import Tensor

GEM_POWER = 3.0
GEM_FLOOR = 1e-6


def gem(values: Tensor, *, dim: int | tuple[int, ...]) -> Tensor:
    """Pool over ``dim``: ``mean(max(values, 1e-6) ** 3) ** (1 / 3)``.

    The power mean of Radenovic et al. (arXiv 1711.02512) with the exponent kept at 3; between the mean and the maximum.
    """
    return values.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(dim=dim).pow(1.0 / GEM_POWER)
