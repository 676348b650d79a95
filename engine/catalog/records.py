"""What a catalogue tells: its videos, what `add` did, whether it is whole, and what an upload has in common with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.evaluate.calibration import Verdict, VerdictScores
from engine.records import CandidatePair, Failure, Match
from engine.storage.location import Location
from engine.store.shards import Fingerprint


@dataclass(frozen=True)
class CatalogVideo:
    """One video of a catalogue.

    ``path``: the video file, or the store or ``.npz`` that its descriptors came from. ``sha256``: hexadecimal, of the
    bytes of the video file (empty for a remote one), or of times and descriptors. ``duration_s``, ``shot_ends_s``: see
    `engine.records.Descriptors`.
    ``warnings``: what was lost or assumed while reading a damaged file. ``fingerprint``: the state that the file was
    described in; None for descriptors that came from a store or an ``.npz``.
    """

    video_id: str
    path: Location
    sha256: str
    duration_s: float
    num_rows: int
    warnings: tuple[str, ...]
    fingerprint: Fingerprint | None = None
    shot_ends_s: tuple[float, ...] | None = None


@dataclass(frozen=True)
class AddReport:
    """What became of the inputs of one `Catalog.add`, ids in the order of time; ``failures`` cost nothing else."""

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    kept: tuple[str, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class CatalogInfo:
    """Facts of a catalogue. ``engines``: the identity of the engines that describe its videos.

    ``norm_rows``: rows of the norm set, 0 without score normalization. ``num_indexed_rows``: rows in the approximate
    index; 0 for a catalogue small enough for the exact search, and all of them in Milvus. ``size_bytes``: of all files
    in the folder. ``milvus``: address and collection of the rows, None where they lie in the folder.
    """

    folder: Location
    num_videos: int
    num_rows: int
    num_dims: int
    duration_s: float
    engines: str
    preset: str
    fps: float
    norm_rows: int
    num_indexed_rows: int
    size_bytes: int
    milvus: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The videos of one moment by id, sorted, and the thresholds of verdicts then, as in `CatalogAnswer`."""

    videos: Mapping[str, CatalogVideo]
    thresholds: VerdictScores | None


@dataclass(frozen=True)
class Verification:
    """``problems``: one line for each thing that is damaged, none in a whole catalogue.

    ``num_orphan_rows``: rows that a killed writer left, which belong to no video: no damage, the next one removes them.
    """

    num_videos: int
    num_rows: int
    num_orphan_rows: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CatalogAnswer:
    """What an upload has in common with a catalogue.

    ``num_rows``: descriptors of the upload. ``candidates``: pairs with the videos that are likeliest to share footage,
    best first. ``matches``: the segments of the best candidates. ``videos``: every video in them, by id. ``warnings``:
    what was lost or assumed while reading the upload, and whose pictures were not compared. ``thresholds``: the scores
    of pairs that verdicts begin at in a catalogue of this size; None where the preset is not calibrated or scores are
    not normalized. ``duplicates``: ids of videos whose files have the same bytes as the upload.
    """

    query_id: str
    num_rows: int
    candidates: tuple[CandidatePair, ...]
    matches: tuple[Match, ...]
    videos: Mapping[str, CatalogVideo]
    warnings: tuple[str, ...]
    thresholds: VerdictScores | None = None
    duplicates: tuple[str, ...] = ()

    @property
    def paths(self) -> dict[str, Location]:
        """The file of every video, by id."""
        return {ref_id: video.path for ref_id, video in self.videos.items()}

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the upload; None where there are no thresholds."""
        if self.duplicates:
            return "copy"
        return self.verdict_on(self.candidates[0].ref_id) if self.candidates else self._verdict(None)

    @property
    def told(self) -> tuple[Match, ...]:
        """The matches with videos whose verdict is ``copy`` or ``review``; all where there are no thresholds."""
        return tuple(match for match in self.matches if self.verdict_on(match.ref_id) != "no match")

    def verdict_on(self, ref_id: str) -> Verdict | None:
        """The verdict on the pair with one video of the catalogue."""
        if ref_id in self.duplicates:
            return "copy"
        return self._verdict(next((pair.score for pair in self.candidates if pair.ref_id == ref_id), None))

    def _verdict(self, score: float | None) -> Verdict | None:
        return None if self.thresholds is None else self.thresholds.verdict(score)
