"""The share of the inputs that one job of many describes (``--shard 3/8``). Knows no stores and no files.

A video belongs to a share by the hash of its id, never by its place among the others: when a folder grows, no video
moves to another share, so that each job goes on with its own store. The shares of N videos differ by about the square
root of N / count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from engine.errors import ConfigError
from engine.version import __version__


class InputShard(BaseModel):
    """Share ``number`` of ``count``, counted from 1, and the version of vsc-engine that describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    count: int
    version: str = __version__

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NUMBER/COUNT``. Raises ``ConfigError`` unless 1 <= NUMBER <= COUNT."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--shard {text}: expected NUMBER/COUNT with 1 <= NUMBER <= COUNT, such as 3/8")
        return cls(number=int(found[1]), count=int(found[2]))

    def holds(self, video_id: str) -> bool:
        """Whether a video belongs to this share."""
        digest = hashlib.sha256(video_id.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def missing_shards(shards: Sequence[InputShard]) -> list[str]:
    """The shares of the same whole that are not among ``shards``, such as ``["3/8"]``; none where there are none."""
    present = {shard.number for shard in shards}
    count = max((shard.count for shard in shards), default=0)
    return [f"{number}/{count}" for number in range(1, count + 1) if number not in present]
