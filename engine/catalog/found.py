"""What searching some videos of a catalogue for an upload gave, in a form that is put together with that of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.catalog.records import CatalogVideo
from engine.errors import StoreError
from engine.records import Descriptors
from engine.search.rows import RowPairs, best_of


@dataclass(frozen=True, eq=False)
class Found:
    """The best pairs of rows of an upload and some videos, best first.

    ``videos``: those that occur, sorted by id. ``pairs.ref_rows`` count through the rows of these videos, in order.
    """

    videos: tuple[CatalogVideo, ...]
    pairs: RowPairs

    @classmethod
    def among(cls, videos: Sequence[CatalogVideo], pairs: RowPairs) -> Self:
        """``pairs``: as found among all rows of ``videos``, which are sorted by id."""
        starts = _starts(videos)
        occurring, places = np.unique(_of_row(starts, pairs.ref_rows), return_inverse=True)
        kept = tuple(videos[place] for place in occurring.tolist())
        shifts = _starts(kept)[:-1] - starts[occurring]
        return cls(kept, pairs._replace(ref_rows=pairs.ref_rows + shifts[places]))

    @classmethod
    def best_of(cls, parts: Sequence[Self], *, k: int) -> Self:
        """The ``k`` best of all parts, in the order of one search of all their videos.

        Raises ``StoreError`` for a video that is in two parts.
        """
        videos = sorted((video for part in parts for video in part.videos), key=lambda video: video.video_id)
        places = {video.video_id: place for place, video in enumerate(videos)}
        if len(places) < len(videos):
            raise StoreError("two shares of the catalogue hold the same video; `vsc-engine catalog verify` names it")
        starts = _starts(videos)
        renumbered = []
        for part in parts:
            own = _starts(part.videos)
            own_places = np.array([places[video.video_id] for video in part.videos], dtype=np.int64)
            shifts = starts[own_places] - own[:-1]
            ref_rows = part.pairs.ref_rows + shifts[_of_row(own, part.pairs.ref_rows)]
            renumbered.append(part.pairs._replace(ref_rows=ref_rows))
        return cls(tuple(videos), best_of(renumbered, k=k))

    def num_rows(self) -> dict[str, int]:
        """How many rows each video has, by id, in order."""
        return {video.video_id: video.num_rows for video in self.videos}


@dataclass(frozen=True, eq=False)
class ShareAnswer:
    """What one share of a catalogue has in common with an upload.

    ``num_videos``: of the share. ``references``: its own best candidates, as they are compared, which may be localized;
    those of the whole catalogue that lie on it are among them. ``duplicates``: the videos whose files have the same
    bytes.
    """

    num_videos: int
    found: Found
    references: tuple[Descriptors, ...]
    duplicates: tuple[CatalogVideo, ...]


def nothing_found() -> Found:
    """Of no videos."""
    rows = np.empty(0, dtype=np.int64)
    return Found((), RowPairs(rows, rows, np.empty(0, dtype=np.float32)))


def _starts(videos: Sequence[CatalogVideo]) -> NDArray[np.int64]:
    """The first row of each video, and the number of all rows."""
    return np.cumsum([0, *(video.num_rows for video in videos)], dtype=np.int64)


def _of_row(starts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of the video of each row."""
    return np.searchsorted(starts, rows, side="right") - 1
