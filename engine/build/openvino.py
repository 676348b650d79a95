"""The OpenVINO engines of an engines directory: folds the PCA in, chooses precisions, compiles, checks, records."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.build import bfloat16, comparison
from engine.build.bfloat16 import compare_bfloat16
from engine.build.comparison import Sample, table
from engine.build.directory import BuildDirectory
from engine.build.graph_sources import library_versions
from engine.build.onnx_graph import fold_pca
from engine.build.parity import Case, check_parity, load_cases
from engine.config import Preset
from engine.errors import ConfigError, EngineError
from engine.projection import Pca
from engine.runtime.manifest import CompiledEngine, Graph, OpenVinoFacts, PrecisionChoice, digest
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir, cpu_name, has_bfloat16

_SUFFIXES = (".xml", ".bin")
_FACTS = ".json"
_LIBRARIES = ("openvino", "onnx")


class OpenVinoCompiler:
    """Compiles graphs of ``preset`` to OpenVINO's format; see `engine.build.compiler.Compiler`.

    ``precision``: ``fp32``; ``bf16``, which fails where the comparison does not allow it; ``auto`` takes bfloat16 where
    this CPU has it and the comparison allows it. Raises ``ConfigError`` for ``fp16``, which CPUs do not have, and for
    ``bf16`` on one that has none.
    """

    def __init__(self, preset: Preset, *, precision: PrecisionChoice = "fp32") -> None:
        if precision == "fp16":
            raise ConfigError("--precision fp16 is for --backend tensorrt; on CPUs there are fp32, bf16 and auto")
        if precision == "bf16" and not has_bfloat16():
            raise ConfigError(
                f"--precision bf16: {cpu_name()} has neither AVX512_BF16 nor AMX, and nothing could be measured; build "
                "with --precision fp32"
            )
        self._preset = preset
        self._precision = precision

    def compile(
        self, directory: BuildDirectory, name: str, graphs: Mapping[str, Graph], *, pca: Pca | None
    ) -> CompiledEngine:
        """The engine of a graph, checked against what PyTorch computed."""
        graph = graphs[name]
        versions = library_versions(_LIBRARIES)
        choice = self._choice(directory, name)
        asked = [] if choice == "fp32" else [choice, _rules_sha256()]
        key = digest(graph.key, pca and pca.sha256, versions, *asked)

        def make(path: Path) -> None:
            onnx_path, *_, cases_path = directory.intact_paths(graph.files)
            with _with_pca(onnx_path, pca) as source:
                compile_to_ir(source, path)
            cases = [_project(case, pca) for case in load_cases(cases_path)]
            with OpenVinoRunner(path) as runner:
                results = [runner.run(case.inputs) for case in cases]
            difference = check_parity(results, cases, name=f"{name} in OpenVINO")
            directory.progress(f"{name}: differs from PyTorch by at most {difference:.1e}")
            if asked:
                facts = self._compare(directory, name, graphs, choice=choice)
                path.with_suffix(_FACTS).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")

        suffixes = (*_SUFFIXES, _FACTS) if asked else _SUFFIXES
        files = directory.obtain(f"openvino/{name}-{key}", suffixes, step=f"{name}: compile", make=make)
        facts = OpenVinoFacts.model_validate_json((directory.folder / files[2].path).read_text()) if asked else None
        runner = OpenVinoRunner(directory.folder / files[0].path)
        return CompiledEngine(
            key=key, files=files, versions=versions, inputs=runner.inputs, outputs=runner.outputs, openvino=facts
        )

    def _choice(self, directory: BuildDirectory, name: str) -> PrecisionChoice:
        if name == "edit_score" or self._precision == "fp32":  # run once a video, the score model costs next to nothing
            return "fp32"
        if not has_bfloat16():
            directory.progress(f"{name}: stays float32, {cpu_name()} has neither AVX512_BF16 nor AMX")
            return "fp32"
        return self._precision

    def _compare(
        self, directory: BuildDirectory, name: str, graphs: Mapping[str, Graph], *, choice: PrecisionChoice
    ) -> OpenVinoFacts:
        samples = {}
        for other, graph in graphs.items():
            source, *_, cases = directory.intact_paths(graph.files)
            samples[other] = Sample(source, load_cases(cases))
        compared = compare_bfloat16(samples, self._preset, name=name)
        for line in table({name: compared}):
            directory.progress(line)
        refused = [row for row in compared if row.precision == "fp32"]
        for row in refused:
            directory.progress(
                f"{name} stays float32: in bfloat16 the {row.measure} of {row.model} is {row.worst:.2g}, accepted is "
                f"{row.limit:g}"
            )
        if refused and choice == "bf16":
            raise EngineError(f"{name} cannot be bfloat16, see above; build with --precision auto or fp32")
        return OpenVinoFacts(
            precision="fp32" if refused else "bf16", precision_choice=choice, comparisons=tuple(compared)
        )


def precision_of(engine: CompiledEngine) -> PrecisionChoice:
    """What was asked for when an engine was compiled."""
    return engine.openvino.precision_choice if engine.openvino else "fp32"


def _rules_sha256() -> str:
    """Of the rules by which precisions are compared: other rules, other choices."""
    return hashlib.sha256("".join(map(inspect.getsource, (bfloat16, comparison))).encode()).hexdigest()


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
