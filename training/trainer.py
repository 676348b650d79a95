"""The training loop of descriptor models: steps, schedule, validation, checkpoints and logs of one run folder.

A run that was killed goes on from its last checkpoint to the same losses: the batches depend on the step alone, and the
checkpoint holds everything else (weights, optimizer, moving average, memory, scaler).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from engine.atomic import written_aside
from engine.errors import ConfigError, EngineError
from engine.models.export import Normalize
from engine.records import FloatArray
from training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from training.config import Precision, TrainingPreset
from training.data import Batch
from training.distributed import Ranks
from training.gradient_checkpointing import checkpoint_blocks
from training.losses import entropy_loss, info_nce
from training.schedule import learning_rate_factor
from training.validation import PictureRetrieval

logger = logging.getLogger(__name__)

CHECKPOINT, BEST, LOG = "checkpoint.safetensors", "best.safetensors", "log.jsonl"
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_EMBED_BATCH = 64
_WITHOUT_HALF = ("DEFAULT", "AVX2")
"""What ``torch.backends.cpu.get_cpu_capability`` says of CPUs that compute in half precision one value at a time."""


@dataclass(frozen=True)
class Intervals:
    """After how many steps a run is validated, and after how many seconds it is saved."""

    validate_steps: int
    save_s: float


class Trainer:
    """One run: a model, what it has learned so far, and where that is kept.

    ``model`` takes normalized frames ``(B, 3, px, px)``. The run folder holds ``checkpoint.safetensors``,
    ``best.safetensors`` (the weights of the highest validation uAP; without validation the last ones), ``log.jsonl``
    and TensorBoard's files.
    """

    def __init__(self, model: nn.Module, preset: TrainingPreset, *, num_steps: int, ranks: Ranks, folder: Path) -> None:
        self.preset, self.num_steps, self.ranks, self.folder = preset, num_steps, ranks, folder
        self.normalize = Normalize(preset.model.mean, preset.model.std).to(ranks.device)
        self.model = model.to(ranks.device).to(memory_format=torch.channels_last).eval()
        _freeze(self.model, preset.model.frozen)
        if preset.optimization.gradient_checkpointing:
            checkpoint_blocks(self.model)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        settings = preset.optimization
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.precision = usable_precision(settings.precision, ranks.device)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.precision == "fp16")
        decayed = settings.ema_decay is not None
        self.ema = {name: value.clone() for name, value in self._trained().items()} if decayed else {}
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
        """Train to the last step. Only the first rank validates and writes."""
        saved_s = time.monotonic()
        with SummaryWriter(str(self.folder / "tensorboard")) if self.ranks.is_first else nullcontext() as writer:
            for batch in batches:
                start_s = time.monotonic()
                figures = self._train_step(batch)
                if not np.isfinite(figures["loss"]):
                    raise EngineError(f"the loss of step {self.step} is {figures['loss']}; lower the learning rate")
                self.step += 1
                if self.step % intervals.validate_steps == 0 or self.step == self.num_steps:
                    figures |= self._validate(validation)
                self._log(writer, figures | {"seconds": time.monotonic() - start_s})
                if self.ranks.is_first and (
                    time.monotonic() - saved_s >= intervals.save_s or self.step == self.num_steps
                ):
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
        if settings.ema_decay is not None:
            # Short at first, so that the untrained start is forgotten.
            decay = min(settings.ema_decay, (1 + self.step) / (10 + self.step))
            for name, value in self._trained().items():
                self.ema[name].lerp_(value, 1 - decay)
        return {"loss": loss.item(), "info_nce": contrast.item(), "entropy": entropy.item(), "lr": settings.lr * factor}

    def _forward(self, views: Tensor) -> Tensor:
        kind = _AUTOCAST[self.precision]
        device = self.ranks.device
        pixels = self.normalize(views.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None):
            embeddings: Tensor = self.model(pixels)
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

    def _trained(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}

    @contextmanager
    def _validated_weights(self) -> Iterator[None]:
        """The moving average in the place of the weights, where there is one."""
        own = {name: value.clone() for name, value in self._trained().items()} if self.ema else {}
        self._put(self.ema)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)

    def embed(self, frames: NDArray[np.uint8]) -> FloatArray:
        """Unit rows, float32 ``(B, D)``, of uint8 frames ``(B, px, px, 3)``."""
        with torch.inference_mode():
            parts = torch.split(torch.from_numpy(frames), _EMBED_BATCH)
            rows = torch.cat([functional.normalize(self._forward(part)) for part in parts])
        return np.asarray(rows.cpu().numpy(), np.float32)

    def _validate(self, validation: PictureRetrieval | None) -> dict[str, float]:
        if not self.ranks.is_first:
            return {}
        with self._validated_weights():
            if validation is None:
                save_weights(self.model, self.folder / BEST)
                return {}
            uap = validation.uap(self.embed)
            if uap > self.best_uap:
                self.best_uap = uap
                save_weights(self.model, self.folder / BEST)
        logger.info("step %d of %d: validation uAP %.4f, best %.4f", self.step, self.num_steps, uap, self.best_uap)
        return {"validation_uap": uap}

    def _log(self, writer: Any, figures: dict[str, float]) -> None:
        if not self.ranks.is_first:
            return
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **figures}) + "\n")
        for name, value in figures.items():
            writer.add_scalar(name, value, self.step)

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {
            "model": dict(self.model.state_dict()),
            "optimizer": optimizer_tensors(self.optimizer),
            "ema": self.ema,
            "memory": {"rows": self.memory, "groups": self.memory_groups},
        }
        state = {
            "step": self.step,
            "best_uap": self.best_uap,
            "num_steps": self.num_steps,
            "preset": self.preset.model_dump(mode="json"),
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.folder / CHECKPOINT, tensors=tensors, state=state)

    def resume(self) -> bool:
        """Go on from the checkpoint of the run folder, if it has one.

        Log lines of later steps are dropped: they are trained again. Raises ``ConfigError`` for one of another recipe.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        tensors, state = load_checkpoint(path)
        asked = {"preset": self.preset.model_dump(mode="json"), "num_steps": self.num_steps}
        if any(json.loads(json.dumps(value)) != state[key] for key, value in asked.items()):
            raise ConfigError(f"{self.folder} holds a run of another preset or length; choose another --output folder")
        self.model.load_state_dict(tensors["model"])
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        self.ema = {name: value.to(self.ranks.device) for name, value in tensors.get("ema", {}).items()}
        self.memory = tensors["memory"]["rows"].to(self.ranks.device)
        self.memory_groups = tensors["memory"]["groups"].to(self.ranks.device)
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best_uap = state["step"], state["best_uap"]
        if self.ranks.is_first:
            self._truncate_log()
        return True

    def _truncate_log(self) -> None:
        path = self.folder / LOG
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # The last line may be half-written: what does not end in a line break is dropped.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
        with written_aside(path) as aside:
            aside.write_text("".join(kept), encoding="utf-8")


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights of a model as safetensors."""
    with written_aside(path) as aside:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, aside)


def usable_precision(asked: Precision, device: torch.device) -> Precision:
    """The precision to compute in: ``asked``, or fp32 on a CPU on which half precision is many times slower."""
    if asked == "fp32" or device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in _WITHOUT_HALF:
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
