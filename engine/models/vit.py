"""A ViT whose every token is pooled: the reference's fourth descriptor model. Weights come from outside.

The backbone is timm's `VisionTransformer`; the head follows SSCD (Pizzi et al., arXiv 2202.10261). Parameter names are
those of the reference's checkpoints.
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from engine.models.pooling import gem

HEAD_WIDTH = 2048


class VitDescriptor(nn.Module):
    """Normalized frames, float ``(B, 3, img_size, img_size)`` -> embeddings ``(B, output_dim)``, not L2-normalized.

    All tokens after the last LayerNorm, the class token among them, are widened to 2048 channels and pooled.
    """

    def __init__(
        self, *, img_size: int, patch_size: int, embed_dim: int, depth: int, num_heads: int, output_dim: int
    ) -> None:
        super().__init__()
        backbone = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            num_classes=0,
            global_pool="",
        )
        head = nn.Sequential(_WidenAndPool(embed_dim, HEAD_WIDTH), nn.Linear(HEAD_WIDTH, output_dim))
        self.model = nn.ModuleDict({"backbone": backbone, "embeddings": head})

    def forward(self, frames: Tensor) -> Tensor:
        """The embeddings of a batch of frames."""
        embedding: Tensor = self.model["embeddings"](self.model["backbone"](frames))
        return embedding


class _WidenAndPool(nn.Module):
    """Tokens ``(B, N, C)`` -> ``(B, width)``. The convolution has kernel 1: a linear map of each token."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, width, kernel_size=1)

    def forward(self, tokens: Tensor) -> Tensor:
        return gem(functional.linear(tokens, self.conv.weight[:, :, 0], self.conv.bias), dim=1)
