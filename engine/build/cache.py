"""Engines of a preset whose weights come with the package, in the user's cache folder, built on first use."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from engine.build.packaged import PackagedWeights, packaged_folder
from engine.config import load_preset
from engine.errors import ConfigError
from engine.runtime.engines_directory import EnginesDirectory

logger = logging.getLogger(__name__)

_DIGITS = 12
_ADVICE = "set XDG_CACHE_HOME to a folder that can be written, or name engines with --engines"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/vsc-engine``, by default ``~/.cache/vsc-engine``. Raises ``ConfigError`` without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vsc-engine"
    except RuntimeError as error:
        raise ConfigError(f"this user has no home folder to keep built engines in; {_ADVICE}") from error


def user_engines(preset_name: str) -> EnginesDirectory:
    """The engines of a preset in `cache_folder`; builds them if they are missing or damaged.

    Their folder is named for the preset as it is and the weights in the package, so that versions of the package that
    run side by side keep engines of their own. Raises ``BackendUnavailable`` if they must be exported and the extra
    ``build`` is not installed, and ``ConfigError`` where the folder cannot be made.
    """
    preset = load_preset(preset_name)
    weights_sha256 = PackagedWeights.open(packaged_folder(preset.weights)).sha256 if preset.weights else ""
    digest = hashlib.sha256(f"{preset.model_dump_json()} {weights_sha256}".encode()).hexdigest()
    folder = cache_folder() / "engines" / f"{preset_name}-{digest[:_DIGITS]}"
    try:
        engines = EnginesDirectory.open(folder)
        if engines.manifest.preset == preset and engines.manifest.shipped_sha256 == (weights_sha256 or None):
            return engines
    except ConfigError as error:
        logger.debug("no usable engines in %s: %s", folder, error)
    logger.warning("building the engines of preset %s into %s (first use)", preset_name, folder)
    from engine.build.engines import build_engines

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot keep built engines in {folder} ({error.strerror}); {_ADVICE}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"cannot keep built engines in {folder} (not writable); {_ADVICE}")
    return EnginesDirectory(folder, build_engines(preset, folder, progress=logger.info))
