"""Who opens video files when an upload is compared: this process, or one in its place that may die of a bad file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from engine.catalog.records import CatalogVideo
from engine.describe.engine import Engine
from engine.evidence.frames import Viewer
from engine.evidence.geometry import verify
from engine.records import CandidatePair, Descriptors, Match, Role
from engine.storage.location import Location
from engine.store.shards import Fingerprint


class FileReader(Protocol):
    """Opens the video files of one upload and of what it is compared with."""

    def describe(self, path: Location, *, role: Role, video_id: str | None) -> Descriptors:
        """As `engine.describe.engine.Engine.describe_file`."""

    def verified(
        self,
        matches: Sequence[Match],
        candidates: Sequence[CandidatePair],
        query_paths: Mapping[str, Location],
        ref_paths: Mapping[str, Location],
    ) -> list[Match]:
        """The matches, in order, with what pictures of the best of them show; see `engine.evidence.geometry.verify`."""


def file_state(video: CatalogVideo) -> Literal["there", "gone", "changed", "never known"]:
    """What has become of the file that a video of a catalogue was described from.

    One of another size has changed; copying and restoring files leaves that as it was, but not their times.
    """
    if video.fingerprint is None:
        return "never known"
    try:
        now = Fingerprint.of(video.path)
    except OSError:
        return "gone"
    return "there" if now.size_bytes == video.fingerprint.size_bytes else "changed"


class EngineReader:
    """The `FileReader` of this process. ``engine`` is open; ``viewer`` looks at pictures."""

    def __init__(self, engine: Engine, viewer: Viewer) -> None:
        self._engine = engine
        self._viewer = viewer

    def describe(self, path: Location, *, role: Role, video_id: str | None) -> Descriptors:
        """See `FileReader.describe`."""
        return self._engine.describe_file(path, role=role, video_id=video_id)

    def verified(
        self,
        matches: Sequence[Match],
        candidates: Sequence[CandidatePair],
        query_paths: Mapping[str, Location],
        ref_paths: Mapping[str, Location],
    ) -> list[Match]:
        """See `FileReader.verified`."""
        config = self._engine.preset.localization
        start_s = time.perf_counter()
        found = verify(matches, candidates, query_paths, ref_paths, config=config, viewers=[self._viewer])
        self._engine.times.add("verify", time.perf_counter() - start_s)
        return [item.match for item in found]
