"""A preset whose gate takes its features from the ensemble, as values and as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.config import EnsembleGate, Preset, parse_preset

THRESHOLD = 0.5


def gate_values(**changes: Any) -> dict[str, Any]:
    """The values of the preset; ``changes`` are of its gate."""
    gate = {
        "mode": "off",
        "architecture": "efficientnet_lite0_statistics",
        "model": "small",
        "score_architecture": "edit_score_pooled",
        "score_checkpoint": "edit_score.safetensors",
        "score_threshold": THRESHOLD,
        "max_frames": 256,
        "near_identical_cosine": 0.98,
    }
    model = {
        "name": "small",
        "architecture": "efficientnet_lite0_gem512",
        "checkpoint": "small.safetensors",
        "input_px": 128,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    return {
        "name": "gated",
        "models": [model],
        "gate": gate | changes,
        "scenes": {},
        "near_duplicates": {},
        "pca": {},
        "score_norm": {},
    }


def gate_preset(**changes: Any) -> Preset:
    """The preset; ``changes`` are of its gate."""
    return parse_preset(gate_values(**changes), source="tests")


def ensemble_gate(**changes: Any) -> EnsembleGate:
    """Its gate."""
    gate = gate_preset(**changes).gate
    assert isinstance(gate, EnsembleGate)
    return gate


def write_gate_preset(path: Path, **changes: Any) -> Path:
    """Write the preset as TOML."""
    values = gate_values(**changes)
    lines = [f'name = "{values["name"]}"']
    for name in ("gate", "scenes", "near_duplicates", "pca", "score_norm"):
        lines.append(f"[{name}]")
        # JSON writes these strings, numbers and lists as TOML does.
        lines += [f"{key} = {json.dumps(value)}" for key, value in values[name].items() if value is not None]
    lines.append("[[models]]")
    lines += [f"{key} = {json.dumps(value)}" for key, value in values["models"][0].items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
