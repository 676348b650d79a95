"""The recorded tiny models: the same classes as the full-size ones, with the recorded weights, inputs and outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.models.clip import ClipVisual
from engine.models.edit_score import EditScore
from engine.models.swinv2 import SwinV2Descriptor
from engine.models.vit import VitDescriptor
from tests.conftest import golden_root, recorded

RELATIVE_ERROR = 1e-5
"""Float32 against float32 of the reference, the largest difference over the largest value; all are below 1e-6."""


@dataclass(frozen=True)
class GoldenModel:
    model: nn.Module
    arrays: dict[str, Tensor]


def golden_names(prefix: str) -> list[Any]:
    """The recorded models of a kind that this run has, as parameters."""
    return recorded(sorted(path.stem for path in (golden_root() / "models").glob(f"{prefix}*.json")))


def load_golden_model(name: str) -> GoldenModel:
    """The model in evaluation mode, its weights loaded by name without exception."""
    folder = golden_root() / "models"
    model = _build(name, json.loads((folder / f"{name}.json").read_text()))
    model.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=True)
    with np.load(folder / f"{name}.npz") as arrays:
        return GoldenModel(model.eval(), {key: torch.from_numpy(arrays[key]) for key in arrays.files})


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def _build(name: str, values: dict[str, Any]) -> nn.Module:
    if name.startswith("swinv2"):
        assert values.pop("p") == 3
        return SwinV2Descriptor(**values)
    if name.startswith("vit"):
        return VitDescriptor(**{key: values[key] for key in values if key not in ("head", "mlp_ratio")})
    if name.startswith("clip"):
        return ClipVisual(**{key: values[key] for key in values if key != "output_dim"})
    bert = values["bert"]
    return EditScore(
        feature_dim=values["feat_dim"],
        hidden_dim=bert["hidden_size"],
        intermediate_dim=bert["intermediate_size"],
        num_layers=bert["num_hidden_layers"],
        num_heads=bert["num_attention_heads"],
        max_frames=values["max_frames"],
        vocabulary_size=bert["vocab_size"],
        num_positions=bert["max_position_embeddings"],
    )
