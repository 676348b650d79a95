"""SwinV2, pooled and projected: three of the reference's four descriptor models. Weights come from outside.

Swin Transformer V2 (Liu et al., arXiv 2111.09883). Parameter and buffer names are those of the reference's
checkpoints. What depends on the weights alone, the continuous relative position bias, can be frozen into a constant
before export (`freeze`).

Shape legend: B frames, H and W tokens of a stage, C channels, N tokens of one window, nW windows of a frame.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.freezing import Freezable
from engine.models.pooling import gem

MAX_LOGIT_SCALE = math.log(100.0)
POSITION_BIAS_RANGE = 16.0
POSITION_MLP_WIDTH = 512
MASKED_SCORE = -100.0
LENGTH_FLOOR = 1e-12


class SwinV2Descriptor(nn.Module):
    """Normalized frames, float ``(B, 3, img_size, img_size)`` -> embeddings ``(B, output_dim)``, not L2-normalized.

    A stage no larger than the window is one window. ``pretrained_window_sizes`` scale the relative coordinates that
    the position bias is computed from.
    """

    def __init__(
        self,
        *,
        img_size: int,
        patch_size: int,
        window_size: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        pretrained_window_sizes: Sequence[int],
        output_dim: int,
    ) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(patch_size=patch_size, dim=embed_dim)
        self.layers = nn.ModuleList(
            _Stage(
                dim=embed_dim << index,
                side=img_size // patch_size >> index,
                depth=depths[index],
                num_heads=num_heads[index],
                window_size=window_size,
                pretrained_window_size=pretrained_window_sizes[index],
                merges=index < len(depths) - 1,
            )
            for index in range(len(depths))
        )
        width = embed_dim << len(depths) - 1
        self.norm = nn.LayerNorm(width)
        self.output_proj = nn.Linear(width, output_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """The embeddings of a batch of frames."""
        tokens = self.patch_embed(frames)
        for stage in self.layers:
            tokens = stage(tokens)
        embedding: Tensor = self.output_proj(gem(self.norm(tokens), dim=(1, 2)))
        return embedding


class _PatchEmbed(nn.Module):
    """Frames ``(B, 3, pixels, pixels)`` -> tokens ``(B, H, W, C)``."""

    def __init__(self, *, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(frames).permute(0, 2, 3, 1))
        return tokens


class _Stage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows; then patch merging, except at the end."""

    def __init__(
        self,
        *,
        dim: int,
        side: int,
        depth: int,
        num_heads: int,
        window_size: int,
        pretrained_window_size: int,
        merges: bool,
    ) -> None:
        super().__init__()
        window = min(window_size, side)
        shift = window_size // 2 if side > window_size else 0
        self.blocks = nn.ModuleList(
            _Block(
                dim=dim,
                side=side,
                num_heads=num_heads,
                window=window,
                shift=shift * (index % 2),
                pretrained_window=pretrained_window_size,
            )
            for index in range(depth)
        )
        self.downsample = _PatchMerging(dim) if merges else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        merged: Tensor = self.downsample(tokens)
        return merged


