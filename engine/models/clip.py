"""The visual tower of CLIP, up to the class token: the edit gate's view of a frame. Weights come from outside.

CLIP (Radford et al., arXiv 2103.00020). Parameter names are those of the reference's checkpoint, which are those of
the original release without the final projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ClipVisual(nn.Module):
    """Normalized frames, float ``(B, 3, input_resolution, input_resolution)`` -> class tokens ``(B, width)``."""

    def __init__(self, *, input_resolution: int, patch_size: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        num_tokens = (input_resolution // patch_size) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(num_tokens, width))
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(_Block(width, heads) for _ in range(layers))})
        self.ln_post = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        """The features of a batch of frames."""
        patches = self.conv1(frames).flatten(2).transpose(1, 2)
        opening = self.class_embedding.expand(patches.shape[0], 1, -1)
        tokens = self.ln_pre(torch.cat((opening, patches), dim=1) + self.positional_embedding)
        *blocks, last = self.transformer["resblocks"].children()
        for block in blocks:
            tokens = block(tokens)
        # Only the class token is read, so the last block computes no other.
        features: Tensor = self.ln_post(last(tokens, num_kept=1)[:, 0])
        return features


class _Block(nn.Module):
    """A pre-norm transformer block on tokens ``(B, N, C)``, giving all of them or the ``num_kept`` first."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = _Attention(dim, num_heads)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(dim, 4 * dim), "c_proj": nn.Linear(4 * dim, dim)})

    def forward(self, tokens: Tensor, num_kept: int | None = None) -> Tensor:
        kept = tokens[:, :num_kept] + self.attn(self.ln_1(tokens), num_kept)
        hidden = self.mlp["c_fc"](self.ln_2(kept))
        # "Quick" GELU: CLIP was trained with this approximation, not with erf.
        output: Tensor = kept + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))
        return output


class _Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `torch.nn.MultiheadAttention`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor, num_kept: int | None) -> Tensor:
        _, num_tokens, dim = tokens.shape
        qkv = functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.reshape(-1, num_tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = q[:, :, :num_kept] * (dim // self.num_heads) ** -0.5
        mixed = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output
