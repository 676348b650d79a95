"""Manifests of engines directories whose files are small texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config import load_preset
from engine.runtime.manifest import (
    CompiledEngine,
    Graph,
    Manifest,
    PcaRecord,
    RowProfile,
    TensorRtFacts,
    WeightsRecord,
    record_file,
)
from engine.runtime.runner import TensorSpec


def make_manifest(directory: Path, **changes: Any) -> Manifest:
    """A manifest of preset lite over four files that are written into ``directory``."""
    for name in ("graph.onnx", "engine.xml", "engine.bin", "pca.npz"):
        (directory / name).write_text(name)
    graph, xml, weights, pca = (
        record_file(directory / name, directory=directory)
        for name in ("graph.onnx", "engine.xml", "engine.bin", "pca.npz")
    )
    source = WeightsRecord(checkpoint="weights.bin", sha256="ab")
    values = {
        "created": "2026-01-01T00:00:00+00:00",
        "preset": load_preset("lite"),
        "backend": "openvino",
        "weights": "checkpoints",
        "graphs": {"ensemble": Graph(key="1", files=(graph,), weights=(source,), versions={"torch": "2"})},
        "engines": {
            "ensemble": CompiledEngine(
                key="2",
                files=(xml, weights),
                versions={"openvino": "3"},
                inputs=(TensorSpec("frames_224", "uint8", (None, 224, 224, 3)),),
                outputs=(TensorSpec("embedding", "float32", (None, 1280)),),
            )
        },
        "pca": PcaRecord(file=pca, num_components=512, sha256="cd"),
    }
    return Manifest(**(values | changes))


def tensorrt_manifest(directory: Path, **changes: Any) -> Manifest:
    """A manifest of preset lite with one engine of TensorRT-RTX; ``changes`` replace facts of the engine."""
    (directory / "ensemble.engine").write_bytes(b"engine")
    manifest = make_manifest(directory, backend="tensorrt")
    values = {
        "flavour": "tensorrt_rtx",
        "version": "1.7",
        "frontend": "onnx",
        "compute_capabilities": ("8.6", "8.9"),
        "precision_choice": "auto",
        "precisions": {"lite": "fp16"},
        "comparisons": (),
        "profile": RowProfile(min_rows=1, opt_rows=8, max_rows=8),
        "graph_sha256": manifest.graphs["ensemble"].files[0].sha256,
        "build_s": 1.5,
    }
    engine = CompiledEngine(
        key="2",
        files=(record_file(directory / "ensemble.engine", directory=directory),),
        versions={"tensorrt_rtx": "1.7"},
        inputs=(TensorSpec("frames_224", "uint8", (None, 224, 224, 3)),),
        outputs=(TensorSpec("embedding", "float32", (None, 1280)),),
        tensorrt=TensorRtFacts(**(values | changes)),
    )
    return manifest.model_copy(update={"engines": {"ensemble": engine}})
