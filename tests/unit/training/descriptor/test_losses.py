"""The losses against an independent NumPy float64 computation, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.descriptor.losses import entropy_loss, info_nce  # noqa: E402

pytestmark = pytest.mark.torch


def unit_rows(num: int, dims: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, dims))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def info_nce_oracle(rows, groups, temperature, memory=(), memory_groups=()):
    losses = []
    num = len(rows)
    for i in range(num):
        positive = np.exp(rows[i] @ rows[(i + num // 2) % num] / temperature)
        total = positive
        for row, group in [*zip(rows, groups, strict=True), *zip(memory, memory_groups, strict=True)]:
            if group != groups[i]:
                total += np.exp(rows[i] @ row / temperature)
        losses.append(-np.log(positive / total))
    return np.mean(losses)


def entropy_oracle(rows, groups):
    logs = []
    for i, row in enumerate(rows):
        distances = [np.linalg.norm(row - other) for j, other in enumerate(rows) if groups[j] != groups[i]]
        if distances:
            logs.append(np.log(min(distances)))
    return -np.mean(logs) if logs else 0.0


@pytest.mark.parametrize("groups", [[0, 1, 2, 0, 1, 2], [0, 0, 2, 0, 0, 2]])
@pytest.mark.parametrize("with_memory", [False, True])
def test_info_nce_is_the_formula(groups: list[int], with_memory: bool) -> None:
    rows = unit_rows(6, 5, seed=1)
    memory, memory_groups = (unit_rows(4, 5, seed=2), [0, 7, 8, 1]) if with_memory else (np.empty((0, 5)), [])
    loss = info_nce(
        torch.tensor(rows),
        torch.tensor(groups),
        temperature=0.05,
        memory=torch.tensor(memory) if with_memory else None,
        memory_groups=torch.tensor(memory_groups, dtype=torch.int64) if with_memory else None,
    )
    assert loss.item() == pytest.approx(info_nce_oracle(rows, groups, 0.05, memory, memory_groups), rel=1e-12)


@pytest.mark.parametrize("groups", [[0, 1, 2, 0, 1, 2], [0, 0, 2, 0, 0, 2], [3, 3, 3, 3, 3, 3]])
def test_entropy_loss_is_the_formula(groups: list[int]) -> None:
    rows = unit_rows(6, 5, seed=3)
    loss = entropy_loss(torch.tensor(rows), torch.tensor(groups))
    assert loss.item() == pytest.approx(entropy_oracle(rows, groups), rel=1e-12)


def test_rows_that_show_a_group_of_each_other_are_no_negatives() -> None:
    rows = torch.tensor(unit_rows(6, 5, seed=6))
    memory = torch.tensor(unit_rows(2, 5, seed=7))
    mixed = torch.tensor([[0, 1], [1, -1], [2, -1]]).repeat(2, 1)
    joined = torch.tensor([0, 0, 2]).repeat(2)
    told_apart = torch.tensor([0, 1, 2]).repeat(2)
    losses = [
        info_nce(rows, groups, temperature=0.1, memory=memory, memory_groups=memory_groups).item()
        for groups, memory_groups in (
            (mixed, torch.tensor([[5, 1], [6, -1]])),
            (joined, torch.tensor([0, 6])),
            (told_apart, torch.tensor([5, 6])),
        )
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert losses[0] < losses[2]
    assert entropy_loss(rows, mixed).item() == pytest.approx(entropy_loss(rows, joined).item(), rel=1e-12)


@pytest.mark.parametrize("loss", [lambda rows, groups: info_nce(rows, groups, temperature=0.5), entropy_loss])
def test_gradients_are_those_of_finite_differences(loss) -> None:
    rows = torch.tensor(unit_rows(6, 4, seed=4), requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: loss(values, torch.tensor([0, 1, 2, 0, 1, 2])), (rows,))


def test_equal_rows_of_different_groups_give_a_finite_loss_and_gradient() -> None:
    rows = torch.tensor(unit_rows(1, 4, seed=5)).repeat(4, 1).requires_grad_()
    loss = entropy_loss(rows, torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(rows.grad).all()
