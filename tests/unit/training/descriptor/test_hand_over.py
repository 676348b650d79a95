"""What training hands over is a preset that the engine reads, whatever the recipe is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import NoGate, load_preset
from tests.training_runs import tiny_recipe
from training.descriptor.config import TrainingPreset
from training.descriptor.hand_over import PRESET, write_engine_preset


@pytest.mark.parametrize(
    "name",
    ["lite", 'my "best" run', "back\\slash", "two\nlines", "'''", "l'été \N{GRINNING FACE}", "[[models]]", "\x7f\t"],
)
def test_the_engine_reads_the_preset(name: str, tmp_path: Path) -> None:
    recipe = TrainingPreset.model_validate(tiny_recipe() | {"name": name})
    write_engine_preset(tmp_path, recipe, checkpoint='best "ever".safetensors')
    preset = load_preset(tmp_path / PRESET)
    [model] = preset.models
    assert (preset.name, model.name, model.checkpoint) == (name, name, 'best "ever".safetensors')
    assert (model.architecture, model.input_px) == (recipe.model.architecture, recipe.model.input_px)
    assert (model.mean, model.std) == (recipe.model.mean, recipe.model.std)
    assert isinstance(preset.gate, NoGate)
