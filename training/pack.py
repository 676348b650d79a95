"""Packs trained weights for the package: `python -m training.pack --preset lite --checkpoints RUN --norm-set STORE`.

Writes the folder of ``engine/weights`` that the preset names: graphs with weights as float16, what they compute for a
few drawn pictures, a PCA and a norm set of descriptors, and a manifest. No picture of the store is in it. The same
checkpoints, store and libraries give the same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from safetensors.torch import save_file

from engine.build.engines import build_engines
from engine.build.onnx_graph import store_float16
from engine.build.packaged import GRAPH_SUFFIXES, PackagedManifest, PackagedWeights, packaged_folder
from engine.build.parity import Case, load_cases, save_cases
from engine.config import Preset, graph_parts, load_preset
from engine.console import progress, say
from engine.errors import ConfigError, EngineError
from engine.models.checkpoints import read_state
from engine.projection import fit_pca, save_pca
from engine.records import FloatArray, Frames
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.manifest import MANIFEST_NAME, Manifest, record_file
from engine.runtime.runner import Runner
from engine.store.norm_set import save_norm_set
from engine.video.resize import fit_picture
from engine.video.source import InputSpec
from training.footage.blank import blank_pictures
from training.footage.resizing import Frame
from training.store.frame_store import FrameStore

MAX_SIZE_BYTES = 25_000_000
NUM_NORM_ROWS = 4000
BATCH_SIZE = 8
CHECKED_BATCHES = (1, 2, 3)
_PCA, _NORM_SET = "pca.npz", "norm_set.npz"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder with the checkpoints (.safetensors) of the preset.")],
    norm_set: Annotated[Path, typer.Option(help="Frame store with the pictures for PCA and norm set.")],
    preset: Annotated[str, typer.Option(help="Name of a preset, or a preset file (.toml).")] = "lite",
    output: Annotated[Path | None, typer.Option(help="Folder to write; default: the package's own.")] = None,
    num_norm_rows: Annotated[int, typer.Option(min=1, help="Pictures of the store in the norm set.")] = NUM_NORM_ROWS,
) -> None:
    """Pack trained weights, a PCA and a norm set for the package.

    Example: python -m training.pack --preset lite --checkpoints run/ --norm-set store/
    """
    try:
        settings = load_preset(preset)
        if output is None and settings.weights is None:
            raise ConfigError(f"preset {settings.name!r} names no weights of the package; give --output")
        folder = output or packaged_folder(str(settings.weights))
        with progress("pictures", len(FrameStore.open(norm_set))) as advance:
            manifest = pack(
                settings, folder, checkpoints=checkpoints, store=norm_set, num_norm_rows=num_norm_rows, advance=advance
            )
    except EngineError as error:
        say(f"pack: {error}")
        raise typer.Exit(1) from error
    for file in manifest.files:
        say(f"{file.size_bytes / 1e6:8.2f} MB  {file.path}")
    print(folder)


def pack(
    preset: Preset,
    output: Path,
    *,
    checkpoints: Path,
    store: Path,
    num_norm_rows: int = NUM_NORM_ROWS,
    advance: Callable[[], None] = lambda: None,
) -> PackagedManifest:
    """Write the weights of ``preset`` into the folder ``output``, all at once; see the module.

    ``store``: a frame store. The PCA is fitted on all its pictures; ``num_norm_rows`` of them, drawn with a fixed seed,
    become the norm set, with those of `training.footage.blank`. ``advance`` is called after each picture.

    Raises ``ConfigError`` for checkpoints that are missing, do not fit or are not ``.safetensors``; for an ``output``
    that holds something else; and for more than 25 MB.
    """
    if output.exists():
        PackagedWeights.open(output)  # so that nothing else is replaced
    with FrameStore.open(store) as pictures, tempfile.TemporaryDirectory() as temporary:
        rounded, folder, packed = (Path(temporary) / name for name in ("rounded", "engines", "packed"))
        _round_checkpoints(preset, checkpoints, rounded)
        engines = EnginesDirectory(folder, build_engines(preset, folder, checkpoints=rounded, progress=say))
        packed.mkdir()
        for name in engines.manifest.graphs:
            _pack_graph(engines, name, packed=packed)
        with engines.open_runner("ensemble") as runner:
            embeddings = _embed(runner, pictures, advance=advance)
            blank = np.concatenate([runner.run(inputs)["embedding"] for inputs in _blank_inputs(runner)])
        pca = fit_pca(embeddings, num_components=preset.pca.num_components)
        save_pca(pca, packed / _PCA)
        rows = np.concatenate([_drawn_rows(embeddings, num_rows=num_norm_rows), blank])
        save_norm_set(pca.transform(rows), packed / _NORM_SET)
        manifest = _describe(engines.manifest, packed)
        size_bytes = sum(file.size_bytes for file in manifest.files)
        if size_bytes > MAX_SIZE_BYTES:
            raise ConfigError(f"the weights take {size_bytes / 1e6:.1f} MB, more than 25 MB; take fewer norm-set rows")
        (packed / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _replace(packed, output)
    return manifest


def _round_checkpoints(preset: Preset, folder: Path, output: Path) -> None:
    """Round all weights to float16, kept as float32: what is exported from them can be stored as float16 for good."""
    output.mkdir()
    for name in _checkpoints_of(preset):
        if not name.endswith(".safetensors"):
            raise ConfigError(f"weights are packed from .safetensors files, got {name}; save it as one")
        tensors = read_state(folder / name)
        rounded = {key: value.to(torch.float16).to(value.dtype) if value.is_floating_point() else value
                   for key, value in tensors.items()}  # fmt: skip
        if overflowing := [key for key, value in rounded.items() if not value.isfinite().all()]:
            raise ConfigError(f"{folder / name}: {overflowing[0]} holds values that float16 cannot, above 65504 or NaN")
        save_file(rounded, output / name)


def _checkpoints_of(preset: Preset) -> list[str]:
    from engine.build.export import checkpoints_of

    return [checkpoint for name in graph_parts(preset) for checkpoint in checkpoints_of(name, preset)]


def _pack_graph(engines: EnginesDirectory, name: str, *, packed: Path) -> None:
    """The graph as one file, and recorded outputs of it, which do not show photographs."""
    paths = [engines.path(file) for file in engines.manifest.graphs[name].files]
    graph, cases = (packed / f"{name}{suffix}" for suffix in GRAPH_SUFFIXES)
    store_float16(paths[0], graph)
    recorded = load_cases(paths[-1])
    with engines.open_runner(name) as runner:
        if any(spec.dtype == "uint8" for spec in runner.inputs):
            recorded = [_record(runner, num_rows) for num_rows in CHECKED_BATCHES]
    save_cases(recorded, cases)


def _record(runner: Runner, num_rows: int) -> Case:
    """A case for the compiled graph, which the build has compared with PyTorch on photographs."""
    inputs = _inputs(runner, [drawn_picture(seed) for seed in range(num_rows, 2 * num_rows)])
    return Case(inputs, runner.run(inputs))


def drawn_picture(seed: int) -> Frame:
    """Colored shapes before a soft background, sharp and blurred, RGB uint8 ``(240, 320, 3)``."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        centre = rng.integers(0, (320, 240)).tolist()
        axes = rng.integers(3, 50, 2).tolist()
        color = rng.integers(0, 256, 3).tolist()
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 1.5))), np.uint8)


