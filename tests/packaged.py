"""A folder as `training.pack` writes it, over the tiny graph of `tests.graphs`, so that no test of it needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.build.onnx_graph import store_float16
from engine.build.packaged import GRAPH_SUFFIXES, PackagedManifest
from engine.build.parity import Case, save_cases
from engine.config import Preset, graph_parts, load_preset
from engine.projection import Pca, save_pca
from engine.records import FloatArray
from engine.runtime.manifest import MANIFEST_NAME, record_file
from engine.store.norm_set import save_norm_set
from tests import graphs

NUM_COMPONENTS = 8


def tiny_preset() -> Preset:
    """Preset lite with two members whose inputs are 4 and 8 pixels, as the tiny graph takes them."""
    lite = load_preset("lite").model_dump()
    member = lite["models"][0]
    models = [member | {"name": f"tiny_{px}", "input_px": px} for px in (4, 8)]
    return Preset.model_validate(lite | {"name": "tiny", "weights": None, "gate": {"mode": "off"}, "models": models})


def norm_rows(*, seed: int = 0) -> FloatArray:
    """The norm set that `write_packaged` writes."""
    rows = np.random.default_rng(seed).uniform(-1, 1, (60, NUM_COMPONENTS))
    return rows.astype(np.float16).astype(np.float32)


def tiny_pca(*, seed: int = 0) -> Pca:
    """The PCA that `write_packaged` writes."""
    return graphs.random_pca(num_components=NUM_COMPONENTS, seed=seed)


def write_packaged(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder of weights for `tiny_preset`; ``seed`` chooses PCA and norm set. Returns the folder."""
    folder.mkdir()
    work = folder.with_name(f"{folder.name}.graph.onnx")
    graphs.write_ensemble(work)
    store_float16(work, folder / "ensemble.onnx")
    cases = [Case(dict(frames), {"embedding": graphs.ensemble(frames)}) for frames in map(graphs.frames, (1, 2))]
    save_cases(cases, folder / "ensemble.check.npz")
    save_pca(tiny_pca(seed=seed), folder / "pca.npz")
    save_norm_set(norm_rows(seed=seed), folder / "norm_set.npz")
    manifest = PackagedManifest(
        parts=graph_parts(tiny_preset()),
        graphs={"ensemble": tuple(record_file(folder / f"ensemble{end}", directory=folder) for end in GRAPH_SUFFIXES)},
        pca=record_file(folder / "pca.npz", directory=folder),
        norm_set=record_file(folder / "norm_set.npz", directory=folder),
        versions={"torch": "0"},
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder
