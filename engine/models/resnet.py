"""SSCD's ResNet-50 (Pizzi et al., arXiv 2202.10261): torchvision's network with GeM pooling and a linear layer.

Parameter names are those of the published ``sscd_disc_mixup.torchvision.pt``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import resnet50

from engine.models.pooling import gem


class ResNet50Descriptor(nn.Module):
    """Normalized frames, float ``(B, 3, H, W)`` -> embeddings ``(B, 512)``, not L2-normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50(num_classes=512)
        self.backbone.avgpool = _Gem()

    def forward(self, frames: Tensor) -> Tensor:
        """The embeddings of a batch of frames."""
        embedding: Tensor = self.backbone(frames)
        return embedding


class _Gem(nn.Module):
    """``(B, C, h, w)`` -> ``(B, C)``, which torchvision's network flattens to itself."""

    def forward(self, features: Tensor) -> Tensor:
        return gem(features, dim=(2, 3))
