"""Engines of a shipped preset in the user's cache folder, built on first use. Knows nothing of how they are built."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from engine.config import Preset, load_preset
from engine.errors import ConfigError
from engine.runtime.manifest import read_manifest
from engine.runtime.shipped import ShippedWeights, shipped_folder

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/vsc-engine``, by default ``~/.cache/vsc-engine``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vsc-engine"


def user_engines(preset_name: str) -> Path:
    """The folder with the engines of a preset; builds them if they are missing, or of another preset or weights.

    Raises ``BackendUnavailable`` if they must be exported and the extra ``build`` is not installed.
    """
    preset = load_preset(preset_name)
    folder = cache_folder() / "engines" / preset_name
    try:
        manifest = read_manifest(folder)
        if manifest.preset == preset and manifest.shipped_sha256 == _shipped_sha256(preset):
            return folder
    except ConfigError as error:
        logger.debug("no usable engines in %s: %s", folder, error)
    logger.warning("building the engines of preset %s into %s (first use)", preset_name, folder)
    from engine.runtime.build import build_engines

    build_engines(preset, folder, progress=logger.info)
    return folder


def _shipped_sha256(preset: Preset) -> str | None:
    return None if preset.weights is None else ShippedWeights.open(shipped_folder(preset.weights)).sha256
