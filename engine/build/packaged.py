"""Weights that come with the package: the exported graphs of a preset, recorded outputs, a PCA and a norm set.

A folder of ``engine/weights`` holds, beside ``manifest.json``, for each graph ``NAME.onnx`` (weights inside, as float16
where that loses nothing) and ``NAME.check.npz``, and ``pca.npz`` and ``norm_set.npz``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import ConfigError
from engine.runtime.manifest import MANIFEST_NAME, FileRecord, is_intact

FORMAT_VERSION = 1
GRAPH_SUFFIXES = (".onnx", ".check.npz")


class PackagedManifest(BaseModel):
    """What a folder of weights holds.

    ``parts`` are the `graph_parts` of the preset that the graphs were exported for, ``graphs`` the files of each graph,
    ``versions`` the libraries that exported them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    parts: dict[str, dict[str, Any]]
    graphs: dict[str, tuple[FileRecord, ...]]
    pca: FileRecord
    norm_set: FileRecord
    versions: dict[str, str]

    @property
    def files(self) -> list[FileRecord]:
        """Every file but the manifest."""
        return [*(file for files in self.graphs.values() for file in files), self.pca, self.norm_set]


@dataclass(frozen=True)
class PackagedWeights:
    """A folder of weights; ``sha256`` is that of its manifest, which holds the hashes of all else."""

    folder: Path
    manifest: PackagedManifest
    sha256: str

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the manifest. Raises ``ConfigError`` if it is missing or not readable."""
        path = folder / MANIFEST_NAME
        try:
            content = path.read_bytes()
            values = json.loads(content)
            version = values["format_version"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(f"{folder} holds no weights: {path.name} is missing or damaged ({error})") from error
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"{path} has format version {version}, this version reads {FORMAT_VERSION}; pack it again"
            )
        try:
            manifest = PackagedManifest.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{path} is damaged: {error.errors()[0]['msg']}; install the package again") from error
        return cls(folder, manifest, hashlib.sha256(content).hexdigest())

    def path(self, file: FileRecord) -> Path:
        """Where a file of the folder is. Raises ``ConfigError`` if it is not as recorded."""
        if not is_intact(file, directory=self.folder):
            raise ConfigError(f"{self.folder / file.path} is missing or damaged; install the package again")
        return self.folder / file.path


def packaged_folder(name: str) -> Path:
    """Where the weights called ``name`` lie in the package, whether or not they are there."""
    return Path(str(resources.files("engine") / "weights" / name))
