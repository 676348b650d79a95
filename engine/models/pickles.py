"""Reads arrays out of pickles without running any code of theirs.

A pickle is a program that may call whatever it can name. Here it can name only the passive pieces that are listed; the
first other name ends the reading with an error. Two kinds of file are read: TorchScript archives (whose code is not
looked at either, unlike with ``torch.jit.load``) and scikit-learn's fitted PCA (without scikit-learn).
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import ConfigError

DAMAGE = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What unpacking, unpickling and the rebuilding of arrays raise on files that are missing, damaged or made up."""

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_ARRAY_DTYPES = ("f4", "f8", "i4", "i8")


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive: a zip file that carries, beside data, a table of constants."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """All tensors of a TorchScript archive under their dotted attribute names: parameters and buffers.

    Raises ``ConfigError`` for a file that is damaged or that names anything but tensors and module attributes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            [root] = {name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")}
            module = _TorchScriptUnpickler(archive, root=root, path=path).load()
        if not isinstance(module, _Attributes):
            raise TypeError("the top of its data is not a module")
        return dict(_tensors(module, prefix=""))
    except DAMAGE as error:
        raise ConfigError(f"{path} is not a readable TorchScript archive: {error!r}; fetch or copy it again") from error


def read_sklearn_pca(path: Path) -> dict[str, Any]:
    """The attributes of a pickled ``sklearn.decomposition.PCA``; arrays as NumPy arrays.

    Raises ``ConfigError`` for a file that is damaged or that names anything but the PCA and its arrays.
    """
    try:
        fitted = _PcaUnpickler(path.read_bytes(), path=path).load()
        if not isinstance(fitted, _Attributes):
            raise TypeError("the object is not a PCA")
        return {name: value.to_numpy() if isinstance(value, _Array) else value for name, value in fitted.values.items()}
    except DAMAGE as error:
        raise ConfigError(f"{path} is not a readable pickle of a PCA: {error!r}; fetch or copy it again") from error


def refusal(path: Path, name: str) -> str:
    """The text of an error about a pickle that asks for a name it has no need of."""
    return (
        f"{path} asks for {name}, which such a file does not need and which could run code; nothing was run. "
        "Get the file from a source you trust, and do not unpickle this one"
    )


class _Attributes:
    """Stands for any object: keeps the attributes it is given."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.values = dict(state)


def _tensors(module: _Attributes, *, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.values.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Attributes):
            yield from _tensors(value, prefix=f"{prefix}{name}.")


class _RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names that `_known` knows, and no other."""

    def __init__(self, content: bytes, *, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path

    def find_class(self, module_name: str, global_name: str) -> Any:
        known = self._known(module_name, global_name)
        if known is None:
            raise ConfigError(refusal(self._path, f"{module_name}.{global_name}"))
        return known

    def _known(self, module_name: str, global_name: str) -> Any:
        raise NotImplementedError


class _TorchScriptUnpickler(_RestrictedUnpickler):
    """Module attributes and tensors; storages are read from the archive."""

    def __init__(self, archive: zipfile.ZipFile, *, root: str, path: Path) -> None:
        super().__init__(archive.read(f"{root}data.pkl"), path=path)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def _known(self, module_name: str, global_name: str) -> Any:
        if module_name == "__torch__" or module_name.startswith("__torch__."):
            return _Attributes
        if module_name == "torch":
            return _STORAGE_DTYPES.get(global_name)
        return {
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("collections", "OrderedDict"): dict,
        }.get((module_name, global_name))

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage ``("storage", dtype, key, device, number of elements)`` as a flat tensor."""
        _, dtype, key, _, num_elements = pid
        if key not in self._storages:
            content = self._archive.read(f"{self._root}data/{key}")
            if len(content) != num_elements * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(content)} bytes, expected {num_elements} of {dtype}")
            self._storages[key] = torch.empty(num_elements, dtype=dtype)
            self._storages[key].view(torch.uint8).numpy()[:] = np.frombuffer(content, dtype=np.uint8)
        return self._storages[key]

    def _rebuild_tensor(
        self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Tensor:
        return storage.as_strided(size, stride, offset)


class _PcaUnpickler(_RestrictedUnpickler):
    """The attributes of a PCA, and NumPy arrays and scalars under the names of NumPy 1 and 2."""

    def _known(self, module_name: str, global_name: str) -> Any:
        # numpy.core became numpy._core with NumPy 2, sklearn.decomposition.pca became _pca with scikit-learn 0.22.
        public = module_name.replace("numpy._core", "numpy.core").replace("decomposition._pca", "decomposition.pca")
        return {
            ("sklearn.decomposition.pca", "PCA"): _Attributes,
            ("numpy.core.multiarray", "_reconstruct"): self._empty_array,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
        }.get((public, global_name))

    def _empty_array(self, *_: Any) -> _Array:
        return _Array()

    def _scalar(self, dtype: _Dtype, content: bytes) -> float:
        return float(np.frombuffer(content, dtype=dtype.numpy)[0])

    def _array(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array


class _Dtype:
    """The dtype of a pickled array: its code and byte order, nothing else of what a NumPy dtype can hold."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code = code
        self._byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._byte_order = {"<": "<", ">": ">"}[state[1]]

    @property
    def numpy(self) -> np.dtype[Any]:
        if self._code not in _ARRAY_DTYPES:
            raise ValueError(f"an array of dtype {self._code!r}, expected one of {_ARRAY_DTYPES}")
        return np.dtype(self._byte_order + self._code)


class _Array:
    """A pickled array; checked and made on demand from its shape, dtype, order and bytes."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, self._shape, self._dtype, self._is_fortran, self._content = state

    def to_numpy(self) -> NDArray[Any]:
        flat = np.frombuffer(self._content, dtype=self._dtype.numpy)
        if flat.size != math.prod(self._shape):
            raise ValueError(f"an array of shape {self._shape} has {flat.size} values")
        return flat.reshape(self._shape, order="F" if self._is_fortran else "C")
