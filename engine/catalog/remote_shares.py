"""The shares of a catalogue in actors of a Ray cluster, which open them from the same paths as this process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from engine.catalog.found import ShareAnswer
from engine.catalog.manifest import CatalogManifest
from engine.catalog.records import CatalogVideo
from engine.catalog.share_search import ShareSearch
from engine.catalog.shares import open_share, share_folders
from engine.errors import BackendUnavailable
from engine.records import Descriptors
from engine.search.score_norm import ScoreNormalizer
from engine.storage.location import Location

try:
    from engine.run.ray_actors import RayActor, RayActors
except ModuleNotFoundError as _error:
    raise BackendUnavailable("a search on a cluster needs Ray: pip install 'vsc-engine[cluster]'") from _error


ANSWER_TIMEOUT_S = 300.0
"""An answer takes no longer, even of an actor that must read its share first."""


class RemoteShare:
    """A `engine.catalog.matching.Share` that asks an actor."""

    def __init__(self, actor: RayActor[ShareSearch]) -> None:
        self._actor = actor

    def search(self, query: Descriptors, ready: Descriptors, *, sha256: str | None) -> ShareAnswer:
        """See `ShareSearch.search`."""
        answer: ShareAnswer = self._actor.call("search", query, ready, sha256=sha256)
        return answer

    def nearest_cosine(self, query: Descriptors) -> np.float32 | None:
        """See `ShareSearch.nearest_cosine`."""
        cosine: np.float32 | None = self._actor.call("nearest_cosine", query)
        return cosine

    def videos(self) -> list[CatalogVideo]:
        """See `ShareSearch.videos`."""
        videos: list[CatalogVideo] = self._actor.call("videos")
        return videos


def open_remote_shares(
    folder: Location, manifest: CatalogManifest, *, normalizer: ScoreNormalizer | None, cluster: str
) -> list[RemoteShare]:
    """An actor for each share. Raises ``EngineError`` where no cluster answers; the shares are opened when asked."""
    actors = RayActors(cluster)
    shared = actors.share(normalizer)
    if isinstance(folder, Path):
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - an actor has another current folder
    folders = share_folders(folder, manifest)
    return [
        RemoteShare(
            actors.host(
                _opened,
                share,
                manifest,
                shared,
                what=f"the share {share.name}",
                num_actors=len(folders),
                timeout_s=ANSWER_TIMEOUT_S,
            )
        )
        for share in folders
    ]


def _opened(share: Location, manifest: CatalogManifest, normalizer: ScoreNormalizer | None) -> ShareSearch:
    return ShareSearch(open_share(share, manifest), preset=manifest.preset, normalizer=normalizer)
