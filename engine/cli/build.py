"""``vsc-engine build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.cli.options import PresetOption, goes_on, only_local
from engine.console import as_utf8, say
from engine.errors import ConfigError


def build(
    output: Annotated[Path, typer.Option(help="Engines directory to write.", callback=only_local)],
    preset: PresetOption = "lite",
    checkpoints: Annotated[Path | None, typer.Option(help="Folder with the reference solution's checkpoints.")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Seeded random weights.")] = False,
    backend: Annotated[Literal["openvino", "tensorrt"], typer.Option(help="What runs the engines.")] = "openvino",
    pca: Annotated[Path | None, typer.Option(help="Fitted PCA to fold in: .npz, or the reference's .pkl.")] = None,
    flavour: Annotated[
        Literal["tensorrt", "tensorrt_rtx"] | None,
        typer.Option(help="TensorRT for data centres, or TensorRT-RTX; default: the one that is installed."),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="GPUs that TensorRT-RTX builds for (default: 8.0 8.6 8.9 12.0 12.1). Need not be there."),
    ] = None,
    more_capabilities: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="CAPABILITY")] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"] | None,
        typer.Option(
            help="CPU: fp32 (default), or bf16 where the CPU has it. TensorRT: fp16 or fp32. auto (TensorRT's default) "
            "takes the lower one for the models that a comparison allows it for."
        ),
    ] = None,
    frontend: Annotated[
        Literal["onnx", "torch-tensorrt"] | None, typer.Option(help="TensorRT: what reads the models; default: onnx.")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="TensorRT: frames in one call; default: 32.")] = None,
) -> None:
    """Export the models of a preset, check the graphs against PyTorch, compile them.

    Example: vsc-engine build --preset vsc22 --checkpoints weights/ --output engines/
    """
    from engine.build.compiler import TensorRtOptions
    from engine.build.engines import build_engines
    from engine.config import load_preset

    # The parser gives an option one value; of `--compute-capability 8.6 8.9` the rest arrives as arguments.
    if more_capabilities and not compute_capability:
        raise ConfigError(f"unexpected arguments: {' '.join(more_capabilities)}")
    given: dict[str, Any] = {
        "flavour": flavour,
        "compute_capabilities": tuple(dict.fromkeys([*(compute_capability or ()), *(more_capabilities or ())])),
        "precision": precision if backend == "tensorrt" else None,
        "frontend": frontend,
        "max_batch": max_batch,
    }
    options = {name: value for name, value in given.items() if value}
    if options and backend != "tensorrt":
        raise ConfigError(
            f"--flavour, --compute-capability, --frontend and --max-batch are for --backend tensorrt, not for {backend}"
        )
    with goes_on():
        build_engines(
            load_preset(preset),
            output,
            checkpoints=checkpoints,
            random_weights=random_weights,
            backend=backend,
            tensorrt=TensorRtOptions(**options),
            precision=precision or "fp32",
            pca=pca,
            progress=say,
        )
    print(as_utf8(str(output)))
