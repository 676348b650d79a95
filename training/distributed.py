"""Ranks of ``torchrun``: who am I, all ranks' rows with my gradients, sums of gradients. One process needs no set-up.

Every rank computes the loss of the whole batch; its gradient reaches only the rows that this rank made. The sum of the
ranks' gradients is then what one process with the whole batch would have computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """The place of this process among the others, and the device it works on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in the order of ranks; gradients flow into this rank's own."""
        if self.world_size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        dist.all_gather(parts, rows.detach().contiguous())
        parts[self.rank] = rows
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over ranks."""
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [part.numel() for part in gradients]), strict=True):
            gradient.copy_(summed.reshape(gradient.shape))

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first rank does what follows alone, to leave files; the others do it after, and find them."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the ranks that ``torchrun`` started, over NCCL on GPUs and Gloo on CPUs; without it, be the only rank."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world_size, device)
    finally:
        dist.destroy_process_group()
