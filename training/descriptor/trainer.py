"""The training loop of descriptor models: steps, schedule and validation.

A run that was killed goes on from its last checkpoint to the same losses: the batches depend on the step alone, and the
checkpoint holds everything else (weights, optimizer, moving average, memory, scaler).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine.build.export import Normalize
from engine.errors import ConfigError, EngineError
from engine.records import FloatArray
from training.checkpoint import optimizer_tensors, restore_optimizer
from training.descriptor.config import Precision, TrainingPreset
from training.descriptor.data import Batch
from training.descriptor.gradient_checkpointing import checkpoint_blocks
from training.descriptor.losses import entropy_loss, info_nce
from training.descriptor.moving_average import moving_average
from training.descriptor.validation import PictureRetrieval
from training.distributed import Ranks
from training.run_folder import RunFolder
from training.schedule import learning_rate_factor

logger = logging.getLogger(__name__)

BEST = "best.safetensors"
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_EMBED_BATCH = 64
_ONLY_FP32 = ("DEFAULT", "AVX2")
"""What ``torch.backends.cpu.get_cpu_capability`` says of CPUs that compute in bfloat16 one value at a time."""


@dataclass(frozen=True)
class Intervals:
    """After how many steps a run is validated, and after how many seconds it is saved."""

    validate_steps: int
    save_s: float


class Trainer:
    """One run: a model, what it has learned so far, and where that is kept.

    ``model`` takes normalized frames, float32 ``(B, 3, px, px)``. ``folder``: see `training.run_folder`, with a line of
    the log for each step; ``best.safetensors`` in it are the weights of the highest validation uAP, or, without
    validation, the last ones.
    """

    def __init__(self, model: nn.Module, preset: TrainingPreset, *, num_steps: int, ranks: Ranks, folder: Path) -> None:
        self.preset, self.num_steps, self.ranks = preset, num_steps, ranks
        identity = {"preset": preset.model_dump(mode="json"), "length": num_steps}
        self.folder = RunFolder(folder, identity=identity, unit="step", best=BEST, writes=ranks.is_first)
        self.normalize = Normalize(preset.model.mean, preset.model.std).to(ranks.device)
        self.model = model.to(ranks.device).to(memory_format=torch.channels_last).eval()
        _freeze(self.model, preset.model.frozen)
        settings = preset.optimization
        self.average = None if settings.ema_decay is None else moving_average(self.model, decay=settings.ema_decay)
        if settings.gradient_checkpointing:
            checkpoint_blocks(self.model)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.precision = usable_precision(settings.precision, ranks.device)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.precision == "fp16")
        self.memory = torch.empty(0, 0, device=ranks.device)
        self.memory_groups = torch.empty(0, dtype=torch.int64, device=ranks.device)
        self.step, self.best_uap = 0, -1.0

    def run(
        self,
        batches: Iterator[Batch],
        *,
        validation: PictureRetrieval | None,
        intervals: Intervals,
        advance: Callable[[], None],
    ) -> None:
        """Train to the last step. Only the first rank validates."""
        saved_s = time.monotonic()
        with self.folder.open_log(last=self.step) as log:
            for batch in batches:
                start_s = time.monotonic()
                figures = self._train_step(batch)
                if not np.isfinite(figures["loss"]):
                    raise EngineError(f"the loss of step {self.step} is {figures['loss']}; lower the learning rate")
                self.step += 1
                if self.step % intervals.validate_steps == 0 or self.step == self.num_steps:
                    figures |= self._validate(validation)
                log(self.step, figures | {"seconds": time.monotonic() - start_s})
                if time.monotonic() - saved_s >= intervals.save_s or self.step == self.num_steps:
                    self.save()
                    saved_s = time.monotonic()
                advance()

    def _train_step(self, batch: Batch) -> dict[str, float]:
        settings, losses = self.preset.optimization, self.preset.losses
        factor = learning_rate_factor(self.step, num_steps=self.num_steps, warmup=settings.warmup, decay=settings.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * factor
        own = functional.normalize(self._forward(batch.views))
        groups = self._gathered_views(batch.groups.to(self.ranks.device).repeat(2, 1))
        embeddings = self._gathered_views(own)
        contrast = info_nce(
            embeddings,
            groups,
            temperature=losses.temperature,
            memory=self.memory,
            memory_groups=self.memory_groups,
        )
        entropy = entropy_loss(embeddings, groups)
        loss = contrast + losses.entropy_weight * entropy
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.ranks.sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        if settings.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, settings.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._remember(embeddings.detach(), groups)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {"loss": loss.item(), "info_nce": contrast.item(), "entropy": entropy.item(), "lr": settings.lr * factor}

    def _forward(self, views: Tensor, *, model: nn.Module | None = None) -> Tensor:
        kind = _AUTOCAST[self.precision]
        device = self.ranks.device
        pixels = self.normalize(views.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None):
            embeddings: Tensor = (model or self.model)(pixels)
        return embeddings.float()

    def _gathered_views(self, rows: Tensor) -> Tensor:
        """All ranks' rows, so that first views come first: ``(2N, ...)``."""
        if self.ranks.world_size == 1:
            return rows
        gathered = self.ranks.gather(rows)
        halves = gathered.reshape(self.ranks.world_size, 2, len(rows) // 2, *rows.shape[1:])
        return halves.transpose(0, 1).reshape(gathered.shape)

    def _remember(self, embeddings: Tensor, groups: Tensor) -> None:
        size = self.preset.losses.memory_rows
        if size:
            kept = self.memory if len(self.memory) else embeddings[:0]
            self.memory = torch.cat([embeddings, kept])[:size]
            kept_groups = self.memory_groups if len(self.memory_groups) else groups[:0]
            self.memory_groups = torch.cat([groups, kept_groups])[:size]

    @property
    def validated(self) -> nn.Module:
        """The model that is validated and handed over: the moving average, where there is one."""
        return self.model if self.average is None else self.average.module

    def embed(self, frames: NDArray[np.uint8]) -> FloatArray:
        """Unit rows of `validated`, float32 ``(B, D)``, for frames uint8 ``(B, px, px, 3)``."""
        with torch.inference_mode():
            parts = torch.split(torch.from_numpy(frames), _EMBED_BATCH)
            rows = torch.cat([functional.normalize(self._forward(part, model=self.validated)) for part in parts])
        return np.asarray(rows.cpu().numpy(), np.float32)

    def _validate(self, validation: PictureRetrieval | None) -> dict[str, float]:
        if not self.ranks.is_first:
            return {}
        if validation is None:
            self.folder.keep_best(self.validated)
            return {}
        uap = validation.uap(self.embed)
        if uap > self.best_uap:
            self.best_uap = uap
            self.folder.keep_best(self.validated)
        logger.info("step %d of %d: validation uAP %.4f, best %.4f", self.step, self.num_steps, uap, self.best_uap)
        return {"validation_uap": uap}

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "average": {} if self.average is None else self.average.state_dict(),
            "memory": {"rows": self.memory, "groups": self.memory_groups},
        }
        values = {"step": self.step, "best_uap": self.best_uap, "scaler": self.scaler.state_dict()}
        self.folder.save(tensors=tensors, values=values)

    def resume(self) -> bool:
        """Go on from the checkpoint of the run folder, if it has one. Raises ``ConfigError`` for one of another run."""
        stopped = self.folder.resume()
        if stopped is None:
            return False
        tensors, values = stopped.tensors, stopped.values
        self.model.load_state_dict(tensors["model"])
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        if self.average is not None:
            self.average.load_state_dict(tensors["average"])
        self.memory = tensors["memory"]["rows"].to(self.ranks.device)
        self.memory_groups = tensors["memory"]["groups"].to(self.ranks.device)
        self.scaler.load_state_dict(values["scaler"])
        self.step, self.best_uap = values["step"], values["best_uap"]
        return True


def usable_precision(asked: Precision, device: torch.device) -> Precision:
    """The precision to compute in: ``asked``, or fp32 on a CPU on which the others are many times slower."""
    if asked == "fp32" or device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in _ONLY_FP32:
        return asked
    logger.warning("this CPU has no fast %s; computing in fp32 instead", asked)
    return "fp32"


def _freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    names = [name for name, _ in model.named_parameters()]
    idle = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]
    if idle:
        raise ConfigError(f"no parameter is called {idle[0]!r}; the first ones are {names[:3]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatch(name, pattern) for pattern in patterns))
