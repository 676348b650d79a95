"""What a build asks of the backends: the interface of a compiler, and the options of TensorRT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.build.directory import BuildDirectory
from engine.projection import Pca
from engine.runtime.manifest import CompiledEngine, Flavour, Frontend, Graph, PrecisionChoice, RowProfile

DEFAULT_COMPUTE_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""Built for where TensorRT-RTX is not told for which GPUs: all of its targets but 7.5, see `engine.build.turing`.

The engine of lite has 27,201,020 bytes, 16 more than one for 8.6 and 8.9 alone.
"""


class Compiler(Protocol):
    """Compiles the graphs of one build for one backend."""

    def compile(
        self, directory: BuildDirectory, name: str, graphs: Mapping[str, Graph], *, pca: Pca | None
    ) -> CompiledEngine:
        """The engine of graph ``name``, unless it is there; ``pca`` is folded into it.

        Raises ``EngineError`` if the engine does not compute what PyTorch computed.
        """


class Converter(Protocol):
    """Converts graph ``name`` of a preset from its PyTorch program: writes an engine, returns the seconds it took."""

    def __call__(self, name: str, *, pca: Pca | None, profile: RowProfile, path: Path) -> float:  # noqa: D102 - see the class
        ...


@dataclass(frozen=True)
class TensorRtOptions:
    """What is asked of TensorRT.

    ``flavour``: None takes the one that is installed, that for data centres first. ``compute_capabilities``: GPUs that
    TensorRT-RTX builds for, such as ``8.6``; none takes `DEFAULT_COMPUTE_CAPABILITIES`. ``precision``: ``auto`` takes
    float16 for each model that the comparison allows it for, ``fp16`` fails where it does not, ``fp32`` does not
    compare. ``max_batch``: the largest number of frames in one call, for which the engine is tuned.
    """

    flavour: Flavour | None = None
    compute_capabilities: tuple[str, ...] = ()
    precision: PrecisionChoice = "auto"
    frontend: Frontend = "onnx"
    max_batch: int = 32
