"""``python -m training.descriptor.average FIRST SECOND --output FILE``: the mean of the weights of runs of one model.

Where the second run went on from the first, the mean is often better than either ("model soups", arXiv 2203.05482).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

from engine.console import say
from engine.errors import ConfigError, EngineError
from engine.files import written_aside
from engine.models.checkpoints import read_state

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints, two or more.")],
    output: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """Average the weights of runs of one model.

    Example: python -m training.descriptor.average one/best.safetensors two/best.safetensors --output mean.safetensors
    """
    try:
        averaged = average([read_state(path) for path in checkpoints])
        output.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(output) as aside:
            save_file(averaged, aside)
    except EngineError as error:
        say(f"average: {error}")
        raise typer.Exit(1) from error


def average(runs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the tensors of each name, computed in float64 and stored as they came.

    Raises ``ConfigError`` for fewer than two runs, and where names or shapes differ.
    """
    if len(runs) < 2:
        raise ConfigError(f"an average needs two checkpoints or more, got {len(runs)}")
    first, *others = ({name: tensor.shape for name, tensor in run.items()} for run in runs)
    for other in others:
        if different := sorted(name for name in first | other if first.get(name) != other.get(name)):
            raise ConfigError(
                f"the checkpoints are not of one model: {len(different)} tensors differ, such as {different[0]}"
            )
    mean = [tensor.to(torch.float64, copy=True) for tensor in runs[0].values()]
    add = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
    for num_averaged, run in enumerate(runs[1:], start=1):
        add(mean, [run[name].double() for name in runs[0]], num_averaged)
    return {name: value.to(tensor.dtype) for (name, tensor), value in zip(runs[0].items(), mean, strict=True)}


if __name__ == "__main__":
    app()
