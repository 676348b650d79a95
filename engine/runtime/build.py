"""Builds an engines directory: exports the graphs a preset needs, folds the PCA in, compiles, checks and records them.

Knows nothing of how models are made, graphs run or files kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args

import numpy as np

from engine.config import Preset
from engine.errors import BackendUnavailable, ConfigError
from engine.projection import Pca, load_pca, save_pca
from engine.runtime.artefacts import Artefacts, Progress, open_artefacts
from engine.runtime.check import Case, check_runner, load_cases
from engine.runtime.graph import fold_pca
from engine.runtime.manifest import (
    Backend,
    CompiledEngine,
    Graph,
    Manifest,
    PcaRecord,
    WeightsRecord,
    digest,
    graph_parts,
    read_manifest,
    record_file,
)

logger = logging.getLogger(__name__)

_GRAPH_SUFFIXES = (".onnx", ".onnx.data", ".check.npz")
_IR_SUFFIXES = (".xml", ".bin")
_GRAPH_LIBRARIES = ("torch", "timm", "onnx", "onnxscript")
_IR_LIBRARIES = ("openvino", "onnx")


def build_engines(
    preset: Preset,
    output: Path,
    *,
    checkpoints: Path | None = None,
    random_weights: bool = False,
    backend: str = "openvino",
    pca: Path | Pca | None = None,
    progress: Progress = logger.debug,
) -> Manifest:
    """Build what is missing in ``output`` for ``preset`` and return the manifest.

    ``checkpoints``: the folder with the files that the preset names; not needed where weights come with an installed
    package. ``random_weights``: seeded random weights instead, for trials of speed. ``pca``: a PCA or its file
    (``.npz``, or a pickle of scikit-learn's), instead of the one that may lie among the checkpoints.
    ``progress`` is called with lines for people.

    What is there from the same weights, settings, code and library versions is kept, also of a build that was killed.

    Raises ``ConfigError`` for an unknown backend, missing or wrong weights, a PCA of another size, a directory that
    cannot be written; ``BackendUnavailable`` if torch or the backend's library is not installed; ``EngineError`` if
    a graph does not compute what PyTorch computes.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"unknown backend {backend!r}; expected one of {list(get_args(Backend))}")
    if random_weights and checkpoints is not None:
        raise ConfigError(f"random weights and the checkpoints of {checkpoints} exclude each other; choose one")
    import engine.runtime.openvino  # noqa: F401 - if it is missing, say so now and not after minutes of export

    exporter = _import_exporter()
    weights = exporter.Weights(folder=checkpoints, random=random_weights)
    records = _find_weights(exporter, weights, preset)
    projection = _find_pca(preset, checkpoints=checkpoints, pca=pca)
    with open_artefacts(output, progress=progress) as artefacts:
        graphs = {}
        for name, part in graph_parts(preset).items():
            versions = _versions(_GRAPH_LIBRARIES)
            key = digest(exporter.source_digest(), name, part, [record.sha256 for record in records[name]], versions)
            export = partial(exporter.export_graph, name, preset=preset, weights=weights)
            files = artefacts.obtain(f"graphs/{name}-{key}", _GRAPH_SUFFIXES, step=f"{name}: export", make=export)
            graphs[name] = Graph(key=key, files=files, weights=records[name], versions=versions)
        manifest = Manifest(
            created=_now(),
            preset=preset,
            backend=cast(Backend, backend),
            weights="random" if random_weights else "checkpoints",
            graphs=graphs,
            engines={name: _compile(artefacts, name, graph, pca=projection) for name, graph in graphs.items()},
            pca=_keep_pca(artefacts, projection),
        )
        return artefacts.commit(manifest)


def set_pca(directory: Path, pca: Path | Pca, *, progress: Progress = logger.debug) -> Manifest:
    """Fold another PCA into the ensemble of existing engines and return the new manifest. Needs no torch for ``.npz``.

    Raises ``ConfigError`` as `read_manifest` does, for a PCA of another size, and if the exported graph is gone.
    """
    projection = pca if isinstance(pca, Pca) else _load_pca(pca)
    read_manifest(directory)
    with open_artefacts(directory, progress=progress) as artefacts:
        manifest = read_manifest(directory)
        engine = _compile(artefacts, "ensemble", manifest.graphs["ensemble"], pca=projection)
        engines = manifest.engines | {"ensemble": engine}
        record = _keep_pca(artefacts, projection)
        return artefacts.commit(manifest.model_copy(update={"created": _now(), "engines": engines, "pca": record}))


