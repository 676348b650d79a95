"""Where the graphs of a build come from: exported from checkpoints, or weights that come with the package."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from engine.build.directory import BuildDirectory
from engine.build.packaged import GRAPH_SUFFIXES, PackagedWeights
from engine.config import Preset, graph_parts
from engine.errors import BackendUnavailable, ConfigError
from engine.projection import Pca, load_pca
from engine.runtime.manifest import Frontend, Graph, RowProfile, WeightsRecord, digest
from engine.store.norm_set import load_norm_set

_EXPORT_SUFFIXES = (".onnx", ".onnx.data", ".check.npz")
_EXPORT_LIBRARIES = ("torch", "timm", "onnx", "onnxscript")


@dataclass(frozen=True)
class ExportedGraphs:
    """Graphs exported with PyTorch; made by `open_exporter`. They bring no norm set."""

    exporter: ModuleType
    weights: Any
    preset: Preset
    records: dict[str, tuple[WeightsRecord, ...]]
    sha256: None = None
    norm_set: None = None

    @property
    def kind(self) -> Literal["checkpoints", "random"]:
        """Where the weights come from, for the manifest."""
        return "random" if self.weights.random else "checkpoints"

    def obtain(self, directory: BuildDirectory, name: str) -> Graph:
        """Export graph ``name`` unless it is there from the same weights, settings, code and libraries."""
        versions = library_versions(_EXPORT_LIBRARIES)
        part = graph_parts(self.preset)[name]
        hashes = [record.sha256 for record in self.records[name]]
        key = digest(self.exporter.source_digest(), name, part, hashes, versions)
        export = partial(self.exporter.export_graph, name, preset=self.preset, weights=self.weights)
        files = directory.obtain(f"graphs/{name}-{key}", _EXPORT_SUFFIXES, step=f"{name}: export", make=export)
        return Graph(key=key, files=files, weights=self.records[name], versions=versions)

    def pca(self) -> Pca | None:
        """The PCA that lies among the checkpoints, if there is one."""
        name = self.preset.pca.checkpoint
        if self.weights.folder is None or name is None or not (self.weights.folder / name).is_file():
            return None
        return load_any_pca(self.weights.folder / name)

    def convert(self, name: str, *, pca: Pca | None, profile: RowProfile, path: Path) -> float:
        """Convert graph ``name`` with Torch-TensorRT; see `engine.build.compiler.Converter`."""
        converter = import_torch_tensorrt()
        seconds: float = converter.convert_graph(
            name, preset=self.preset, weights=self.weights, pca=pca, profile=profile, path=path
        )
        return seconds


@dataclass(frozen=True)
class PackagedGraphs:
    """Graphs that come with the package; made by `open_packaged`. No PyTorch program is there to be converted."""

    weights: PackagedWeights
    kind: Literal["package"] = "package"
    convert: None = None

    @property
    def sha256(self) -> str:
        """Of the manifest of the package's weights."""
        return self.weights.sha256

    def obtain(self, directory: BuildDirectory, name: str) -> Graph:
        """Copy graph ``name`` and its recorded cases unless they are there."""
        manifest = self.weights.manifest
        sources = manifest.graphs[name]
        key = digest([file.sha256 for file in sources])

        def copy(path: Path) -> None:
            for source, suffix in zip(sources, GRAPH_SUFFIXES, strict=True):
                shutil.copyfile(self.weights.path(source), path.with_suffix(suffix))

        files = directory.obtain(f"graphs/{name}-{key}", GRAPH_SUFFIXES, step=f"{name}: copy", make=copy)
        weights = (WeightsRecord(checkpoint=sources[0].path, sha256=sources[0].sha256),)
        return Graph(key=key, files=files, weights=weights, versions=manifest.versions)

    def pca(self) -> Pca:
        """The PCA of the package's weights."""
        return load_pca(self.weights.path(self.weights.manifest.pca))

    @property
    def norm_set(self) -> Path:
        """The file with the norm set that fits this PCA, checked."""
        path = self.weights.path(self.weights.manifest.norm_set)
        load_norm_set(path)
        return path


GraphSource = ExportedGraphs | PackagedGraphs
"""Gives the graphs of one preset, and what comes with their weights."""


def open_packaged(preset: Preset, folder: Path) -> PackagedGraphs:
    """The graphs in ``folder`` for a preset. Raises ``ConfigError`` if there are none, or for other models."""
    weights = PackagedWeights.open(folder)
    if weights.manifest.parts != graph_parts(preset):
        raise ConfigError(
            f"the weights in {folder} are of other models than those of preset {preset.name!r}: change its [[models]] "
            "and [gate] back, or name your own weights (--checkpoints DIR)"
        )
    return PackagedGraphs(weights)


def open_exporter(
    preset: Preset, *, checkpoints: Path | None, random_weights: bool, frontend: Frontend = "onnx"
) -> ExportedGraphs:
    """An exporter of a preset's graphs, for which all weights are there. Says all that is missing at once."""
    exporter = import_exporter()
    if frontend == "torch-tensorrt":
        import_torch_tensorrt()
    weights = exporter.Weights(folder=checkpoints, random=random_weights)
    records, problems = {}, []
    for name in graph_parts(preset):
        found = []
        for checkpoint in exporter.checkpoints_of(name, preset):
            try:
                found.append(weights.record(checkpoint))
            except ConfigError:
                problems.append(checkpoint)
        records[name] = tuple(found)
    if problems:
        absent = f", which {checkpoints} does not hold" if checkpoints else ""
        raise ConfigError(
            f"preset {preset.name!r} needs these checkpoints{absent}: {', '.join(problems)}. Name the folder with them "
            "(--checkpoints DIR), try the engines with random weights (--random-weights), or take preset 'lite', whose "
            "weights come with the package"
        )
    return ExportedGraphs(exporter, weights, preset, records)


def load_any_pca(path: Path) -> Pca:
    """A PCA of ours (``.npz``), or a pickle of scikit-learn's, for which torch must be installed."""
    if path.suffix == ".npz":
        return load_pca(path)
    import_exporter()
    from engine.models.checkpoints import load_pca_pickle

    return load_pca_pickle(path)


def import_exporter() -> ModuleType:
    """`engine.build.export`. Raises ``BackendUnavailable`` if torch or another of its libraries is not installed."""
    try:
        from engine.build import export
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"building engines needs {error.name}: pip install 'vsc-engine[build]'") from error
    return export


def import_torch_tensorrt() -> ModuleType:
    """`engine.build.torch_tensorrt`. Raises ``BackendUnavailable`` if it is not installed, or cannot be loaded."""
    try:
        from engine.build import torch_tensorrt
    except (ImportError, RuntimeError) as error:  # RuntimeError: it asks for a GPU when it is imported
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"--frontend torch-tensorrt cannot be used ({reason}): pip install 'vsc-engine[build,torch-tensorrt]', "
            "on a machine with a GPU"
        ) from error
    return torch_tensorrt


def library_versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """The installed versions. Raises ``BackendUnavailable`` if one is not installed."""
    try:
        return {library: metadata.version(library) for library in libraries}
    except metadata.PackageNotFoundError as error:
        raise BackendUnavailable(f"building engines needs {error.name}: pip install 'vsc-engine[build]'") from error
