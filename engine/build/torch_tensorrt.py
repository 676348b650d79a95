"""Converts the PyTorch programs of a preset to TensorRT engines with Torch-TensorRT: the second way in.

For models with operations that the ONNX route cannot take; where it can, its engines are faster (see the README). Needs
TensorRT for data centres and a GPU.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch_tensorrt
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from engine.build.export import Program, Weights, graph_program
from engine.build.onnx_graph import DESCRIPTOR
from engine.config import Preset
from engine.projection import Pca
from engine.runtime.manifest import RowProfile


def convert_graph(
    name: str, *, preset: Preset, weights: Weights, pca: Pca | None, profile: RowProfile, path: Path
) -> float:
    """Write the serialized engine of graph ``name`` and return the seconds that it took.

    Inputs and outputs are those of the exported graph, with ``descriptor`` ``(n, K)`` where a PCA is given. The
    program is converted as it is, in float32.
    """
    program = graph_program(name, preset=preset, weights=weights)
    module = program.module if pca is None else _WithPca(program.module, pca)
    outputs = [*program.outputs] if pca is None else [*program.outputs, DESCRIPTOR]
    start_s = time.perf_counter()
    example = tuple(tensor.cuda() for tensor in program.inputs[1].values())
    exported = torch.export.export(module.cuda(), example, dynamic_shapes=program.rows)
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        exported,
        arg_inputs=_inputs(program, profile),
        # The names stand in the structure of the program's arguments and results.
        arg_input_binding_names=tuple(program.inputs[1]),
        output_binding_names=tree_unflatten(outputs, exported.call_spec.out_spec),
        require_full_compilation=True,
    )
    path.write_bytes(engine)
    return time.perf_counter() - start_s


class _WithPca(nn.Module):
    """Adds the projection of the first output, the embedding, as the last."""

    weight: Tensor
    bias: Tensor

    def __init__(self, module: nn.Module, pca: Pca) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("weight", torch.from_numpy(pca.weight))
        self.register_buffer("bias", torch.from_numpy(pca.bias))

    def forward(self, *frames: Tensor) -> tuple[Tensor, ...]:
        outputs = self.module(*frames)
        return *outputs, torch.addmm(self.bias, outputs[0], self.weight)


def _inputs(program: Program, profile: RowProfile) -> list[Any]:
    rows = {"min_shape": profile.min_rows, "opt_shape": profile.opt_rows, "max_shape": profile.max_rows}
    return [
        torch_tensorrt.Input(
            **{key: (count, *tensor.shape[1:]) for key, count in rows.items()}, dtype=tensor.dtype, name=name
        )
        for name, tensor in program.inputs[1].items()
    ]
