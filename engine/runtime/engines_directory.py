"""An engines directory: its manifest, read once, and what lies in it, opened where a user of it asks."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engine.errors import ConfigError
from engine.projection import Pca, load_pca
from engine.records import FloatArray
from engine.runtime.manifest import MANIFEST_NAME, FileRecord, Manifest, Precision, build_advice, parse_manifest
from engine.runtime.runner import Runner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnginesDirectory:
    """The folder that `vsc-engine build` wrote, and its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the manifest; all engines must be there, with the right sizes.

        Hashes are not computed (`engine.runtime.manifest.is_intact` does that), and ``graphs/`` may be missing: only
        building needs it. Raises ``ConfigError`` that names what is wrong and the command that builds the engines.
        """
        if not folder.is_dir():
            raise ConfigError(f"engines directory {folder} does not exist; {build_advice('PRESET', folder)}")
        manifest = parse_manifest(folder / MANIFEST_NAME)
        directory = cls(folder, manifest)
        for file in (file for engine in manifest.engines.values() for file in engine.files):
            found = directory.path(file)
            size = found.stat().st_size if found.is_file() else None
            if size != file.size_bytes:
                problem = "is missing" if size is None else f"has {size} bytes instead of {file.size_bytes}"
                raise ConfigError(f"engine file {found} {problem}; {build_advice(manifest.preset.name, folder)}")
        return directory

    def path(self, file: FileRecord) -> Path:
        """Where a file of the directory lies."""
        return self.folder / file.path

    def pca(self) -> Pca | None:
        """The PCA that is folded into the ensemble, None if there is none."""
        record = self.manifest.pca
        return None if record is None else load_pca(self.path(record.file))

    def norm_set(self) -> FloatArray:
        """The norm set that came with the engines, float32 ``(M, D)``. Raises ``ConfigError`` if they have none."""
        record = self.manifest.norm_set
        if record is None:
            raise ConfigError(
                f"the engines in {self.folder} bring no norm set; name one with --norm-set: videos unrelated to both "
                "sides"
            )
        from engine.store.norm_set import load_norm_set  # brings pyarrow: 40 MB that describing does not need

        return load_norm_set(self.path(record))

    def open_runner(self, name: str, *, num_threads: int | None = None, unwanted: Collection[str] = ()) -> Runner:
        """The runner of engine ``name``: ``ensemble``, ``edit_features`` or ``edit_score``.

        It runs where the directory was built for, and nowhere else, in the precision that it was built in.
        ``num_threads``: CPU threads of one call; None takes all cores. ``unwanted``: outputs that the runner may leave
        out. Raises ``ConfigError`` if the directory has no such engine, or one that does not fit this machine;
        ``BackendUnavailable`` if the library or the device of its backend is not there.
        """
        engines = self.manifest.engines
        if name not in engines:
            raise ConfigError(f"{self.folder} has no engine {name!r}, only {sorted(engines)}")
        if self.manifest.backend == "tensorrt":
            from engine.runtime.tensorrt import open_tensorrt_runner

            return open_tensorrt_runner(self, name)
        from engine.runtime.openvino import OpenVinoRunner

        precision: Precision = "bf16" if name in self.manifest.bfloat16 else "fp32"
        logger.info("%s: OpenVINO on the CPU, %s", name, precision)
        return OpenVinoRunner(
            self.path(engines[name].main), num_threads=num_threads, precision=precision, unwanted=unwanted
        )
