"""One Parquet file of whole videos, a row per descriptor."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.files import written_aside
from engine.records import Descriptors


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


def write_shard(path: Path, videos: Sequence[StoredVideo]) -> None:
    """Write at least one video, all of one dimension; the same videos give the same bytes."""
    with written_aside(path) as aside, aside.open("wb") as file:
        _write(file, videos)


def read_shard(path: Path) -> list[StoredVideo]:
    """Read the videos of a shard in the order of writing. Raises ``StoreError`` if it is damaged or something else."""
    return _read(path, source=path)


def to_bytes(video: StoredVideo) -> bytes:
    """The shard of one video."""
    file = io.BytesIO()
    _write(file, [video])
    return file.getvalue()


def from_bytes(content: bytes, *, source: Path) -> StoredVideo:
    """The video of `to_bytes`. Raises ``StoreError``, naming ``source``, for anything else."""
    (video,) = _read(io.BytesIO(content), source=source)
    return video


def _write(file: BinaryIO, videos: Sequence[StoredVideo]) -> None:
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
    # Descriptors hardly compress.
    pq.write_table(pa.table(columns, schema=schema), file, compression="none", use_dictionary=["video_id"])


def _read(file: Path | BinaryIO, *, source: Path) -> list[StoredVideo]:
    with _readable(source):
        table = pq.read_table(file)
        num_dims = _num_dims(table.schema, source)
        descriptors = table["descriptor"].combine_chunks().flatten().to_numpy().reshape(len(table), num_dims)
        times = np.stack([table["start_s"].to_numpy(), table["end_s"].to_numpy()], axis=1)
        starts = _starts(table, source)
        stops = [*starts[1:], len(table)]
        of_video = table.drop_columns(["descriptor", "start_s", "end_s"]).take(starts).to_pylist()
    videos = []
    for values, start, stop in zip(of_video, starts, stops, strict=True):
        fingerprint = Fingerprint(values.pop("size_bytes"), values.pop("mtime_ns"))
        values["warnings"] = tuple(values["warnings"])
        try:
            video = Descriptors(timestamps=times[start:stop], descriptors=descriptors[start:stop], **values)
        except ValueError as error:
            raise StoreError(f"{source} is damaged: {error}; delete it and extract again") from error
        videos.append(StoredVideo(video, fingerprint))
    return videos


def read_index(path: Path) -> tuple[int, dict[str, Fingerprint]]:
    """The dimension of a shard's descriptors, and which videos it holds from which files. Raises ``StoreError``."""
    with _readable(path):
        num_dims = _num_dims(pq.read_schema(path), path)
        table = pq.read_table(path, columns=["video_id", "size_bytes", "mtime_ns"])
        rows = table.take(_starts(table, path)).to_pylist()
    return num_dims, {row["video_id"]: Fingerprint(row["size_bytes"], row["mtime_ns"]) for row in rows}


def _num_dims(schema: pa.Schema, source: Path) -> int:
    """The dimension of the descriptors of a shard with this schema."""
    descriptor_type = schema.field("descriptor").type if "descriptor" in schema.names else None
    if not isinstance(descriptor_type, pa.FixedSizeListType) or schema != _schema(descriptor_type.list_size):
        raise StoreError(f"{source} is not a shard of descriptors; its columns are {schema.names}")
    return int(descriptor_type.list_size)


def _starts(table: pa.Table, source: Path) -> list[int]:
    """Positions at which a new video begins."""
    video_ids = table["video_id"].to_pylist()
    if not video_ids:
        raise StoreError(f"{source} is damaged: it has no rows; delete it and extract again")
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


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path} is missing or damaged ({error}); delete it and extract again: only its videos are described anew"
        ) from error
