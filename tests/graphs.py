"""Tiny ONNX graphs with the inputs and outputs of the real ones, and what they compute, in plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.projection import Pca
from engine.records import Frames

NUM_DIMS = 24


def write_ensemble(path: Path) -> None:
    """Uint8 ``frames_4`` and ``frames_8`` -> ``embedding`` ``(n, 24)``; weights in ``NAME.onnx.data``."""
    nodes, weights = [], []
    for px in (4, 8):
        weights.append(numpy_helper.from_array(_weight(px), f"w{px}"))
        nodes += [
            helper.make_node("Cast", [f"frames_{px}"], [f"pixels{px}"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", [f"pixels{px}"], [f"flat{px}"]),
            helper.make_node("MatMul", [f"flat{px}", f"w{px}"], [f"y{px}"]),
        ]
    nodes.append(helper.make_node("Concat", ["y4", "y8"], ["embedding"], axis=1))
    inputs = [helper.make_tensor_value_info(f"frames_{px}", TensorProto.UINT8, ["rows", px, px, 3]) for px in (4, 8)]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["rows", NUM_DIMS])]
    _save(helper.make_graph(nodes, "ensemble", inputs, outputs, weights), path)


def ensemble(frames: dict[str, NDArray[np.uint8]]) -> NDArray[np.float64]:
    """What the graph of `write_ensemble` computes."""
    return np.concatenate(
        [array.reshape(len(array), -1) @ _weight(array.shape[1]) for array in frames.values()], axis=1
    )


def write_score(path: Path) -> None:
    """``features`` ``(n, 6)`` -> ``score`` ``(1,)``: the sigmoid of the mean of all."""
    nodes = [
        helper.make_node("ReduceMean", ["features"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 6])]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])]
    shape = [numpy_helper.from_array(np.array([1], np.int64), "shape")]
    _save(helper.make_graph(nodes, "score", inputs, outputs, shape), path)


def frames(num: int, *, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Inputs of the graph of `write_ensemble`."""
    generator = np.random.default_rng(seed)
    return {f"frames_{px}": generator.integers(0, 256, (num, px, px, 3), dtype=np.uint8) for px in (4, 8)}


def random_pca(num_dims: int = NUM_DIMS, num_components: int = 5, *, seed: int = 0) -> Pca:
    """A projection with orthonormal components and a mean that is not zero."""
    generator = np.random.default_rng(seed)
    components = np.linalg.qr(generator.standard_normal((num_dims, num_components)))[0].T
    return Pca(
        mean=generator.standard_normal(num_dims).astype(np.float32) / num_dims,
        components=np.ascontiguousarray(components, dtype=np.float32),
        explained_variance=np.sort(generator.random(num_components).astype(np.float32))[::-1].copy(),
    )


def project(pca: Pca, embeddings: NDArray[Any]) -> NDArray[np.float64]:
    """``(x - mean) @ components.T`` in float64."""
    centred = embeddings.astype(np.float64) - pca.mean
    return centred @ pca.components.T.astype(np.float64)


def _weight(px: int) -> NDArray[np.float32]:
    # Thirds: float16 weights would show.
    return np.random.default_rng(px).integers(-9, 10, (px * px * 3, NUM_DIMS // 2)).astype(np.float32) / 3000


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=64)


def natural_pictures(num: int, *, size_px: int, seed: int = 0) -> Frames:
    """Color noise with the spectrum of photographs (amplitude falls as 1 / frequency), ``(num, size_px, size_px, 3)``.

    Graphs are compared on these rather than on white noise, which drives networks to values that no picture gives.
    """
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.standard_normal((num, 4, size_px, size_px))) / frequency
    fields = np.fft.irfft2(spectrum, s=(size_px, size_px))
    fields /= fields.std(axis=(2, 3), keepdims=True)
    brightness, colors = fields[:, :1], fields[:, 1:]
    pictures = (120 + 50 * brightness + 20 * colors).clip(0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))
