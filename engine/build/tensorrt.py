"""The TensorRT engines of an engines directory: chooses precisions, folds the PCA in, builds and records them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from engine.build import comparison, float16, precision, turing
from engine.build.comparison import Comparisons, Sample, accepted_models, graph_models, table, with_edits
from engine.build.compiler import DEFAULT_COMPUTE_CAPABILITIES, Converter, TensorRtOptions
from engine.build.directory import BuildDirectory
from engine.build.float16 import to_float16
from engine.build.graph_sources import library_versions
from engine.build.onnx_graph import DESCRIPTOR, fold_pca, io_specs
from engine.build.onnx_runtime import run_graph
from engine.build.parity import check_parity, load_cases
from engine.build.precision import compare_precisions
from engine.build.tensorrt_builder import build_engine, check_targets
from engine.build.turing import TURING, rewrite_for_turing
from engine.config import NoGate, Preset
from engine.errors import ConfigError, EngineError
from engine.projection import Pca
from engine.runtime.manifest import CompiledEngine, Graph, Manifest, Precision, RowProfile, TensorRtFacts, digest
from engine.runtime.runner import TensorSpec
from engine.runtime.tensorrt_library import TensorRt, import_tensorrt

_LIBRARIES = ("onnx", "onnxruntime")
_OPT_FRAMES = 64
_SUFFIXES = (".engine", ".json")


class TensorRtCompiler:
    """Builds engines of the graphs of ``preset`` with TensorRT; see `engine.build.compiler.Compiler`.

    ``convert``: the second way in, None where there are no PyTorch programs. ``comparisons``: those of precisions that
    were made before; without them, the graphs are compared when the first is built. Raises ``BackendUnavailable``
    without TensorRT, ``ConfigError`` for options that exclude each other.
    """

    def __init__(
        self,
        preset: Preset,
        options: TensorRtOptions,
        *,
        convert: Converter | None = None,
        comparisons: Comparisons | None = None,
    ) -> None:
        self._preset = preset
        self._options = options
        self._convert = convert
        self._comparisons = comparisons
        is_onnx = options.frontend == "onnx"
        self._tensorrt = import_tensorrt(options.flavour if is_onnx else options.flavour or "tensorrt")
        self._targets = _targets(self._tensorrt, options)
        if not is_onnx:
            _check_torch_tensorrt(self._tensorrt, options, convert)

    def compile(
        self, directory: BuildDirectory, name: str, graphs: Mapping[str, Graph], *, pca: Pca | None
    ) -> CompiledEngine:
        """The engine of a graph."""
        options, tensorrt, graph = self._options, self._tensorrt, graphs[name]
        profile = self._profile(name)
        versions = library_versions(_LIBRARIES) | {tensorrt.flavour: tensorrt.version}
        asked = (self._targets, options.precision, options.frontend, profile.model_dump())
        key = digest(graph.key, pca and pca.sha256, versions, asked, _rules_sha256())

        def make(path: Path) -> None:
            if self._comparisons is None:
                self._comparisons = self._choose(directory, graphs, folder=path.parent)
            compared = self._comparisons.get(name, ())
            chosen = accepted_models(compared)
            models = graph_models(self._preset)[name]
            precisions: dict[str, Precision] = {model: "fp16" if model in chosen else "fp32" for model in models}
            build_s = self._build(directory, name, graph, precisions=precisions, profile=profile, pca=pca, path=path)
            facts = TensorRtFacts(
                flavour=tensorrt.flavour,
                version=tensorrt.version,
                frontend=options.frontend,
                compute_capabilities=self._targets,
                precision_choice=options.precision,
                precisions=precisions,
                comparisons=compared,
                profile=profile,
                graph_sha256=graph.files[0].sha256,
                build_s=round(build_s, 1),
            )
            path.with_suffix(".json").write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")

        step = f"{name}: build for compute capability {', '.join(self._targets)}"
        files = directory.obtain(f"tensorrt/{name}-{key}", _SUFFIXES, step=step, make=make)
        inputs, outputs = io_specs(directory.folder / graph.files[0].path)
        if pca is not None:
            outputs = (*outputs, TensorSpec(DESCRIPTOR, "float32", (None, len(pca.components))))
        facts = TensorRtFacts.model_validate_json((directory.folder / files[1].path).read_text())
        return CompiledEngine(key=key, files=files, versions=versions, inputs=inputs, outputs=outputs, tensorrt=facts)

    def _build(
        self,
        directory: BuildDirectory,
        name: str,
        graph: Graph,
        *,
        precisions: Mapping[str, Precision],
        profile: RowProfile,
        pca: Pca | None,
        path: Path,
    ) -> float:
        """Write the engine and return the seconds that it took."""
        if self._options.frontend == "torch-tensorrt":
            assert self._convert is not None  # noqa: S101 - checked on construction
            return self._convert(name, pca=pca, profile=profile, path=path)
        source, *_ = directory.intact_paths(graph.files)
        chosen = [model for model, precision in precisions.items() if precision == "fp16"]
        # The graph and its weights lie where `BuildDirectory` removes all that is not published.
        onnx_path = path.with_suffix(".onnx")
        to_float16(source, onnx_path, names=list(precisions), chosen=chosen)
        if pca is not None:
            fold_pca(onnx_path, pca, onnx_path)
        targets = self._targets if self._tensorrt.flavour == "tensorrt_rtx" else ()
        if TURING in targets:
            rewrite_for_turing(onnx_path)
        return build_engine(self._tensorrt, onnx_path, path, profile=profile, compute_capabilities=targets)

    def _choose(self, directory: BuildDirectory, graphs: Mapping[str, Graph], *, folder: Path) -> Comparisons:
        say = directory.progress
        if self._options.frontend == "torch-tensorrt":
            say("all models stay float32: Torch-TensorRT converts programs as they are")
            return {}
        samples = {}
        for name, graph in graphs.items():
            source, *_, cases = directory.intact_paths(graph.files)
            samples[name] = Sample(source, load_cases(cases))
        if self._options.precision == "fp32":
            for name, sample in samples.items():
                results = run_graph(sample.path, [case.inputs for case in sample.cases])
                difference = check_parity(results, sample.cases, name=f"{name} in ONNX Runtime")
                say(f"{name}: stays float32; differs from PyTorch by at most {difference:.1e}")
            return {}
        edited = {
            name: sample if name == "edit_score" else with_edits(sample, partial(run_graph, sample.path))
            for name, sample in samples.items()
        }
        comparisons = compare_precisions(edited, self._preset, folder=folder)
        for line in table(comparisons):
            say(line)
        refused = {row.model: row for rows in comparisons.values() for row in rows if row.precision == "fp32"}
        for model, row in refused.items():
            say(f"{model} stays float32: in float16 its {row.measure} is {row.worst:.2g}, accepted is {row.limit:g}")
        if refused and self._options.precision == "fp16":
            raise EngineError(f"{', '.join(refused)} cannot be float16, see above; build with --precision auto or fp32")
        return comparisons

    def _profile(self, name: str) -> RowProfile:
        if name == "edit_score" and not isinstance(self._preset.gate, NoGate):
            largest = self._preset.gate.max_frames
            return RowProfile(min_rows=1, opt_rows=min(_OPT_FRAMES, largest), max_rows=largest)
        return RowProfile(min_rows=1, opt_rows=self._options.max_batch, max_rows=self._options.max_batch)


def compiler_of(manifest: Manifest) -> TensorRtCompiler:
    """A compiler that makes engines as those of ``manifest`` were made.

    Raises ``ConfigError`` if another version of TensorRT is installed, or Torch-TensorRT converted them.
    """
    facts = manifest.engines["ensemble"].tensorrt
    if facts is None or facts.frontend != "onnx":
        raise ConfigError("the engines were converted from PyTorch programs; build them again with --pca")
    options = TensorRtOptions(
        flavour=facts.flavour,
        compute_capabilities=facts.compute_capabilities if facts.flavour == "tensorrt_rtx" else (),
        precision=facts.precision_choice,
        max_batch=facts.profile.max_rows,
    )
    comparisons = {name: engine.tensorrt.comparisons for name, engine in manifest.engines.items() if engine.tensorrt}
    compiler = TensorRtCompiler(manifest.preset, options, comparisons=comparisons)
    here = import_tensorrt(facts.flavour).version
    if here != facts.version:
        raise ConfigError(
            f"the engines were built by {facts.flavour} {facts.version}, and here is {here}; build them again with "
            "--pca, or install that version"
        )
    return compiler


def _targets(tensorrt: TensorRt, options: TensorRtOptions) -> tuple[str, ...]:
    check_targets(tensorrt, options.compute_capabilities)
    if tensorrt.flavour == "tensorrt":
        from engine.runtime.cuda import devices  # asks for the driver, which TensorRT-RTX does without

        return (devices()[0].capability,)
    return options.compute_capabilities or DEFAULT_COMPUTE_CAPABILITIES


def _check_torch_tensorrt(tensorrt: TensorRt, options: TensorRtOptions, convert: Converter | None) -> None:
    if convert is None:
        raise ConfigError("weights of the package hold no PyTorch program; leave --frontend torch-tensorrt out")
    if tensorrt.flavour != "tensorrt":
        raise ConfigError("Torch-TensorRT needs TensorRT for data centres; leave --flavour tensorrt_rtx out")
    if options.precision == "fp16":
        raise ConfigError("Torch-TensorRT converts programs as they are, in float32; leave --precision fp16 out")


def _rules_sha256() -> str:
    """Of the rules by which graphs are rewritten and compared: other rules, other engines."""
    return hashlib.sha256(
        "".join(map(inspect.getsource, (comparison, float16, precision, turing))).encode()
    ).hexdigest()
