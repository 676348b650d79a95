"""Builds the descriptor models of the ensemble by the name of their architecture. Knows nothing of weights or files."""

from __future__ import annotations

from typing import assert_never

import timm
from torch import Tensor, nn

from engine.config import DescriptorArchitecture
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor
from engine.models.pooling import gem
from engine.models.swinv2 import SwinV2Descriptor
from engine.models.vit import VitDescriptor


def build_descriptor_model(architecture: DescriptorArchitecture) -> nn.Module:
    """A model of the ensemble with untrained weights, in training mode.

    Takes normalized frames, float ``(B, 3, input_px, input_px)``; returns embeddings ``(B, D)``, not L2-normalized.
    ``input_px`` is 256, 384, 224 and 224 and D is 512, 512, 1280 and 512, in the order of `DescriptorArchitecture`.
    """
    match architecture:
        case "swinv2_base_w16_256":
            return SwinV2Descriptor(
                img_size=256,
                patch_size=4,
                window_size=16,
                embed_dim=128,
                depths=(2, 2, 18, 2),
                num_heads=(4, 8, 16, 32),
                pretrained_window_sizes=(12, 12, 12, 6),
                output_dim=512,
            )
        case "vit_base_patch32_384":
            return VitDescriptor(img_size=384, patch_size=32, embed_dim=768, depth=12, num_heads=12, output_dim=512)
        case "efficientnet_lite0":
            return EfficientNetLiteFeatures()
        case "efficientnet_lite0_gem512":
            return EfficientNetLiteDescriptor()
        case _:
            assert_never(architecture)


class EfficientNetLiteFeatures(nn.Module):
    """Normalized frames, float ``(B, 3, 224, 224)`` -> GeM-pooled features ``(B, 1280)`` of EfficientNet-Lite0."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, global_pool="")

    def forward(self, frames: Tensor) -> Tensor:
        """The embeddings of a batch of frames."""
        return gem(self.backbone(frames), dim=(2, 3))