def _compile(artefacts: Artefacts, name: str, graph: Graph, *, pca: Pca | None) -> CompiledEngine:
    """The engine of a graph, checked against what PyTorch computed; ``pca`` is folded into the ensemble."""
    from engine.runtime.openvino import OpenVinoRunner, compile_to_ir

    folded = pca if name == "ensemble" else None
    versions = _versions(_IR_LIBRARIES)
    key = digest(graph.key, folded and _pca_sha256(folded), versions)

    def make(path: Path) -> None:
        onnx_path, _, cases_path = artefacts.intact_paths(graph.files)
        with _with_pca(onnx_path, folded) as source:
            compile_to_ir(source, path)
        cases = [_project(case, folded) for case in load_cases(cases_path)]
        with OpenVinoRunner(path) as runner:
            difference = check_runner(runner, cases, name=f"{name} in OpenVINO")
        artefacts.progress(f"{name}: differs from PyTorch by at most {difference:.1e}")

    files = artefacts.obtain(f"openvino/{name}-{key}", _IR_SUFFIXES, step=f"{name}: compile", make=make)
    runner = OpenVinoRunner(artefacts.directory / files[0].path)
    return CompiledEngine(key=key, files=files, versions=versions, inputs=runner.inputs, outputs=runner.outputs)


def _keep_pca(artefacts: Artefacts, pca: Pca | None) -> PcaRecord | None:
    if pca is None:
        return None
    sha256 = _pca_sha256(pca)
    path = artefacts.directory / f"pca-{sha256[:16]}.npz"
    save_pca(pca, path)
    file = record_file(path, directory=artefacts.directory)
    return PcaRecord(file=file, num_components=len(pca.components), sha256=sha256)


@contextmanager
def _with_pca(onnx_path: Path, pca: Pca | None) -> Iterator[Path]:
    """The graph itself, or a short-lived one with the PCA in it that shares its weights."""
    if pca is None:
        yield onnx_path
        return
    folded = onnx_path.with_suffix(".folded.onnx")
    try:
        fold_pca(onnx_path, pca, folded)
        yield folded
    finally:
        folded.unlink(missing_ok=True)


def _project(case: Case, pca: Pca | None) -> Case:
    if pca is None:
        return case
    descriptor = case.outputs["embedding"].astype(np.float64) @ pca.weight + pca.bias
    return Case(case.inputs, case.outputs | {"descriptor": descriptor})


def _import_exporter() -> ModuleType:
    try:
        from engine.models import export
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"building engines needs {error.name}: pip install 'vsc-engine[build]'") from error
    return export


def _find_weights(exporter: ModuleType, weights: Any, preset: Preset) -> dict[str, tuple[WeightsRecord, ...]]:
    """By graph. Says all that is missing at once."""
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
        absent = f", which {weights.folder} does not hold" if weights.folder else ""
        raise ConfigError(
            f"preset {preset.name!r} needs these checkpoints{absent}: {', '.join(problems)}. Name the folder with them "
            "(--checkpoints DIR), try the engines with random weights (--random-weights), or take preset 'lite', whose "
            "weights are installed with the extra `build`"
        )
    return records


def _find_pca(preset: Preset, *, checkpoints: Path | None, pca: Path | Pca | None) -> Pca | None:
    if pca is None and checkpoints is not None and preset.pca.checkpoint is not None:
        path = checkpoints / preset.pca.checkpoint
        pca = path if path.is_file() else None
    return _load_pca(pca) if isinstance(pca, Path) else pca


def _load_pca(path: Path) -> Pca:
    if path.suffix == ".npz":
        return load_pca(path)
    _import_exporter()
    from engine.models.checkpoints import load_pca_pickle

    return load_pca_pickle(path)


def _pca_sha256(pca: Pca) -> str:
    return hashlib.sha256(pca.mean.tobytes() + pca.components.tobytes()).hexdigest()


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    try:
        return {library: metadata.version(library) for library in libraries}
    except metadata.PackageNotFoundError as error:
        raise BackendUnavailable(f"building engines needs {error.name}: pip install 'vsc-engine[build]'") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
