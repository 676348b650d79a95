"""NumPy archives on disk: read without pickles, replaced all at once. Knows nothing of what the arrays mean."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.atomic import written_aside


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file by name.

    Raises ``ValueError`` with one line that says why not: no such file, not an archive, damaged, or an array of Python
    objects, which only unpickling (running code out of the file) could read.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a NumPy .npz archive, or was cut short")
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = np.asarray(archive[name])
    except ValueError as error:
        if "Object arrays" in str(error):
            raise ValueError(
                f"{path}: array {name!r} holds Python objects, which only unpickling could read, and that may run any "
                "code; save it again with a plain dtype (strings as dtype 'U')"
            ) from error
        raise ValueError(f"{path} is damaged: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return arrays


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` as an uncompressed ``.npz``; the same arrays give the same bytes."""
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
