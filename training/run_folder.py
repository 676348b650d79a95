"""The folder of a training run: whose run it is, where it stopped, its log, its TensorBoard events, its best weights.

What both trainers share, so that a run that was killed goes on from its last checkpoint as if nothing had happened, and
a run of another recipe is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from engine.errors import ConfigError
from engine.files import written_aside
from training.checkpoint import load_checkpoint, save_checkpoint, save_weights

CHECKPOINT, LOG, TENSORBOARD = "checkpoint.safetensors", "log.jsonl", "tensorboard"

AddFigures = Callable[[int, Mapping[str, float]], None]
"""Logs the figures of one step or epoch under its number."""


@dataclass(frozen=True)
class Stopped:
    """What a run had saved when it stopped: named groups of tensors, and JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]


class RunFolder:
    """The folder ``path`` of one run; see the module.

    It holds ``checkpoint.safetensors``, the best weights under the name ``best``, ``log.jsonl`` (a line for each
    ``unit``, under its number) and TensorBoard's files. ``identity``: JSON values that say what is trained on what,
    under words for people; a checkpoint of another identity is refused. ``writes``: false for all ranks but the first,
    which then read, but leave no files.
    """

    def __init__(
        self, path: Path, *, identity: Mapping[str, Any], unit: Literal["step", "epoch"], best: str, writes: bool
    ) -> None:
        self.path, self.unit, self.best, self.writes = path, unit, path / best, writes
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it is read again

    def resume(self) -> Stopped | None:
        """What the last checkpoint holds; None where there is none yet.

        Raises ``ConfigError`` for a checkpoint of another identity, ``StoreError`` for a damaged one.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        tensors, state = load_checkpoint(path)
        stored = state.pop("identity", {})
        if different := [key for key in self._identity | stored if self._identity.get(key) != stored.get(key)]:
            raise ConfigError(
                f"{self.path} holds a run of another {' or '.join(different)}; choose another --output folder"
            )
        return Stopped(tensors, state)

    def save(self, *, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Replace the checkpoint: what `resume` gives from now on."""
        if self.writes:
            save_checkpoint(self.path / CHECKPOINT, tensors=tensors, state={**values, "identity": self._identity})

    def keep_best(self, model: nn.Module) -> None:
        """Replace the best weights by those of ``model``."""
        if self.writes:
            save_weights(model, self.best)

    @contextmanager
    def open_log(self, *, last: int) -> Iterator[AddFigures]:
        """Yield what logs figures to ``log.jsonl`` and TensorBoard, for a run that goes on after number ``last``.

        What was logged of later numbers is dropped first: they are trained again.
        """
        if not self.writes:
            yield lambda number, figures: None  # noqa: ARG005
            return
        self._drop_lines_after(last)
        with SummaryWriter(str(self.path / TENSORBOARD), purge_step=last + 1) as writer:

            def add(number: int, figures: Mapping[str, float]) -> None:
                with (self.path / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({self.unit: number, **figures}) + "\n")
                for name, value in figures.items():
                    writer.add_scalar(name, value, number)

            yield add

    def _drop_lines_after(self, last: int) -> None:
        path = self.path / LOG
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # The last line may be half-written: what does not end in a line break is dropped.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)[self.unit] <= last]
        with written_aside(path) as aside:
            aside.write_text("".join(kept), encoding="utf-8")
