from __future__ import annotations

import builtins
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from engine.errors import ConfigError
from engine.models.pickles import is_torchscript, read_sklearn_pca, read_torchscript

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")]


class Layers(nn.Module):
    """Every kind of thing a traced archive can hold: dtypes, buffers, sharing, views, empty and missing tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.shared = nn.Linear(3, 4)
        self.shared.weight = self.first.weight
        self.halves = nn.Linear(4, 4).half()
        self.blocks = nn.Sequential(nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 2, bias=False)))
        self.register_buffer("hidden", torch.full((4,), 2.0), persistent=False)
        self.register_buffer("index", torch.arange(6).reshape(2, 3))
        self.register_buffer("view", torch.arange(20.0).reshape(4, 5)[1:, ::2].T)
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.register_buffer("absent", None)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.first(rows) + self.shared(rows) + self.hidden)


@pytest.fixture
def layers() -> Layers:
    torch.manual_seed(0)
    return Layers().eval()


@pytest.fixture
def archive(layers: Layers, tmp_path: Path) -> Path:
    path = tmp_path / "layers.torchscript.pt"
    torch.jit.save(torch.jit.trace(layers, torch.ones(2, 3)), path)
    return path


@pytest.fixture
def fitted() -> PCA:
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    return PCA(n_components=4, random_state=2023).fit(rows)


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def with_data(archive: Path, content: bytes, *, path: Path) -> Path:
    """A copy of an archive with another ``data.pkl``."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            target.writestr(info, content if info.filename.endswith("/data.pkl") else source.read(info))
    return path


def test_traced_archive_gives_all_tensors_under_their_names(layers: Layers, archive: Path) -> None:
    tensors = read_torchscript(archive)
    expected = dict(layers.state_dict()) | {"hidden": layers.hidden}
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name], tensor), name


def test_scripted_archive_gives_its_state(tmp_path: Path) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    torch.jit.save(scripted, tmp_path / "scripted.pt")
    tensors = read_torchscript(tmp_path / "scripted.pt")
    assert tensors.keys() == scripted.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in scripted.state_dict().items())


def test_code_of_an_archive_is_not_looked_at(layers: Layers, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "other_code.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            target.writestr(info, b"not TorchScript" if "/code/" in info.filename else source.read(info))
    with pytest.raises(RuntimeError):
        torch.jit.load(path)
    assert torch.equal(read_torchscript(path)["first.weight"], layers.first.weight)


def test_only_torchscript_archives_are_taken_for_such(archive: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("text")
    assert is_torchscript(archive)
    assert not is_torchscript(tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "text.pt")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(os.system, "exit 1"), f"{os.name}.system"),
        (Calls(builtins.eval, "1"), "builtins.eval"),
        (Calls(builtins.getattr, "", "join"), "builtins.getattr"),
        (Calls(torch.load, "file"), "torch.serialization.load"),
        (Calls(torch.jit.load, "file"), "torch.jit._serialization.load"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_archive_that_calls_a_function_is_refused_by_its_name(
    call: object, name: str, archive: Path, tmp_path: Path
) -> None:
    path = with_data(archive, pickle.dumps(call), path=tmp_path / "crafted.pt")
    with pytest.raises(ConfigError, match=f"crafted.pt asks for {name}, which such a file does not need"):
        read_torchscript(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"weight": 1}, protocol=2), "the top of its data is not a module"),
        (b"\x80\x02c__torch__\nA\n)\x81}X\x01\x00\x00\x00aNs", "ran out of data|Ran out of input"),
        (b"\x80\x02c__torch__\nA\n.", "the top of its data is not a module"),
        # A module that holds itself.
        (b"\x80\x02c__torch__\nA\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.", "RecursionError"),
    ],
)
def test_archive_with_other_data_is_refused(content: bytes, reason: str, archive: Path, tmp_path: Path) -> None:
    path = with_data(archive, content, path=tmp_path / "crafted.pt")
    with pytest.raises(ConfigError, match=f"not a readable TorchScript archive: .*({reason})"):
        read_torchscript(path)


def test_archive_with_a_short_storage_is_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info, content[:-4] if info.filename.endswith("data/0") else content)
    with pytest.raises(ConfigError, match=r"storage 0 has \d+ bytes, expected"):
        read_torchscript(path)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_truncated_archive_is_refused(archive: Path, kept: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ConfigError, match="is not a readable TorchScript archive"):
        read_torchscript(archive)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pca_gives_the_attributes_of_the_fit(fitted: PCA, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(fitted, protocol=protocol))
    attributes = read_sklearn_pca(tmp_path / "pca.pkl")
    for name in ("mean_", "components_", "explained_variance_", "singular_values_"):
        np.testing.assert_array_equal(attributes[name], getattr(fitted, name))
        assert attributes[name].dtype == np.float32
    assert attributes["noise_variance_"] == fitted.noise_variance_
    assert attributes["whiten"] is False


def test_pca_of_old_libraries_is_read_under_their_names(fitted: PCA, tmp_path: Path) -> None:
    content = pickle.dumps(fitted, protocol=3)
    old = content.replace(b"sklearn.decomposition._pca\n", b"sklearn.decomposition.pca\n")
    old = old.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert b"_pca\n" not in old
    assert b"_core" not in old
    (tmp_path / "pca.pkl").write_bytes(old)
    np.testing.assert_array_equal(read_sklearn_pca(tmp_path / "pca.pkl")["components_"], fitted.components_)


@pytest.mark.parametrize("protocol", [3, 5])
@pytest.mark.parametrize("dtype", ["<f8", ">f4"])
def test_pca_keeps_byte_order_and_memory_order(fitted: PCA, protocol: int, dtype: str, tmp_path: Path) -> None:
    fitted.components_ = np.asfortranarray(fitted.components_, dtype=dtype)
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(fitted, protocol=protocol))
    np.testing.assert_array_equal(read_sklearn_pca(tmp_path / "pca.pkl")["components_"], fitted.components_)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(os.system, "exit 1"), f"{os.name}.system"),
        (Calls(builtins.exec, "1"), "builtins.exec"),
        (Calls(np.load, "file"), "numpy.load"),
        (np.random.default_rng(0), "numpy.random._pickle.__generator_ctor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pca_that_calls_a_function_is_refused_by_its_name(
    fitted: PCA, value: object, name: str, tmp_path: Path
) -> None:
    fitted.extra_ = value
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(fitted))
    with pytest.raises(ConfigError, match=f"asks for {name}, which such a file does not need"):
        read_sklearn_pca(tmp_path / "pca.pkl")


def test_pca_with_arrays_of_objects_is_refused(fitted: PCA, tmp_path: Path) -> None:
    fitted.mean_ = np.array([None, "text"], dtype=object)
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(fitted))
    with pytest.raises(ConfigError, match="not a readable pickle of a PCA"):
        read_sklearn_pca(tmp_path / "pca.pkl")


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1, 2]), pickle.dumps(PCA())[:-20]])
def test_other_files_are_refused_as_pca(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pca.pkl").write_bytes(content)
    with pytest.raises(ConfigError, match="not a readable pickle of a PCA"):
        read_sklearn_pca(tmp_path / "pca.pkl")


def test_missing_pca_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        read_sklearn_pca(tmp_path / "pca.pkl")
