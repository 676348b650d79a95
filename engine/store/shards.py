"""One Parquet file of whole videos, a row per descriptor, and the writer that fills one after the other.

It knows nothing of the shards of other writers or of stores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.files import written_aside
from engine.records import Descriptors

_FLUSH_INTERVAL_S = 20.0


@dataclass(frozen=True)
class Fingerprint:
    """Enough of a source file to notice that it changed."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Size and time of modification of a file. Raises ``OSError``."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


class StoredVideo(NamedTuple):
    """The descriptors of a video and the fingerprint of the file they were made from."""

    descriptors: Descriptors
    fingerprint: Fingerprint


class ShardWriter:
    """Collects whole videos and writes them into shards ``shard-<number>-<count>.parquet`` of ``folder``.

    ``number`` is its own among all writers of the folder, so that several processes can write at once. One thread at a
    time. What was added is on the disk after the next `flush`, which is due when ``rows_per_shard`` rows are waiting
    or the last one was 20 seconds ago.
    """

    def __init__(self, folder: Path, *, number: int, rows_per_shard: int = 16_384) -> None:
        self._folder = folder
        self._number = number
        self._rows_per_shard = rows_per_shard
        self._num_written = 0
        self._waiting: list[StoredVideo] = []
        self._flushed_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the waiting videos make a whole shard, or have waited for long."""
        num_rows = sum(len(video.descriptors) for video in self._waiting)
        return num_rows >= self._rows_per_shard or time.monotonic() - self._flushed_s > _FLUSH_INTERVAL_S

    def add(self, descriptors: Descriptors, fingerprint: Fingerprint) -> None:
        """Take one whole video."""
        self._waiting.append(StoredVideo(descriptors, fingerprint))

    def flush(self) -> None:
        """Write a shard of the waiting videos, if there are any."""
        if self._waiting:
            write_shard(self._folder / f"shard-{self._number:05d}-{self._num_written:05d}.parquet", self._waiting)
            self._waiting = []
            self._num_written += 1
        self._flushed_s = time.monotonic()


def writer_number(path: Path) -> int:
    """The number of the writer of a shard."""
    return int(path.stem.split("-")[1])


def write_shard(path: Path, videos: Sequence[StoredVideo]) -> None:
    """Write at least one video, all of one dimension; the same videos give the same bytes."""
    all_descriptors = [video.descriptors for video in videos]
    fingerprints = [video.fingerprint for video in videos]
    rows = np.concatenate([video.descriptors for video in all_descriptors])
    times = np.concatenate([video.timestamps for video in all_descriptors])
    schema = _schema(rows.shape[1])
    of_video = {
        "video_id": [video.video_id for video in all_descriptors],
        "edit_score": [video.edit_score for video in all_descriptors],
        "gate": [video.gate for video in all_descriptors],
        "warnings": [list(video.warnings) for video in all_descriptors],
        "size_bytes": [fingerprint.size_bytes for fingerprint in fingerprints],
        "mtime_ns": [fingerprint.mtime_ns for fingerprint in fingerprints],
    }
    video_of_row = np.repeat(np.arange(len(videos)), [len(video) for video in all_descriptors])
    columns = {name: pa.array(values, schema.field(name).type).take(video_of_row) for name, values in of_video.items()}
    columns["start_s"], columns["end_s"] = pa.array(times[:, 0]), pa.array(times[:, 1])
    columns["descriptor"] = pa.FixedSizeListArray.from_arrays(rows.ravel(), type=schema.field("descriptor").type)
    with written_aside(path) as aside:
        # Descriptors hardly compress.
        pq.write_table(pa.table(columns, schema=schema), aside, compression="none", use_dictionary=["video_id"])


def read_shard(path: Path) -> list[StoredVideo]:
    """Read the videos of a shard in the order of writing. Raises ``StoreError`` if it is damaged or something else."""
    table = _read(path, columns=None)
    descriptor_type = table.schema.field("descriptor").type if "descriptor" in table.column_names else None
    if not isinstance(descriptor_type, pa.FixedSizeListType) or table.schema != _schema(descriptor_type.list_size):
        raise StoreError(f"{path} is not a shard of descriptors; its columns are {table.column_names}")
    descriptors = table["descriptor"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    times = np.stack([table["start_s"].to_numpy(), table["end_s"].to_numpy()], axis=1)
    starts = _starts(table["video_id"].to_pylist())
    stops = [*starts[1:], len(table)]
    of_video = table.drop_columns(["descriptor", "start_s", "end_s"]).take(starts).to_pylist()
    videos = []
    for values, start, stop in zip(of_video, starts, stops, strict=True):
        fingerprint = Fingerprint(values.pop("size_bytes"), values.pop("mtime_ns"))
        values["warnings"] = tuple(values["warnings"])
        try:
            video = Descriptors(timestamps=times[start:stop], descriptors=descriptors[start:stop], **values)
        except ValueError as error:
            raise StoreError(f"{path} is damaged: {error}; delete it and extract again") from error
        videos.append(StoredVideo(video, fingerprint))
    return videos


def read_fingerprints(path: Path) -> dict[str, Fingerprint]:
    """Read only which videos a shard holds, and the fingerprints of their sources. Raises ``StoreError``."""
    table = _read(path, columns=["video_id", "size_bytes", "mtime_ns"])
    rows = table.take(_starts(table["video_id"].to_pylist())).to_pylist()
    return {row["video_id"]: Fingerprint(row["size_bytes"], row["mtime_ns"]) for row in rows}


def read_num_dims(path: Path) -> int:
    """Read only the dimension of the descriptors of a shard. Raises ``StoreError``."""
    with _readable(path):
        return int(pq.read_schema(path).field("descriptor").type.list_size)


def _starts(video_ids: Sequence[str]) -> list[int]:
    """Positions at which a new video begins."""
    return [row for row, video_id in enumerate(video_ids) if row == 0 or video_id != video_ids[row - 1]]


def _schema(num_dims: int) -> pa.Schema:
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("video_id", pa.string(), nullable=False),
            pa.field("start_s", pa.float32(), nullable=False),
            pa.field("end_s", pa.float32(), nullable=False),
            pa.field("descriptor", pa.list_(element, num_dims), nullable=False),
            pa.field("edit_score", pa.float64()),
            pa.field("gate", pa.string(), nullable=False),
            pa.field("warnings", pa.list_(pa.string()), nullable=False),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
        ]
    )


def _read(path: Path, *, columns: list[str] | None) -> pa.Table:
    with _readable(path):
        return pq.read_table(path, columns=columns)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{path} is missing or damaged ({error}); delete it and extract again: only its videos are described anew"
        ) from error
