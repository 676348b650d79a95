"""EfficientNet-Lite0 with batch normalization folded into its convolutions, and the copy descriptor made of it.

EfficientNet-Lite is EfficientNet (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, for phones and CPUs.
Folded, it has half the layers to run and to differentiate; it is trained folded, too, from the ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.pooling import gem

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
BATCH_NORM_EPS = 1e-3


class Stage(NamedTuple):
    """Blocks of one shape; the stride is that of the first block."""

    kernel_px: int
    stride: int
    expansion: int
    channels: int
    num_blocks: int


LITE0_STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution with bias whose output has ``ceil(input / stride)`` pixels a side, as TensorFlow pads it."""

    def __init__(self, inputs: int, outputs: int, kernel_px: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel_px, stride=stride, groups=groups, bias=True)

    def forward(self, values: Tensor) -> Tensor:
        """Pad as needed, more at the bottom and the right where the padding is odd, and convolve."""
        kernel_px, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            padding = (kernel_px - 1) // 2
            return functional.conv2d(values, self.weight, self.bias, padding=padding, groups=self.groups)
        vertical, horizontal = (_padding(side, kernel_px, stride) for side in values.shape[2:])
        padded = functional.pad(values, [*horizontal, *vertical])
        return functional.conv2d(padded, self.weight, self.bias, stride=stride, groups=self.groups)


def _padding(side_px: int, kernel_px: int, stride: int) -> tuple[int, int]:
    total = max(0, (-(-side_px // stride) - 1) * stride + kernel_px - side_px)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel, project (1x1); added to the input where the shapes allow it."""

    def __init__(self, inputs: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        hidden = inputs * stage.expansion
        self.expand = SameConv2d(inputs, hidden, 1) if stage.expansion > 1 else None
        self.depthwise = SameConv2d(hidden, hidden, stage.kernel_px, stride=stride, groups=hidden)
        self.project = SameConv2d(hidden, stage.channels, 1)
        self.is_residual = stride == 1 and inputs == stage.channels

    def forward(self, values: Tensor) -> Tensor:  # noqa: D102 - see the class
        hidden = values if self.expand is None else functional.relu6(self.expand(values))
        projected: Tensor = self.project(functional.relu6(self.depthwise(hidden)))
        return projected + values if self.is_residual else projected


class EfficientNetLite0(nn.Module):
    """Frames, float ``(B, 3, H, W)`` -> features ``(B, 1280, ceil(H / 32), ceil(W / 32))``, not negative."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = STEM_CHANNELS
        for stage in LITE0_STAGES:
            blocks = []
            for index in range(stage.num_blocks):
                blocks.append(InvertedResidual(channels, stage, stride=stage.stride if index == 0 else 1))
                channels = stage.channels
            self.stages.append(nn.Sequential(*blocks))
        self.head = SameConv2d(channels, HEAD_CHANNELS, 1)

    def forward(self, frames: Tensor) -> Tensor:  # noqa: D102 - see the class
        for values in self.maps(frames):
            features = values
        return features

    def maps(self, frames: Tensor) -> Iterator[Tensor]:
        """Yield what the stem, each stage and the head give for the frames, ``(B, C, H, W)`` each."""
        values = functional.relu6(self.stem(frames))
        yield values
        for stage in self.stages:
            values = stage(values)
            yield values
        yield functional.relu6(self.head(values))


class EfficientNetLiteDescriptor(nn.Module):
    """Normalized frames, float ``(B, 3, px, px)`` -> embeddings ``(B, 512)``: backbone, GeM pooling, projection."""

    def __init__(self, *, output_dim: int = 512) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        self.projection = nn.Linear(HEAD_CHANNELS, output_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """The embeddings of a batch of frames, not L2-normalized."""
        return self.embed(self.backbone(frames))

    def embed(self, features: Tensor) -> Tensor:
        """The embeddings that belong to features of the backbone, ``(B, 1280, H, W)``."""
        pooled = gem(features.float(), dim=(2, 3))
        embeddings: Tensor = self.projection(pooled)
        return embeddings


def fold_batch_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Kernels and biases of convolutions, in order, from the tensors of a network that normalizes each convolution.

    ``tensors`` come in groups of six: kernel ``(O, I, h, w)``, then scale, shift, running mean and running variance
    ``(O,)``, and the number of batches. Raises ``ValueError`` where the number of tensors or a shape does not fit.
    """
    if len(tensors) % 6:
        raise ValueError(f"expected six tensors for each convolution, got {len(tensors)} in all")
    folded = []
    for start in range(0, len(tensors), 6):
        kernel, scale, shift, mean, variance = (tensor.double() for tensor in tensors[start : start + 5])
        if kernel.ndim != 4 or any(part.shape != kernel.shape[:1] for part in (scale, shift, mean, variance)):
            shapes = [tuple(tensor.shape) for tensor in tensors[start : start + 6]]
            raise ValueError(f"expected a kernel and its batch normalization, got shapes {shapes}")
        factor = scale / torch.sqrt(variance + BATCH_NORM_EPS)
        folded += [(kernel * factor.reshape(-1, 1, 1, 1)).float(), (shift - mean * factor).float()]
    return folded
