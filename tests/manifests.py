"""Manifests of engines directories whose files are small texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config import load_preset
from engine.runtime import TensorSpec
from engine.runtime.manifest import CompiledEngine, Graph, Manifest, PcaRecord, WeightsRecord, record_file


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
