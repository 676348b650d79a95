"""Builds an engines directory: obtains the graphs that a preset needs, compiles and records them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from typing import cast, get_args

from engine.build.compiler import Compiler, Converter, TensorRtOptions
from engine.build.directory import BuildDirectory, Progress, open_build_directory
from engine.build.graph_sources import GraphSource, load_any_pca, open_exporter, open_packaged
from engine.build.packaged import packaged_folder
from engine.config import Preset, graph_parts
from engine.errors import ConfigError
from engine.files import written_aside
from engine.projection import Pca, save_pca
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import Backend, FileRecord, Manifest, PcaRecord, PrecisionChoice, record_file

logger = logging.getLogger(__name__)


def build_engines(
    preset: Preset,
    output: Path,
    *,
    checkpoints: Path | None = None,
    random_weights: bool = False,
    backend: str = "openvino",
    tensorrt: TensorRtOptions | None = None,
    precision: PrecisionChoice = "fp32",
    pca: Path | Pca | None = None,
    packaged: Path | None = None,
    progress: Progress = logger.debug,
) -> Manifest:
    """Build what is missing in ``output`` for ``preset`` and return the manifest.

    ``checkpoints``: the folder with the files that the preset names, instead of the weights that come with the package.
    ``random_weights``: seeded random weights instead, for trials of speed. ``tensorrt``: what that backend is asked
    for, if it is the one; ``precision``: of OpenVINO's engines, see `engine.build.openvino.OpenVinoCompiler`. ``pca``:
    a PCA or its file (``.npz``, or a pickle of scikit-learn's), instead of the one that may lie among the checkpoints
    or come with the package.
    ``packaged``: a folder that `training.pack` wrote, instead of the one in the package. ``progress`` is called with
    lines for people. Only weights of the package bring a norm set, which fits no other PCA than theirs.

    What is there from the same weights, settings, code and library versions is kept, also of a build that was killed.

    Raises ``ConfigError`` for an unknown backend, a precision that this machine does not have, missing or wrong
    weights, a PCA of another size, a directory that cannot be written; ``BackendUnavailable`` if torch or the backend's
    library is not installed; ``EngineError`` if a graph does not compute what PyTorch computes.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"unknown backend {backend!r}; expected one of {list(get_args(Backend))}")
    if random_weights and checkpoints is not None:
        raise ConfigError(f"random weights and the checkpoints of {checkpoints} exclude each other; choose one")
    options = tensorrt or TensorRtOptions()
    if packaged is None and preset.weights is not None and checkpoints is None and not random_weights:
        packaged = packaged_folder(preset.weights)
    source: GraphSource
    if packaged is not None:
        source = open_packaged(preset, packaged)
    else:
        source = open_exporter(
            preset, checkpoints=checkpoints, random_weights=random_weights, frontend=options.frontend
        )
    compiler = _open_compiler(backend, preset, options=options, precision=precision, convert=source.convert)
    projection = source.pca() if pca is None else _as_pca(pca)
    with open_build_directory(output, progress=progress) as directory:
        graphs = {name: source.obtain(directory, name) for name in graph_parts(preset)}
        pcas = {"ensemble": projection}
        manifest = Manifest(
            created=_now(),
            preset=preset,
            backend=cast(Backend, backend),
            weights=source.kind,
            graphs=graphs,
            engines={name: compiler.compile(directory, name, graphs, pca=pcas.get(name)) for name in graphs},
            pca=_keep_pca(directory, projection),
            norm_set=_keep_norm_set(directory, source.norm_set) if pca is None else None,
            shipped_sha256=source.sha256,
        )
        return directory.commit(manifest)


def set_pca(folder: Path, pca: Path | Pca, *, progress: Progress = logger.debug) -> Manifest:
    """Fold another PCA into the ensemble of existing engines and return the new manifest. Needs no torch for ``.npz``.

    A norm set that came with the engines does not fit another PCA and is removed.
    Raises ``ConfigError`` as `EnginesDirectory.open` does, for a PCA of another size, and if the graph is gone.
    """
    projection = _as_pca(pca)
    EnginesDirectory.open(folder)
    with open_build_directory(folder, progress=progress) as directory:
        manifest = EnginesDirectory.open(folder).manifest
        engine = _compiler_of(manifest).compile(directory, "ensemble", manifest.graphs, pca=projection)
        engines = manifest.engines | {"ensemble": engine}
        record = _keep_pca(directory, projection)
        is_same = manifest.pca is not None and record is not None and record.sha256 == manifest.pca.sha256
        changes = {"created": _now(), "engines": engines, "pca": record}
        return directory.commit(manifest.model_copy(update=changes if is_same else changes | {"norm_set": None}))


def _open_compiler(
    backend: str,
    preset: Preset,
    *,
    options: TensorRtOptions,
    precision: PrecisionChoice,
    convert: Converter | None,
) -> Compiler:
    # Made before minutes of export, so that a missing library is named at once.
    if backend == "openvino":
        from engine.build.openvino import OpenVinoCompiler

        return OpenVinoCompiler(preset, precision=precision)
    from engine.build.tensorrt import TensorRtCompiler

    return TensorRtCompiler(preset, options, convert=convert)


def _compiler_of(manifest: Manifest) -> Compiler:
    """A compiler that makes engines as those of ``manifest`` were made."""
    if manifest.backend == "openvino":
        from engine.build.openvino import OpenVinoCompiler, precision_of

        return OpenVinoCompiler(manifest.preset, precision=precision_of(manifest.engines["ensemble"]))
    from engine.build.tensorrt import compiler_of

    return compiler_of(manifest)


def _keep_pca(directory: BuildDirectory, pca: Pca | None) -> PcaRecord | None:
    if pca is None:
        return None
    path = directory.folder / f"pca-{pca.sha256[:16]}.npz"
    save_pca(pca, path)
    file = record_file(path, directory=directory.folder)
    return PcaRecord(file=file, num_components=len(pca.components), sha256=pca.sha256)


def _keep_norm_set(directory: BuildDirectory, source: Path | None) -> FileRecord | None:
    if source is None:
        return None
    sha256 = record_file(source, directory=source.parent).sha256
    path = directory.folder / f"norm_set-{sha256[:16]}.npz"
    with written_aside(path) as aside:
        copyfile(source, aside)
    return record_file(path, directory=directory.folder)


def _as_pca(pca: Path | Pca) -> Pca:
    return pca if isinstance(pca, Pca) else load_any_pca(pca)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
