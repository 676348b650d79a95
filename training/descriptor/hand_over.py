"""Hands a trained model over to ``build_engines.py``: a preset of the engine that names its weights and its input."""

from __future__ import annotations

from pathlib import Path

import tomli_w

from engine.config import load_preset
from engine.files import written_aside
from training.descriptor.config import TrainingPreset

PRESET = "preset.toml"


def write_engine_preset(folder: Path, preset: TrainingPreset, *, checkpoint: str) -> None:
    """Write ``preset.toml`` beside the weights ``checkpoint``, for ``build_engines.py --preset``.

    The gate is off; scenes, near-duplicates, PCA and score normalization are those of the engine's defaults. Raises
    ``ConfigError`` for what the engine does not take.
    """
    model = preset.model.model_dump(mode="json", include={"architecture", "input_px", "mean", "std"})
    values = {
        "name": preset.name,
        "models": [{"name": preset.name, "checkpoint": checkpoint, **model}],
        "gate": {"mode": "off"},
        "scenes": {},
        "near_duplicates": {},
        "pca": {},
        "score_norm": {},
    }
    path = folder / PRESET
    with written_aside(path) as aside:
        aside.write_text(tomli_w.dumps(values), encoding="utf-8")
    load_preset(path)
