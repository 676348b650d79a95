"""Where the queries, references and ground truth of an evaluation set lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError


@dataclass(frozen=True)
class DataSet:
    """The folders of an evaluation set and its ground truth (the challenge's CSV of segments)."""

    name: str
    queries: Path
    references: Path
    ground_truth: Path


def find_data_set(folder: Path) -> DataSet:
    """The set in ``folder``: ``query`` or ``queries``, ``reference`` or ``references``, ``*matching_ground_truth.csv``.

    Raises ``ConfigError`` unless there is exactly one of each.
    """
    return DataSet(
        folder.resolve().name,
        queries=_only(folder, ("query", "queries")),
        references=_only(folder, ("reference", "references")),
        ground_truth=_only(folder, ("*matching_ground_truth.csv",)),
    )


def _only(folder: Path, patterns: Sequence[str]) -> Path:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if len(found) != 1:
        raise ConfigError(
            f"{folder} is not an evaluation set: expected exactly one of {' or '.join(patterns)}, "
            f"got {[path.name for path in found]}"
        )
    return found[0]
