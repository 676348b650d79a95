"""Engines of a shipped preset in the user's cache folder, built on first use. Knows nothing of how they are built."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from engine.config import load_preset
from engine.errors import ConfigError
from engine.runtime.manifest import read_manifest

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/vsc-engine``, by default ``~/.cache/vsc-engine``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vsc-engine"


def user_engines(preset_name: str) -> Path:
    """The folder with the engines of a preset; builds them if they are missing or built for another preset version.

    Raises ``BackendUnavailable`` if they must be built and the extra ``build`` is not installed.
    """
    preset = load_preset(preset_name)
    folder = cache_folder() / "engines" / preset_name
    try:
        if read_manifest(folder).preset == preset:
            return folder
    except ConfigError as error:
        logger.debug("no usable engines in %s: %s", folder, error)
    logger.warning("building the engines of preset %s into %s (first use)", preset_name, folder)
    from engine.runtime.build import build_engines

    build_engines(preset, folder, progress=logger.info)
    return folder
