"""Hands a trained model over to ``build_engines.py``: a preset of the engine that names its weights and its input."""

from __future__ import annotations

from pathlib import Path

from engine.config import load_preset
from engine.files import written_aside
from training.descriptor.config import TrainingPreset

PRESET = "preset.toml"


def write_engine_preset(folder: Path, preset: TrainingPreset, *, checkpoint: str) -> None:
    """Write ``preset.toml`` beside the weights ``checkpoint``, for ``build_engines.py --preset``.

    The gate is off; scenes, near-duplicates, PCA and score normalization are those of the engine's defaults.
    """
    model = preset.model
    text = f"""name = "{preset.name}"

[[models]]
name = "{preset.name}"
architecture = "{model.architecture}"
checkpoint = "{checkpoint}"
input_px = {model.input_px}
mean = {list(model.mean)}
std = {list(model.std)}

[gate]
mode = "off"

[scenes]

[near_duplicates]

[pca]

[score_norm]
"""
    path = folder / PRESET
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    load_preset(path)
