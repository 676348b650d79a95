"""The edit gate's models: frame features, and from the features of one video the probability that it was edited.

Weights come from outside. The score model here is the reference's: a BERT encoder (Devlin et al., arXiv 1810.04805)
over [CLS, frames, SEP], with the parameter names of the reference's checkpoint.

Shape legend: B videos, n frames, T = n + 2 tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.clip import ClipVisual
from engine.models.edit_features import LITE0_STATISTICS
from engine.models.freezing import Freezable
from engine.models.pooled_edit_score import HIDDEN_SCORE, PooledEditScore

CLS_TOKEN, SEP_TOKEN = 101, 102
NORM_EPS = 1e-12


def build_frame_features() -> nn.Module:
    """CLIP ViT-L/14 with untrained weights: normalized frames, float ``(B, 3, 224, 224)`` -> features ``(B, 1024)``."""
    return ClipVisual(input_resolution=224, patch_size=14, width=1024, layers=24, heads=16)


def build_edit_score(architecture: Literal["edit_score_bert", "edit_score_pooled"]) -> EditScore | PooledEditScore:
    """A score model with untrained weights: frame features of one video, ``(n, C)``, n <= 256 -> ``(1,)``.

    C is 1024 for ``edit_score_bert``, and `LITE0_STATISTICS` for ``edit_score_pooled``.
    """
    match architecture:
        case "edit_score_pooled":
            return PooledEditScore(feature_dim=LITE0_STATISTICS)
        case "edit_score_bert":
            return EditScore(
                feature_dim=1024,
                hidden_dim=768,
                intermediate_dim=3072,
                num_layers=12,
                num_heads=12,
                max_frames=256,
                vocabulary_size=21128,
                num_positions=512,
            )
        case _:
            assert_never(architecture)


class EditScore(Freezable):
    """Probability that a video was edited, from its frame features; exact on n + 2 tokens for any n <= ``max_frames``.

    The reference pads a video with zero frames to ``max_frames`` and masks its tokens [CLS, frame 0, ..., SEP] with
    [1, 1, visible 0, visible 1, ...], where a frame is visible if its feature is not all zero. The mask runs one
    token late: token k + 2 is seen if frame k is not zero. So behind n frames one more token can be seen, the first
    padding frame, or SEP if there is no padding; it is the last of the n + 2 tokens here. What follows it in the
    reference is always masked.
    """

    frozen_table: Tensor | None

    def __init__(
        self,
        *,
        feature_dim: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_layers: int,
        num_heads: int,
        max_frames: int,
        vocabulary_size: int,
        num_positions: int,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.max_frames = max_frames
        self.frame_proj = nn.Sequential(nn.Linear(feature_dim, hidden_dim), nn.LayerNorm(hidden_dim))
        embeddings = _Embeddings(hidden_dim, vocabulary_size, num_positions)
        layers = [_Layer(hidden_dim, intermediate_dim, num_heads) for _ in range(num_layers)]
        self.bert = _Bert(embeddings, layers, hidden_dim)
        self.output_proj = nn.Linear(2 * hidden_dim, 1)
        self.register_buffer("frozen_table", None, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Frame features of one video ``(n, feature_dim)``, 1 <= n <= max_frames -> probability ``(1,)``."""
        return self.logits(features[None]).sigmoid()

    def logits(self, features: Tensor) -> Tensor:
        """``(B, n, feature_dim)``, shorter videos padded with zeros, n <= max_frames -> logits ``(B,)``."""
        batch, num_frames, _ = features.shape
        table = self._input_table() if self.frozen_table is None else self.frozen_table
        opening, positions, closing = torch.split(table, [1, self.max_frames, self.max_frames + 1])
        tokens = torch.cat(
            (
                opening.expand(batch, -1, -1),
                self.frame_proj(features) + positions[:num_frames],
                closing.narrow(0, num_frames, 1).expand(batch, -1, -1),
            ),
            dim=1,
        )
        is_frame = (features.abs().sum(dim=2) > 0).to(features.dtype)
        visible = torch.cat((tokens.new_ones(batch, 2), is_frame), dim=1)
        hidden = self.bert(tokens, (1 - visible)[:, None, None] * HIDDEN_SCORE)
        mean = (hidden * visible[..., None]).sum(dim=1) / (visible.sum(dim=1, keepdim=True) + 1e-5)
        logits: Tensor = self.output_proj(torch.cat((hidden[:, 0], mean), dim=1))
        return logits[:, 0]

    def freeze(self) -> None:
        """Keep the part of the input that no frame changes."""
        self.frozen_table = self._input_table().detach()

    def _input_table(self) -> Tensor:
        """What the input holds beside the frames, with positions and token type added: ``(2 max_frames + 2, C)``.

        One row for CLS; ``max_frames`` rows that are added to the frames; and ``max_frames + 1`` rows of which row n
        is the token behind n frames.
        """
        embeddings, (projection, norm) = self.bert.embeddings, self.frame_proj
        positions = embeddings.position_embeddings.weight[: self.max_frames + 2]
        positions = positions + embeddings.token_type_embeddings.weight[0]
        zero_frame = norm(projection.bias)[None]
        words = embeddings.word_embeddings.weight
        closing = torch.cat((zero_frame.expand(self.max_frames, -1), words[SEP_TOKEN, None]))
        return torch.cat((words[CLS_TOKEN, None] + positions[:1], positions[1:-1], closing + positions[1:]))


class _Bert(nn.Module):
    """A BERT encoder over input embeddings ``(B, T, C)``; ``mask`` ``(B, 1, 1, T)`` is added to the scores."""

    def __init__(self, embeddings: _Embeddings, layers: Sequence[_Layer], dim: int) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        # The checkpoints hold a pooler that the reference never runs.
        self.pooler = nn.ModuleDict({"dense": nn.Linear(dim, dim)})

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings.LayerNorm(tokens)
        for layer in self.encoder["layer"].children():
            hidden = layer(hidden, mask)
        return hidden


class _Embeddings(nn.Module):
    """The embedding tables and the LayerNorm behind them."""

    def __init__(self, dim: int, vocabulary_size: int, num_positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary_size, dim)
        self.position_embeddings = nn.Embedding(num_positions, dim)
        self.token_type_embeddings = nn.Embedding(2, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)


class _Layer(nn.Module):
    """A post-norm transformer layer."""

    def __init__(self, dim: int, intermediate_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _Attention(dim, num_heads), "output": _AddAndNorm(dim, dim)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, intermediate_dim)})
        self.output = _AddAndNorm(intermediate_dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        output: Tensor = self.output(functional.gelu(self.intermediate["dense"](hidden)), hidden)
        return output


class _AddAndNorm(nn.Module):
    """The end of a branch: a linear map, then LayerNorm of its sum with what went into the branch."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_dim, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, branch: Tensor, residual: Tensor) -> Tensor:
        output: Tensor = self.LayerNorm(self.dense(branch) + residual)
        return output


class _Attention(nn.Module):
    """Multi-head self-attention, without the projection of its output."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        head_dim = hidden.shape[-1] // self.num_heads
        q, k, v = (
            projection(hidden).unflatten(2, (self.num_heads, head_dim)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        scores = (q * head_dim**-0.5) @ k.transpose(-2, -1) + mask
        mixed: Tensor = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        return mixed
