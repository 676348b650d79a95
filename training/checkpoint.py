"""The state of a training run in one file, replaced all at once: tensors, and JSON in the header of safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import StoreError
from engine.files import written_aside


def save_checkpoint(path: Path, *, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write named groups of tensors and JSON values."""
    flat = {
        f"{group}/{name}": value.contiguous() for group, values in tensors.items() for name, value in values.items()
    }
    with written_aside(path) as aside:
        save_file(flat, aside, metadata={"state": json.dumps(state)})


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors, and the JSON values. Raises ``StoreError`` for a damaged file."""
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                group, _, name = key.partition("/")
                tensors.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not a readable checkpoint ({error}); remove it to start anew") from error
    return tensors, dict(state)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state of a model as safetensors, as `engine.models.checkpoints.load_weights` reads it."""
    with written_aside(path) as aside:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, aside)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state as ``<parameter>.<name>``."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in states.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