def _inputs(runner: Runner, pictures: Sequence[Frame]) -> dict[str, Frames]:
    """The pictures as every input of an ensemble asks for them."""
    specs = [InputSpec(spec.name, int(spec.shape[1] or 0)) for spec in runner.inputs]
    return {spec.name: np.stack([fit_picture(picture, spec) for picture in pictures]) for spec in specs}


def _embed(runner: Runner, pictures: FrameStore, *, advance: Callable[[], None]) -> FloatArray:
    rows = []
    for start in range(0, len(pictures), BATCH_SIZE):
        chunk = [pictures.picture(index) for index in range(start, min(start + BATCH_SIZE, len(pictures)))]
        rows.append(runner.run(_inputs(runner, chunk))["embedding"])
        for _ in chunk:
            advance()
    return np.concatenate(rows)


def _blank_inputs(runner: Runner) -> Iterator[dict[str, Frames]]:
    sides = {spec.name: blank_pictures(int(spec.shape[1] or 0)) for spec in runner.inputs}
    for start in range(0, len(next(iter(sides.values()))), BATCH_SIZE):
        yield {name: pictures[start : start + BATCH_SIZE] for name, pictures in sides.items()}


def _drawn_rows(rows: FloatArray, *, num_rows: int) -> FloatArray:
    """At most ``num_rows`` of the rows, the same ones each time."""
    drawn = np.random.default_rng(0).permutation(len(rows))[:num_rows]
    return rows[np.sort(drawn)]


def _describe(built: Manifest, packed: Path) -> PackagedManifest:
    graphs = {
        name: tuple(record_file(packed / f"{name}{suffix}", directory=packed) for suffix in GRAPH_SUFFIXES)
        for name in built.graphs
    }
    return PackagedManifest(
        parts=graph_parts(built.preset),
        graphs=graphs,
        pca=record_file(packed / _PCA, directory=packed),
        norm_set=record_file(packed / _NORM_SET, directory=packed),
        versions=built.graphs["ensemble"].versions,
    )


def _replace(packed: Path, output: Path) -> None:
    aside, previous = (output.with_name(f".{output.name}.{what}") for what in ("aside", "previous"))
    for folder in (aside, previous):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(packed, aside)
    if output.exists():
        output.rename(previous)
    aside.rename(output)
    shutil.rmtree(previous, ignore_errors=True)


if __name__ == "__main__":
    app()
