"""What a rank of ``torchrun`` does in a test: a gradient of a loss over the rows of all ranks."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.distributed import joined_ranks

Gradients = list[NDArray[np.float32]]


def send_gradients(pipe: Connection, environment: dict[str, str], rows: NDArray[np.float32], note: Path) -> None:
    """As a process of its own."""
    os.environ.update(environment)
    pipe.send(gradients(rows, note))


def gradients(rows: NDArray[np.float32], note: Path) -> Gradients:
    """Of a linear model whose loss compares each row with all others; ``rows`` are split evenly over the ranks.

    The first rank writes ``note``, which the others read.
    """
    torch.manual_seed(0)
    model = torch.nn.Linear(rows.shape[1], 3)
    with joined_ranks() as ranks:
        mine = np.split(rows, ranks.world_size)[ranks.rank]
        found = ranks.gather(model(torch.from_numpy(mine)))
        (found @ found.T).square().mean().backward()
        ranks.sum_gradients(model.parameters())
        with ranks.first_before_others():
            if ranks.is_first:
                note.write_text("written", encoding="utf-8")
            assert note.read_text(encoding="utf-8") == "written"
    return [parameter.grad.numpy() for parameter in model.parameters() if parameter.grad is not None]
