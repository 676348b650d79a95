"""The OpenVINO engines of an engines directory: folds the PCA in, compiles, checks and records them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.build.directory import BuildDirectory
from engine.build.graph_sources import library_versions
from engine.build.onnx_graph import fold_pca
from engine.build.parity import Case, check_parity, load_cases
from engine.projection import Pca
from engine.runtime.manifest import CompiledEngine, Graph, digest
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir

_SUFFIXES = (".xml", ".bin")
_LIBRARIES = ("openvino", "onnx")


class OpenVinoCompiler:
    """Compiles graphs to OpenVINO's format; see `engine.build.compiler.Compiler`."""

    def compile(
        self, directory: BuildDirectory, name: str, graphs: Mapping[str, Graph], *, pca: Pca | None
    ) -> CompiledEngine:
        """The engine of a graph, checked against what PyTorch computed."""
        graph = graphs[name]
        versions = library_versions(_LIBRARIES)
        key = digest(graph.key, pca and pca.sha256, versions)

        def make(path: Path) -> None:
            onnx_path, *_, cases_path = directory.intact_paths(graph.files)
            with _with_pca(onnx_path, pca) as source:
                compile_to_ir(source, path)
            cases = [_project(case, pca) for case in load_cases(cases_path)]
            with OpenVinoRunner(path) as runner:
                results = [runner.run(case.inputs) for case in cases]
            difference = check_parity(results, cases, name=f"{name} in OpenVINO")
            directory.progress(f"{name}: differs from PyTorch by at most {difference:.1e}")

        files = directory.obtain(f"openvino/{name}-{key}", _SUFFIXES, step=f"{name}: compile", make=make)
        runner = OpenVinoRunner(directory.folder / files[0].path)
        return CompiledEngine(key=key, files=files, versions=versions, inputs=runner.inputs, outputs=runner.outputs)


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
