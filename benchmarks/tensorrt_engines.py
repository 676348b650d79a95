"""What a build of TensorRT engines gave: `python -m benchmarks.tensorrt_engines --engines DIR`.

Reports the facts of a manifest: what was measured of float16, precisions, sizes, and seconds that TensorRT took.
"""

from __future__ import annotations

from benchmarks.harness import EnginesOption, OutputOption, command_line, report
from engine.build.comparison import table
from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import CompiledEngine, Manifest, TensorRtFacts


def facts_of(manifest: Manifest) -> dict[str, tuple[CompiledEngine, TensorRtFacts]]:
    """The engines by name. Raises ``ConfigError`` if they are not TensorRT's."""
    found = {name: (engine, engine.tensorrt) for name, engine in manifest.engines.items() if engine.tensorrt}
    if not found:
        raise ConfigError(f"the engines are of backend {manifest.backend}; build them with --backend tensorrt")
    return found


def lines_of(manifest: Manifest) -> list[str]:
    """The report for people."""
    engines = facts_of(manifest)
    _, first = next(iter(engines.values()))
    lines = [
        f"preset {manifest.preset.name}, weights: {manifest.weights}; {first.flavour} {first.version}, "
        f"for compute capability {', '.join(first.compute_capabilities)}",
        "",
        *table({name: facts.comparisons for name, (_, facts) in engines.items()}),
        "",
        f"{'engine':<15}{'MB':>9}{'ONNX MB':>10}{'build s':>10}   precisions",
    ]
    for name, (engine, facts) in engines.items():
        graph = manifest.graphs[name].files
        onnx_mb = sum(file.size_bytes for file in graph if not file.path.endswith(".npz")) / 1e6
        precisions = ", ".join(f"{model} {precision}" for model, precision in facts.precisions.items())
        size_mb = engine.main.size_bytes / 1e6
        lines.append(f"{name:<15}{size_mb:>9.1f}{onnx_mb:>10.1f}{facts.build_s:>10.1f}   {precisions}")
    return lines


def main(engines: EnginesOption, output: OutputOption = None) -> None:
    """Report what a build of TensorRT engines measured and chose, their sizes, and the seconds that it took.

    Example: python -m benchmarks.tensorrt_engines --engines engines/
    """
    manifest = EnginesDirectory.open(engines).manifest
    figures = {
        name: facts.model_dump(mode="json") | {"size_bytes": engine.main.size_bytes}
        for name, (engine, facts) in facts_of(manifest).items()
    }
    name = f"tensorrt_engines_{manifest.preset.name}"
    report(name, lines=lines_of(manifest), figures=figures, output=output)


app = command_line(main)

if __name__ == "__main__":
    app()
