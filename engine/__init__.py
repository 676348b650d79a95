"""vsc-engine: video files to copy-detection descriptors, and which pairs are copies.

Importing the package loads no heavy library; what needs one is imported when it is first used. What words mean is
in docs/glossary.md, where a change goes in docs/architecture.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from engine.errors import BackendUnavailable, ConfigError, EngineError, MediaError, StoreError
from engine.version import __version__

if TYPE_CHECKING:
    from engine.catalog.catalog import Catalog
    from engine.describe.engine import Engine
    from engine.records import CandidatePair, Descriptors, Failure, Match
    from engine.store.arrow import to_arrow, to_pandas

__all__ = [
    "BackendUnavailable",
    "CandidatePair",
    "Catalog",
    "ConfigError",
    "Descriptors",
    "Engine",
    "EngineError",
    "Failure",
    "Match",
    "MediaError",
    "StoreError",
    "__version__",
    "to_arrow",
    "to_pandas",
]

_HOMES = {
    "Catalog": "catalog.catalog",
    "Engine": "describe.engine",
    "CandidatePair": "records",
    "Descriptors": "records",
    "Failure": "records",
    "Match": "records",
    "to_arrow": "store.arrow",
    "to_pandas": "store.arrow",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"engine.{_HOMES[name]}"), name)
