"""Builds an engines directory: obtains the graphs a preset needs, folds the PCA in, compiles, checks and records them.

Knows nothing of where graphs come from, how they run and how files are kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from typing import cast, get_args

import numpy as np

from engine.atomic import written_aside
from engine.config import Preset
from engine.errors import ConfigError
from engine.projection import Pca, load_pca, save_pca
from engine.runtime.artefacts import Artefacts, Progress, open_artefacts
from engine.runtime.check import Case, check_runner, load_cases
from engine.runtime.graph import fold_pca
from engine.runtime.manifest import (
    Backend,
    CompiledEngine,
    FileRecord,
    Graph,
    Manifest,
    PcaRecord,
    digest,
    graph_parts,
    read_manifest,
    record_file,
)
from engine.runtime.shipped import shipped_folder
from engine.runtime.sources import (
    GraphSource,
    ShippedGraphs,
    import_exporter,
    library_versions,
    open_exporter,
    open_shipped,
)

logger = logging.getLogger(__name__)

_IR_SUFFIXES = (".xml", ".bin")
_IR_LIBRARIES = ("openvino", "onnx")


def build_engines(
    preset: Preset,
    output: Path,
    *,
    checkpoints: Path | None = None,
    random_weights: bool = False,
    backend: str = "openvino",
    pca: Path | Pca | None = None,
    shipped: Path | None = None,
    progress: Progress = logger.debug,
) -> Manifest:
    """Build what is missing in ``output`` for ``preset`` and return the manifest.

    ``checkpoints``: the folder with the files that the preset names, instead of the weights that come with the package.
    ``random_weights``: seeded random weights instead, for trials of speed. ``pca``: a PCA or its file (``.npz``, or a
    pickle of scikit-learn's), instead of the one that may lie among the checkpoints or come with the package.
    ``shipped``: a folder that `training.pack` wrote, instead of the one in the package. ``progress`` is called with
    lines for people. Only weights of the package bring a norm set, which fits no other PCA than theirs.

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

    source: GraphSource
    packed = None
    if shipped is None and preset.weights is not None and checkpoints is None and not random_weights:
        shipped = shipped_folder(preset.weights)
    if shipped is not None:
        source = packed = open_shipped(preset, shipped)
    else:
        source = open_exporter(preset, checkpoints=checkpoints, random_weights=random_weights)
    projection = _find_pca(preset, checkpoints=checkpoints, pca=pca, packed=packed)
    with open_artefacts(output, progress=progress) as artefacts:
        graphs = {name: source.obtain(artefacts, name) for name in graph_parts(preset)}
        manifest = Manifest(
            created=_now(),
            preset=preset,
            backend=cast(Backend, backend),
            weights=source.kind,
            graphs=graphs,
            engines={name: _compile(artefacts, name, graph, pca=projection) for name, graph in graphs.items()},
            pca=_keep_pca(artefacts, projection),
            norm_set=_keep_norm_set(artefacts, packed) if packed is not None and pca is None else None,
            shipped_sha256=packed.shipped.sha256 if packed is not None else None,
        )
        return artefacts.commit(manifest)


def set_pca(directory: Path, pca: Path | Pca, *, progress: Progress = logger.debug) -> Manifest:
    """Fold another PCA into the ensemble of existing engines and return the new manifest. Needs no torch for ``.npz``.

    A norm set that came with the engines does not fit another PCA and is removed.
    Raises ``ConfigError`` as `read_manifest` does, for a PCA of another size, and if the exported graph is gone.
    """
    projection = pca if isinstance(pca, Pca) else _load_pca(pca)
    read_manifest(directory)
    with open_artefacts(directory, progress=progress) as artefacts:
        manifest = read_manifest(directory)
        engine = _compile(artefacts, "ensemble", manifest.graphs["ensemble"], pca=projection)
        engines = manifest.engines | {"ensemble": engine}
        record = _keep_pca(artefacts, projection)
        is_same = manifest.pca is not None and record is not None and record.sha256 == manifest.pca.sha256
        changes = {"created": _now(), "engines": engines, "pca": record}
        return artefacts.commit(manifest.model_copy(update=changes if is_same else changes | {"norm_set": None}))


def _compile(artefacts: Artefacts, name: str, graph: Graph, *, pca: Pca | None) -> CompiledEngine:
    """The engine of a graph, checked against what PyTorch computed; ``pca`` is folded into the ensemble."""
    from engine.runtime.openvino import OpenVinoRunner, compile_to_ir

    folded = pca if name == "ensemble" else None
    versions = library_versions(_IR_LIBRARIES)
    key = digest(graph.key, folded and _pca_sha256(folded), versions)

    def make(path: Path) -> None:
        onnx_path, *_, cases_path = artefacts.intact_paths(graph.files)
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


def _keep_norm_set(artefacts: Artefacts, packed: ShippedGraphs) -> FileRecord:
    path = artefacts.directory / f"norm_set-{packed.shipped.manifest.norm_set.sha256[:16]}.npz"
    with written_aside(path) as aside:
        copyfile(packed.norm_set(), aside)
    return record_file(path, directory=artefacts.directory)


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


def _find_pca(
    preset: Preset, *, checkpoints: Path | None, pca: Path | Pca | None, packed: ShippedGraphs | None
) -> Pca | None:
    if pca is None and packed is not None:
        return packed.pca()
    if pca is None and checkpoints is not None and preset.pca.checkpoint is not None:
        path = checkpoints / preset.pca.checkpoint
        pca = path if path.is_file() else None
    return _load_pca(pca) if isinstance(pca, Path) else pca


def _load_pca(path: Path) -> Pca:
    if path.suffix == ".npz":
        return load_pca(path)
    import_exporter()
    from engine.models.checkpoints import load_pca_pickle

    return load_pca_pickle(path)


def _pca_sha256(pca: Pca) -> str:
    return hashlib.sha256(pca.mean.tobytes() + pca.components.tobytes()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
