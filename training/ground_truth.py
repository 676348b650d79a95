"""The annotated copies that both trainers learn from."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ConfigError
from engine.records import Match
from engine.store.tables import read_ground_truth


def read_segments(path: Path) -> list[Match]:
    """The annotated segments of a ground-truth CSV. Raises ``ConfigError`` for one that names pairs of videos only."""
    matches = read_ground_truth(path).matches
    if matches is None:
        raise ConfigError(f"{path} names no segments; the matching ground truth is needed")
    return list(matches)