class _PatchMerging(nn.Module):
    """Four neighbouring tokens become one of twice the width: ``(B, H, W, C)`` -> ``(B, H / 2, W / 2, 2 C)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        _, side, _, dim = tokens.shape
        pairs = tokens.reshape(-1, side // 2, 2, side // 2, 2, dim)
        # The channels of the four are laid out column-major: (row, column) = (0, 0), (1, 0), (0, 1), (1, 1).
        quads = pairs.permute(0, 1, 3, 4, 2, 5).reshape(-1, side // 2, side // 2, 4 * dim)
        merged: Tensor = self.norm(self.reduction(quads))
        return merged


class _Block(Freezable):
    """Window attention and an MLP, each normalized *after* the branch ("res-post-norm"); tokens ``(B, H, W, C)``."""

    attn_mask: Tensor | None
    frozen_bias: Tensor | None

    def __init__(self, *, dim: int, side: int, num_heads: int, window: int, shift: int, pretrained_window: int) -> None:
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _WindowAttention(dim=dim, window=window, num_heads=num_heads, pretrained_window=pretrained_window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(dim, 4 * dim), gelu=nn.GELU(), fc2=nn.Linear(4 * dim, dim)))
        self.register_buffer("attn_mask", _shift_mask(side=side, window=window, shift=shift) if shift else None)
        self.register_buffer("frozen_bias", None, persistent=False)

    def freeze(self) -> None:
        """Keep the position bias."""
        self.frozen_bias = self.attn.position_bias(self.attn_mask).detach()

    def forward(self, tokens: Tensor) -> Tensor:
        bias = self.attn.position_bias(self.attn_mask) if self.frozen_bias is None else self.frozen_bias
        tokens = tokens + self.norm1(self._attend(tokens, bias))
        output: Tensor = tokens + self.norm2(self.mlp(tokens))
        return output

    def _attend(self, tokens: Tensor, bias: Tensor) -> Tensor:
        if self.shift == 0:
            return self._merge(self.attn(self._partition(tokens), bias))
        shifted = torch.roll(tokens, shifts=(-self.shift, -self.shift), dims=(1, 2))
        attended = self._merge(self.attn(self._partition(shifted), bias))
        return torch.roll(attended, shifts=(self.shift, self.shift), dims=(1, 2))

    def _partition(self, tokens: Tensor) -> Tensor:
        """``(B, H, W, C)`` -> windows in reading order ``(B nW, N, C)``."""
        across, dim = self.side // self.window, tokens.shape[-1]
        grid = tokens.reshape(-1, across, self.window, across, self.window, dim)
        return grid.transpose(2, 3).reshape(-1, self.window * self.window, dim)

    def _merge(self, windows: Tensor) -> Tensor:
        """The inverse of `_partition`."""
        across, dim = self.side // self.window, windows.shape[-1]
        grid = windows.reshape(-1, across, across, self.window, self.window, dim)
        return grid.transpose(2, 3).reshape(-1, self.side, self.side, dim)


class _WindowAttention(nn.Module):
    """Scaled cosine attention within windows ``(B nW, N, C)``, with a relative position bias added to the scores."""

    relative_coords_table: Tensor
    relative_position_index: Tensor

    def __init__(self, *, dim: int, window: int, num_heads: int, pretrained_window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, POSITION_MLP_WIDTH), nn.ReLU(), nn.Linear(POSITION_MLP_WIDTH, num_heads, bias=False)
        )
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("relative_coords_table", _log_spaced_offsets(window, pretrained_window))
        self.register_buffer("relative_position_index", _offset_index(window))

    def position_bias(self, mask: Tensor | None) -> Tensor:
        """What is added to the scores: ``(1, heads, N, N)``, or ``(1, nW heads, N, N)`` where a mask joins it."""
        table = self.cpb_mlp(self.relative_coords_table).reshape(-1, self.num_heads)
        bias = POSITION_BIAS_RANGE * torch.sigmoid(table)[self.relative_position_index].permute(2, 0, 1)
        if mask is None:
            return bias[None]
        return (bias + mask[:, None]).flatten(0, 1)[None]

    def forward(self, windows: Tensor, bias: Tensor) -> Tensor:
        _, num_tokens, dim = windows.shape
        head_dim = dim // self.num_heads
        qkv_bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = functional.linear(windows, self.qkv.weight, qkv_bias)
        q, k, v = qkv.reshape(-1, num_tokens, 3, self.num_heads, head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        q, k = q * (scale / _length(q)), k / _length(k)
        # A bias that differs from window to window stands for all heads of all windows of a frame.
        q, k, v = (heads.reshape(-1, bias.shape[1], num_tokens, head_dim) for heads in (q, k, v))
        mixed = (q @ k.transpose(-2, -1) + bias).softmax(dim=-1) @ v
        mixed = mixed.reshape(-1, self.num_heads, num_tokens, head_dim)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, num_tokens, dim))
        return output


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return length.clamp(min=LENGTH_FLOOR)


def _log_spaced_offsets(window: int, pretrained_window: int) -> Tensor:
    """Row and column offset of each relative position, log-spaced: ``(1, 2 window - 1, 2 window - 1, 2)``."""
    offsets = torch.arange(-(window - 1), window, dtype=torch.float32) / (pretrained_window - 1) * 8
    spaced = offsets.sign() * torch.log2(offsets.abs() + 1) / math.log2(8)
    return torch.stack(torch.meshgrid(spaced, spaced, indexing="ij"), dim=-1)[None]


def _offset_index(window: int) -> Tensor:
    """For each pair of tokens of a window its row in the flattened table of offsets: int64 ``(N, N)``."""
    tokens = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    offsets = tokens[:, None] - tokens[None] + window - 1
    return offsets[..., 0] * (2 * window - 1) + offsets[..., 1]


def _shift_mask(*, side: int, window: int, shift: int) -> Tensor:
    """Keeps tokens apart that the cyclic shift made neighbours: 0 or -100, ``(nW, N, N)``."""
    position = torch.arange(side)
    band = (position >= side - window).int() + (position >= side - shift).int()
    part = (3 * band[:, None] + band).reshape(side // window, window, side // window, window)
    part = part.transpose(1, 2).reshape(-1, window * window)
    return (part[:, :, None] != part[:, None]).float() * MASKED_SCORE
