"""The losses of descriptor training: InfoNCE and the entropy loss.

Letters: N pictures, two views each, so 2N embeddings; row i and row i + N (mod 2N) are the views of one picture. M rows
of a memory of earlier embeddings. D dimensions. A *group* is what must not be told apart: rows of one group are never
negatives of each other. A row may show several groups, such as a picture blended into another: then it is a negative of
no row that shows one of them. Groups are integers ``(rows,)`` or ``(rows, C)``, where -1 stands for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_MIN_DISTANCE = 1e-6


def info_nce(
    embeddings: Tensor,
    groups: Tensor,
    *,
    temperature: float,
    memory: Tensor | None = None,
    memory_groups: Tensor | None = None,
) -> Tensor:
    """``mean over i of -log(e^{s(i, i')} / (e^{s(i, i')} + sum over negatives n of e^{s(i, n)}))``, a scalar.

    i' is the other view of i, ``s`` the inner product over ``temperature``. Negatives are the embeddings and memory
    rows of other groups. ``embeddings``: unit rows ``(2N, D)``, of ``groups``; ``memory``: unit rows ``(M, D)``,
    without gradient, of ``memory_groups``. As SSCD uses it (arXiv 2202.10261), with the
    memory of XBM (arXiv 1912.06798).
    """
    num_rows = len(embeddings)
    others = (torch.arange(num_rows, device=embeddings.device) + num_rows // 2) % num_rows
    similarities = embeddings @ embeddings.T
    positives = similarities.gather(1, others[:, None])
    keys, key_groups = similarities, groups
    if memory is not None and memory_groups is not None and len(memory):
        keys = torch.cat([similarities, embeddings @ memory.T], dim=1)
        key_groups = torch.cat([groups, memory_groups])
    negatives = keys.masked_fill(_share_a_group(groups, key_groups), -torch.inf)
    logits = torch.cat([positives, negatives], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(num_rows, dtype=torch.long, device=logits.device))


def entropy_loss(embeddings: Tensor, groups: Tensor) -> Tensor:
    """``-mean over i of log(distance from i to its nearest row of another group)``, a scalar.

    Pushes embeddings apart until they fill the sphere, which makes distances comparable between queries (KoLeo,
    arXiv 1806.03198; in SSCD, arXiv 2202.10261). ``embeddings``: unit rows ``(2N, D)``, of ``groups``. Zero where
    all rows are of one group.
    """
    same = _share_a_group(groups, groups)
    has_others = ~same.all(dim=1)
    nearest = (embeddings.detach() @ embeddings.detach().T).masked_fill(same, -torch.inf).argmax(dim=1)
    distances = torch.linalg.vector_norm(embeddings - embeddings[nearest], dim=1).clamp_min(_MIN_DISTANCE)
    loss: Tensor = -(distances.log() * has_others).sum() / has_others.sum().clamp_min(1)
    return loss


def _share_a_group(groups: Tensor, others: Tensor) -> Tensor:
    """Whether rows show a group that others show too, bool ``(rows, others)``."""
    columns, other_columns = (part.reshape(len(part), -1).T for part in (groups, others))
    shared = torch.zeros(len(groups), len(others), dtype=torch.bool, device=groups.device)
    for column in columns:
        for other in other_columns:
            shared |= (column[:, None] == other[None, :]) & (column[:, None] >= 0)
    return shared
