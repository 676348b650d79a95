"""Builds the descriptor models of the ensemble by the name of their architecture."""

from __future__ import annotations

from typing import assert_never

from torch import nn

from engine.config import DescriptorArchitecture
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor
from engine.models.swinv2 import SwinV2Descriptor


def build_descriptor_model(architecture: DescriptorArchitecture) -> nn.Module:
    """A model of the ensemble with untrained weights, in training mode.

    Takes normalized frames, float ``(B, 3, input_px, input_px)``; returns embeddings ``(B, D)``, not L2-normalized.
    ``input_px`` is 256, 384 and 224, and any for a ResNet, in the order of `DescriptorArchitecture`; D is 512.
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
            from engine.models.vit import VitDescriptor  # timm takes two seconds to import, and no other model needs it

            return VitDescriptor(img_size=384, patch_size=32, embed_dim=768, depth=12, num_heads=12, output_dim=512)
        case "efficientnet_lite0_gem512":
            return EfficientNetLiteDescriptor()
        case "resnet50_gem512":
            from engine.models.resnet import ResNet50Descriptor  # torchvision, which no other model needs

            return ResNet50Descriptor()
        case _:
            assert_never(architecture)
