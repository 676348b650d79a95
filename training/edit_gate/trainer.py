"""Trains an edit-score model on frame features: is there a copy in this query?

The reference's transformer learns from whole videos. The linear model learns from frames, too: those of a video with a
copy that show other footage are plain.

A run that was killed goes on from the last whole epoch to the same losses: what an epoch does depends on the seed and
its number alone, and the checkpoint holds everything else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ConfigError, EngineError
from engine.evaluate.metrics import micro_average_precision
from engine.models.edit_score import EditScore
from engine.models.pooled_edit_score import PooledEditScore
from engine.records import CandidatePair, FloatArray
from training.checkpoint import optimizer_tensors, restore_optimizer
from training.distributed import Ranks
from training.edit_gate.config import EditScorePreset
from training.edit_gate.frame_features import VideoFeatures
from training.run_folder import RunFolder
from training.schedule import learning_rate_factor

logger = logging.getLogger(__name__)

WEIGHTS = "edit_score.safetensors"
_BERT_STD = 0.02
_MIN_STD = 1e-3

EditScoreModel = EditScore | PooledEditScore


@dataclass(frozen=True)
class LabelledVideo:
    """A query, which of its frames show a copy, bool ``(n,)``, and how often an epoch shows it.

    ``is_copy``: whether it holds a copy at all; one may fall between two frames.
    """

    features: VideoFeatures
    is_copy: bool
    copied_frames: NDArray[np.bool_]
    repeats: int = 1


class EditScoreTrainer:
    """One run: a model, what it has learned so far, and the run folder that keeps it.

    ``folder``: see `training.run_folder`, with a line of the log for each epoch; ``edit_score.safetensors`` in it are
    the weights of the best validation AP, as `vsc-engine build` reads them.

    Raises ``ConfigError`` where either side has no copy or no plain query, where there are fewer videos than a batch
    needs, and on `resume` from a run of another preset.
    """

    def __init__(
        self,
        model: EditScoreModel,
        preset: EditScorePreset,
        *,
        shown: Sequence[LabelledVideo],
        held_out: Sequence[LabelledVideo],
        ranks: Ranks,
        folder: Path,
    ) -> None:
        for name, videos in (("training", shown), ("validation", held_out)):
            num_copies = sum(video.is_copy for video in videos)
            if not 0 < num_copies < len(videos):
                raise ConfigError(
                    f"{name} needs queries with a copy and without, got {num_copies} with a copy of {len(videos)}"
                )
        settings = preset.optimization
        self._batch = settings.videos_per_rank * ranks.world_size
        if len(shown) < self._batch:
            raise ConfigError(
                f"{len(shown)} training videos are fewer than a batch of {self._batch}; lower videos_per_rank"
            )
        self.model, self.preset, self.ranks = model, preset, ranks
        self._shown, self._held_out = shown, held_out
        self._repeated = [video for video in shown for _ in range(video.repeats)]
        self._initialize()
        self.model.to(ranks.device)
        self._parameters = list(model.parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.history: list[dict[str, float]] = []
        self.folder = RunFolder(folder, identity=self._identity(), unit="epoch", best=WEIGHTS, writes=ranks.is_first)

    @property
    def best_ap(self) -> float:
        """The highest validation AP so far, -1 before the first epoch."""
        return max((epoch["validation_ap"] for epoch in self.history), default=-1.0)

    def run(self, *, advance: Callable[[], None] = lambda: None) -> None:
        """Train the epochs that are left."""
        with self.folder.open_log(last=len(self.history) - 1) as log:
            for epoch in range(len(self.history), self.preset.optimization.epochs):
                loss = self._train_epoch(epoch)
                if not np.isfinite(loss):
                    raise EngineError(f"the loss of epoch {epoch} is {loss}; lower the learning rate")
                ap = average_precision(self._held_out, self.scores(self._held_out))
                if ap > self.best_ap:
                    self.folder.keep_best(self.model)
                self.history.append({"epoch": epoch, "loss": loss, "validation_ap": ap})
                if self.ranks.is_first:
                    logger.info("epoch %d: loss %.4f, validation AP %.4f", epoch, loss, ap)
                log(epoch, {"loss": loss, "validation_ap": ap})
                self._save()
                advance()

    def _save(self) -> None:
        tensors = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self._optimizer)}
        self.folder.save(tensors=tensors, values={"history": self.history})

    def resume(self) -> bool:
        """Go on from the checkpoint of the folder, if it has one."""
        stopped = self.folder.resume()
        if stopped is None:
            return False
        self.model.load_state_dict(stopped.tensors["model"])
        restore_optimizer(self._optimizer, stopped.tensors["optimizer"])
        self.history = stopped.values["history"]
        return True

    def scores(self, videos: Sequence[LabelledVideo]) -> NDArray[np.float64]:
        """The edit score of each video, computed alone as the engine does."""
        self.model.eval()
        with torch.inference_mode():
            return np.array(
                [self.model(torch.from_numpy(video.features.rows).to(self.ranks.device)).item() for video in videos]
            )

    def _train_epoch(self, epoch: int) -> float:
        """The mean loss of the epoch."""
        settings, ranks = self.preset.optimization, self.ranks
        order = np.random.default_rng([self.preset.seed, epoch]).permutation(len(self._repeated))
        num_steps = len(order) // self._batch
        rng = np.random.default_rng([self.preset.seed, epoch, ranks.rank])
        torch.manual_seed(int(rng.integers(2**62)))
        self.model.train()
        losses = []
        for step in range(num_steps):
            own = order[step * self._batch : (step + 1) * self._batch][ranks.rank :: ranks.world_size]
            batch = [self._repeated[index] for index in own]
            factor = learning_rate_factor(
                epoch * num_steps + step,
                num_steps=settings.epochs * num_steps,
                warmup=settings.warmup,
                decay="linear",
            )
            for group in self._optimizer.param_groups:
                group["lr"] = settings.lr * factor
            loss = self._loss(batch, rng)
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss / self._batch)
            ranks.sum_gradients(self._parameters)
            self._optimizer.step()
            losses.append(ranks.gather(loss.detach()[None]).sum().item() / self._batch)
        return float(np.mean(losses))

    def _loss(self, batch: Sequence[LabelledVideo], rng: np.random.Generator) -> Tensor:
        """Cross entropy, summed over the videos.

        For the linear model, of each the mean over its frames, and that of the video, which teaches the variation what
        the frames leave open.
        """
        parts = [self._part(len(video.features.rows), rng) for video in batch]
        chosen = list(zip(batch, parts, strict=True))
        features = pad([video.features.rows[part] for video, part in chosen]).to(self.ranks.device)
        is_copy = torch.tensor([float(video.is_copy) for video in batch], device=self.ranks.device)
        if not isinstance(self.model, PooledEditScore):
            return functional.binary_cross_entropy_with_logits(self.model.logits(features), is_copy, reduction="sum")
        frame_logits = self.model.frame_logits(features)
        is_copied = pad([video.copied_frames[part].astype(np.float32) for video, part in chosen])
        share = pad([np.full(len(part), 1 / len(part), np.float32) for part in parts])
        of_frames = functional.binary_cross_entropy_with_logits(
            frame_logits,
            is_copied.to(self.ranks.device),
            weight=share.to(self.ranks.device),
            reduction="sum",
        )
        mask = share.to(self.ranks.device) > 0
        logits = self.model.weigh_frames(frame_logits.detach(), mask) + self.model.variation_logits(features, mask)
        return of_frames + functional.binary_cross_entropy_with_logits(logits, is_copy, reduction="sum")

    def _part(self, num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """A random part of the frames, in order."""
        share = rng.uniform(self.preset.min_frames_share, 1)
        num = max(1, round(share * num_frames))
        return np.sort(rng.choice(num_frames, num, replace=False))

    def _initialize(self) -> None:
        torch.manual_seed(self.preset.seed)
        is_bert = isinstance(self.model, EditScore)
        for module in self.model.modules():
            if isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm):
                module.reset_parameters()
            if is_bert and isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_BERT_STD)  # as BERT (arXiv 1810.04805) is initialized
        if isinstance(self.model, PooledEditScore):
            rows = np.concatenate([video.features.rows for video in self._shown])
            self.model.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
            self.model.std.copy_(torch.from_numpy(rows.std(axis=0)).clamp_min(_MIN_STD))
            with torch.inference_mode():
                variation = torch.cat([_variation(self.model, video.features.rows) for video in self._shown])
            self.model.variation_mean.copy_(variation.mean(dim=0))
            self.model.variation_std.copy_(variation.std(dim=0).clamp_min(_MIN_STD))
            nn.init.zeros_(self.model.frame.weight)
            nn.init.zeros_(self.model.video.weight)

    def _identity(self) -> dict[str, object]:
        videos = hashlib.sha256()
        for video in (*self._shown, *self._held_out):
            videos.update(f"{video.features.video_id} {video.is_copy} {video.repeats} ".encode())
            videos.update(video.features.rows.tobytes() + video.copied_frames.tobytes())
        preset = self.preset.model_dump(mode="json")
        return {"preset": preset, "set of videos": videos.hexdigest(), "number of ranks": self.ranks.world_size}


def _variation(model: PooledEditScore, rows: FloatArray) -> Tensor:
    features = torch.from_numpy(rows)[None]
    return model.variation(features, torch.ones(features.shape[:2], dtype=torch.bool))


def pad(videos: Sequence[FloatArray]) -> Tensor:
    """Stack features ``(n, C)``, or values ``(n,)``, of videos, shorter ones padded with zeros: ``(B, n, C)``."""
    return nn.utils.rnn.pad_sequence([torch.from_numpy(rows) for rows in videos], batch_first=True)


def average_precision(videos: Sequence[LabelledVideo], scores: NDArray[np.float64]) -> float:
    """Average precision of "this query holds a copy" when videos are ranked by their scores."""
    names = [str(index) for index in range(len(videos))]
    ranked = [CandidatePair(name, "copy", float(score)) for name, score in zip(names, scores, strict=True)]
    truth = {(name, "copy") for name, video in zip(names, videos, strict=True) if video.is_copy}
    return micro_average_precision(ranked, truth).average_precision
