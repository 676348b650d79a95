"""Trained weights packed for the package: half the size, the same bytes each time, and what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.build.engines import build_engines
from engine.build.export import Ensemble
from engine.build.packaged import PackagedWeights
from engine.build.parity import load_cases
from engine.config import Preset, load_preset
from engine.errors import ConfigError
from engine.models.checkpoints import random_weights
from engine.models.descriptor import build_descriptor_model
from engine.runtime.engines_directory import EnginesDirectory
from engine.store.norm_set import load_norm_set
from training.footage.blank import blank_pictures
from training.pack import CHECKED_BATCHES, drawn_picture, pack
from training.store.frame_store import build_store, find_sources
from training.unpack import unpack

pytestmark = pytest.mark.torch

NUM_PICTURES = 21


def make_preset(*, num_components: int = 8) -> Preset:
    """One untrained model of preset lite's kind, without a gate."""
    values = load_preset("lite").model_dump()
    model = values["models"][0] | {"architecture": "efficientnet_lite0_gem512", "checkpoint": "best.safetensors"}
    changes = {"weights": None, "gate": {"mode": "off"}, "models": [model], "pca": {"num_components": num_components}}
    return Preset.model_validate(values | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of a training and a frame store."""
    folder = tmp_path_factory.mktemp("trained")
    model = build_descriptor_model("efficientnet_lite0_gem512")
    random_weights(model, seed=1)
    save_file(model.state_dict(), folder / "best.safetensors")
    (folder / "photos").mkdir()
    for seed in range(NUM_PICTURES):
        Image.fromarray(drawn_picture(100 + seed)).save(folder / "photos" / f"{seed:02d}.png")
    build_store(find_sources([folder / "photos"]), folder / "store")
    return folder


@pytest.fixture(scope="module")
def packed(trained: Path) -> Path:
    pack(make_preset(), trained / "packed", checkpoints=trained, store=trained / "store", num_norm_rows=12)
    return trained / "packed"


@pytest.mark.long
def test_the_weights_are_stored_as_float16(packed: Path, trained: Path) -> None:
    size_bytes = (packed / "ensemble.onnx").stat().st_size
    assert size_bytes < 0.53 * (trained / "best.safetensors").stat().st_size


@pytest.mark.long
def test_the_same_input_gives_the_same_bytes(packed: Path, trained: Path) -> None:
    again = trained / "again"
    pack(make_preset(), again, checkpoints=trained, store=trained / "store", num_norm_rows=12)
    files = {path.name: path.read_bytes() for path in packed.iterdir()}
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files


def test_engines_of_it_compute_what_pytorch_computes_with_rounded_weights(packed: Path, trained: Path) -> None:
    preset = make_preset()
    model = build_descriptor_model("efficientnet_lite0_gem512")
    model.load_state_dict(
        {name: value.to(torch.float16).float() for name, value in load_file(trained / "best.safetensors").items()}
    )
    ensemble = Ensemble(preset.models, [model]).eval()
    build_engines(preset, trained / "engines", packaged=packed)
    for case in load_cases(packed / "ensemble.check.npz"):
        with torch.inference_mode():
            expected = ensemble(torch.from_numpy(case.inputs["frames_224"]))[0].numpy()
        with EnginesDirectory.open(trained / "engines").open_runner("ensemble") as runner:
            got = runner.run(case.inputs)["embedding"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6)


def test_cases_and_norm_set_are_as_asked(packed: Path) -> None:
    cases = load_cases(packed / "ensemble.check.npz")
    assert [len(case.inputs["frames_224"]) for case in cases] == list(CHECKED_BATCHES)
    assert load_norm_set(packed / "norm_set.npz").shape == (12 + len(blank_pictures(8)), 8)
    assert PackagedWeights.open(packed).manifest.versions.keys() == {"torch", "timm", "onnx", "onnxscript"}


def test_what_is_not_a_pack_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds no weights"):
        pack(make_preset(), tmp_path, checkpoints=trained, store=trained / "store")
    assert (tmp_path / "notes.txt").exists()


def test_values_beyond_float16_fail(trained: Path, tmp_path: Path) -> None:
    state = load_file(trained / "best.safetensors")
    state["projection.bias"][0] = 1e6
    save_file(state, tmp_path / "best.safetensors")
    with pytest.raises(ConfigError, match=r"projection\.bias holds values that float16 cannot"):
        pack(make_preset(), tmp_path / "packed", checkpoints=tmp_path, store=trained / "store")
    assert not (tmp_path / "packed").exists()


def test_other_formats_fail(trained: Path, tmp_path: Path) -> None:
    preset = make_preset()
    other = preset.model_copy(update={"models": (preset.models[0].model_copy(update={"checkpoint": "best.pt"}),)})
    with pytest.raises(ConfigError, match=r"packed from \.safetensors files, got best\.pt"):
        pack(other, tmp_path / "packed", checkpoints=trained, store=trained / "store")


def test_missing_checkpoints_fail(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"best\.safetensors is not a readable safetensors file"):
        pack(make_preset(), tmp_path / "packed", checkpoints=tmp_path, store=trained / "store")


def test_unpacked_weights_are_the_rounded_ones_and_fit_the_model(packed: Path, trained: Path) -> None:
    model = build_descriptor_model("efficientnet_lite0_gem512")
    tensors = unpack(packed / "ensemble.onnx", model)
    stored = load_file(trained / "best.safetensors")
    assert all(torch.equal(tensor, stored[name].half().float()) for name, tensor in tensors.items())
    model.load_state_dict(tensors)
    with pytest.raises(ConfigError, match="is of another model"):
        unpack(packed / "ensemble.onnx", torch.nn.Linear(2, 3))
