"""``python -m training.unpack --output FILE``: the descriptor weights of the package as a checkpoint to start from.

What `training.pack` wrote is a graph with weights as float16; here they are float32 again, under their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import torch
import typer
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.build.packaged import packaged_folder
from engine.config import load_preset
from engine.console import say
from engine.errors import ConfigError, EngineError
from engine.files import written_aside
from engine.models.descriptor import build_descriptor_model

_PREFIXES = ("members.0.1.", "model.")
"""Before the names in a graph; the second where the model gives edit features too."""
_FLOAT16 = ".float16"
"""What `engine.build.onnx_graph.store_float16` adds to the name of what it rounds."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Checkpoint to write (.safetensors).")],
    preset: Annotated[str, typer.Option(help="Name of a preset whose weights are in the package.")] = "lite",
    folder: Annotated[
        Path | None, typer.Option(help="Folder that training.pack wrote; default: the package's.")
    ] = None,
) -> None:
    """Write the weights of the first descriptor model of a preset."""
    try:
        settings = load_preset(preset)
        if folder is None and settings.weights is None:
            raise ConfigError(f"preset {settings.name!r} names no weights of the package; give --folder")
        model = build_descriptor_model(settings.models[0].architecture)
        tensors = unpack((folder or packaged_folder(str(settings.weights))) / "ensemble.onnx", model)
        output.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(output) as aside:
            save_file(tensors, aside)
    except EngineError as error:
        say(f"unpack: {error}")
        raise typer.Exit(1) from error


def unpack(graph: Path, model: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``model`` as the graph of its ensemble holds them, float32, under the model's names.

    Raises ``ConfigError`` where the graph lacks one or holds it in another shape.
    """
    stored = {}
    for tensor in onnx.load(str(graph)).graph.initializer:
        name = tensor.name.removesuffix(_FLOAT16)
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        stored[name] = tensor
    tensors = {}
    for name, expected in model.state_dict().items():
        if name not in stored or tuple(stored[name].dims) != tuple(expected.shape):
            raise ConfigError(f"{graph} holds no {name} of shape {tuple(expected.shape)}: it is of another model")
        tensors[name] = torch.from_numpy(np.array(numpy_helper.to_array(stored[name]), np.float32))
    return tensors


if __name__ == "__main__":
    app()
