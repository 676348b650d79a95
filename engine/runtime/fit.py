"""Whether a compiled engine can run here, from what the manifest says of it. Imports no TensorRT and asks no driver.

Engines of TensorRT carry no usable check of their own: one for another version or another GPU fails late, or with a
text that says nothing to its user.
"""

from __future__ import annotations

from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import Flavour, TensorRtFacts, is_intact


def check_tensorrt_engine(
    directory: EnginesDirectory, name: str, *, flavour: Flavour, version: str, compute_capability: str
) -> TensorRtFacts:
    """The facts of engine ``name``, which fits TensorRT ``flavour`` ``version`` and a GPU like ``8.6``.

    Reads the whole file to compare its hash. Raises ``ConfigError`` that names the misfit and the command that builds
    an engine that fits.
    """
    manifest = directory.manifest
    engine = manifest.engines.get(name)
    path = directory.folder if engine is None else directory.path(engine.main)
    problem, facts = None, None if engine is None else engine.tensorrt
    if engine is None or facts is None:
        problem = f"{path} has no TensorRT engine {name!r}; it was built for {manifest.backend}"
    elif facts.flavour != flavour:
        problem = f"{path} was built by {facts.flavour} and cannot be loaded by {flavour}"
    elif facts.version != version:
        problem = f"{path} was built by {flavour} {facts.version}, and here is {flavour} {version}"
    elif compute_capability not in facts.compute_capabilities:
        built_for = ", ".join(facts.compute_capabilities)
        problem = f"{path} was built for GPUs of compute capability {built_for}, and this GPU has {compute_capability}"
    elif facts.graph_sha256 != manifest.graphs[name].files[0].sha256:
        problem = f"{path} was built from another graph than the one that the manifest names"
    elif not all(is_intact(file, directory=directory.folder) for file in engine.files):
        problem = f"{path} is missing or damaged: it is not the file that was built"
    if facts is not None and problem is None:
        return facts
    raise ConfigError(f"{problem}; {_advice(directory, flavour=flavour, capability=compute_capability)}")


def _advice(directory: EnginesDirectory, *, flavour: Flavour, capability: str) -> str:
    manifest = directory.manifest
    weights = {"checkpoints": " --checkpoints DIR", "random": " --random-weights", "package": ""}[manifest.weights]
    # Only TensorRT-RTX builds for a GPU that is not there.
    target = f" --compute-capability {capability}" if flavour == "tensorrt_rtx" else ""
    return (
        f"build it with `vsc-engine build --preset {manifest.preset.name}{weights} --backend tensorrt "
        f"--flavour {flavour}{target} --output {directory.folder}`"
    )
