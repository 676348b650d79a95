"""One Parquet file of whole videos, a row per descriptor, as float32 or rounded to float16; read, all are float32.

Pages have checksums. The rest of a file has none of its own, so that whoever keeps one also keeps that of the file.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.errors import StoreError
from engine.files import written_aside
from engine.records import Descriptors
from engine.storage.location import Location, RemotePath

StoreDtype = Literal["float32", "float16"]
"""The type in which a store keeps descriptors."""

_ORIGIN = b"vsc-engine origin"
_OF_VIDEO = ["video_id", "edit_score", "gate", "warnings", "size_bytes", "mtime_ns", "shot_ends_s"]
_ADDED = {"blank": pa.bool_(), "shot_ends_s": pa.list_(pa.float64())}
"""Columns that older versions did not write."""
_AGAIN = "delete it and extract again: only its videos are described anew"


@dataclass(frozen=True)
class Fingerprint:
    """Enough of a source file to notice that it changed.

    ``mtime_ns``: when it was modified; of a remote file a number that is made from its etag or version.
    """

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Location) -> Self:
        """Size and time of modification, or version, of a file. Raises ``OSError``."""
        if isinstance(path, RemotePath):
            info = path.stat()
            digest = hashlib.sha256(info.version.encode()).digest()
            return cls(info.size_bytes, int.from_bytes(digest[:8], "big") >> 1)
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


class StoredVideo(NamedTuple):
    """The descriptors of a video and the fingerprint of the file they were made from."""

    descriptors: Descriptors
    fingerprint: Fingerprint


def write_shard(
    path: Path, videos: Sequence[StoredVideo], *, origin: str | None = None, dtype: StoreDtype = "float32"
) -> int:
    """Write at least one video, all of one dimension; returns the CRC-32 of the file.

    ``origin`` names what made the descriptors. The same arguments give the same bytes. Raises ``StoreError`` for values
    that float16 does not hold, where they are to be kept so.
    """
    content = to_bytes(videos, origin=origin, dtype=dtype)
    with written_aside(path) as aside:
        aside.write_bytes(content)
    return zlib.crc32(content)


def read_shard(path: Location, *, origin: str | None = None, crc32: int | None = None) -> list[StoredVideo]:
    """Read the videos of a shard in the order of writing.

    Raises ``StoreError`` if it is damaged or something else, of another ``origin``, or of another ``crc32``; None asks
    for nothing, and a shard that names no origin, as older versions wrote it, has the right one.
    """
    with _readable(path):
        content = path.read_bytes()
    if crc32 is not None and zlib.crc32(content) != crc32:
        raise StoreError(f"{path} is missing or damaged (its checksum is not that of the manifest); {_AGAIN}")
    return from_bytes(content, source=path, origin=origin)


def to_bytes(videos: Sequence[StoredVideo], *, origin: str | None = None, dtype: StoreDtype = "float32") -> bytes:
    """What `write_shard` writes; raises as it does."""
    file = io.BytesIO()
    _write(file, videos, origin=origin, dtype=dtype)
    return file.getvalue()


def from_bytes(content: bytes, *, source: Location, origin: str | None = None) -> list[StoredVideo]:
    """The videos of `to_bytes`. Raises ``StoreError``, naming ``source``, as `read_shard` does."""
    return _read(io.BytesIO(content), source=source, origin=origin)


def _write(file: BinaryIO, videos: Sequence[StoredVideo], *, origin: str | None, dtype: StoreDtype) -> None:
    all_descriptors = [video.descriptors for video in videos]
    fingerprints = [video.fingerprint for video in videos]
    rows = np.concatenate([_as_stored(video, dtype) for video in all_descriptors])
    times = np.concatenate([video.timestamps for video in all_descriptors])
    schema = _schema(rows.shape[1], dtype)
    if origin is not None:
        schema = schema.with_metadata({_ORIGIN: origin})
    of_video = {
        "video_id": [video.video_id for video in all_descriptors],
        "edit_score": [video.edit_score for video in all_descriptors],
        "gate": [video.gate for video in all_descriptors],
        "warnings": [list(video.warnings) for video in all_descriptors],
        "size_bytes": [fingerprint.size_bytes for fingerprint in fingerprints],
        "mtime_ns": [fingerprint.mtime_ns for fingerprint in fingerprints],
        "shot_ends_s": [video.shot_ends_s for video in all_descriptors],
    }
    video_of_row = np.repeat(np.arange(len(videos)), [len(video) for video in all_descriptors])
    columns = {name: pa.array(values, schema.field(name).type).take(video_of_row) for name, values in of_video.items()}
    flags = [pa.nulls(len(v), pa.bool_()) if v.blank is None else pa.array(v.blank) for v in all_descriptors]
    columns["blank"] = pa.chunked_array(flags).combine_chunks()
    columns["start_s"], columns["end_s"] = pa.array(times[:, 0]), pa.array(times[:, 1])
    columns["descriptor"] = pa.FixedSizeListArray.from_arrays(rows.ravel(), type=schema.field("descriptor").type)
    # Mantissas of descriptors hardly compress, their signs and exponents do.
    pq.write_table(
        pa.table(columns, schema=schema),
        file,
        compression="zstd",
        compression_level=1,
        use_dictionary=["video_id"],
        use_byte_stream_split=["descriptor.list.element"],
        write_page_checksum=True,
    )


def _as_stored(video: Descriptors, dtype: StoreDtype) -> NDArray[np.floating[Any]]:
    """The descriptors of a video in the type in which they are kept."""
    limit = np.finfo(dtype).max
    largest = np.abs(video.descriptors).max()
    if largest > limit:
        raise StoreError(
            f"'{video.video_id}' has descriptors with values up to {largest:.6g}, and {dtype} holds none above "
            f"{limit:.6g}; keep them as float32"
        )
    return video.descriptors.astype(dtype, copy=False)


def _read(file: BinaryIO, *, source: Location, origin: str | None) -> list[StoredVideo]:
    with _readable(source):
        table = pq.read_table(file, page_checksum_verification=True)
        num_dims = _num_dims(table.schema, source)
        _check_origin(table.schema, source, origin)
        values = table["descriptor"].combine_chunks().flatten().to_numpy()
        descriptors = values.astype(np.float32, copy=False).reshape(len(table), num_dims)
        times = np.stack([table["start_s"].to_numpy(), table["end_s"].to_numpy()], axis=1)
        starts = _starts(table, source)
        stops = [*starts[1:], len(table)]
        for name, kind in _ADDED.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), kind))
        blank = table["blank"].combine_chunks()
        of_video = table.select(_OF_VIDEO).take(starts).to_pylist()
    videos = []
    for facts, start, stop in zip(of_video, starts, stops, strict=True):
        fingerprint = Fingerprint(facts.pop("size_bytes"), facts.pop("mtime_ns"))
        facts["warnings"] = tuple(facts["warnings"])
        facts["shot_ends_s"] = None if facts["shot_ends_s"] is None else tuple(facts["shot_ends_s"])
        try:
            video = Descriptors(
                timestamps=times[start:stop],
                descriptors=descriptors[start:stop],
                blank=_flags(blank[start:stop]),
                **facts,
            )
        except ValueError as error:
            raise StoreError(f"{source} is damaged: {error}; {_AGAIN}") from error
        videos.append(StoredVideo(video, fingerprint))
    return videos


def read_index(path: Location, *, origin: str | None = None) -> tuple[int, dict[str, Fingerprint]]:
    """The dimension of a shard's descriptors, and which videos it holds from which files.

    Raises ``StoreError`` as `read_shard` does, but looks at nothing else.
    """
    with _readable(path):
        file = path if isinstance(path, Path) else path.open("rb")
        schema = pq.read_schema(file)
        num_dims = _num_dims(schema, path)
        _check_origin(schema, path, origin)
        columns = ["video_id", "size_bytes", "mtime_ns"]
        table = pq.read_table(file, columns=columns, page_checksum_verification=True)
        rows = table.take(_starts(table, path)).to_pylist()
    return num_dims, {row["video_id"]: Fingerprint(row["size_bytes"], row["mtime_ns"]) for row in rows}


def _num_dims(schema: pa.Schema, source: Location) -> int:
    """The dimension of the descriptors of a shard with this schema."""
    descriptor_type = schema.field("descriptor").type if "descriptor" in schema.names else None
    if not isinstance(descriptor_type, pa.FixedSizeListType) or not _is_known(schema, descriptor_type.list_size):
        raise StoreError(f"{source} is not a shard of descriptors; its columns are {schema.names}")
    return int(descriptor_type.list_size)


def _is_known(schema: pa.Schema, num_dims: int) -> bool:
    missing = _ADDED.keys() - set(schema.names)
    known = [_schema(num_dims, dtype) for dtype in get_args(StoreDtype)]
    return schema in [pa.schema(field for field in item if field.name not in missing) for item in known]


def _flags(column: pa.BooleanArray) -> NDArray[np.bool_] | None:
    """The rows of one video that are blank; None where nobody looked."""
    return None if column.null_count else np.asarray(column.to_numpy(zero_copy_only=False), np.bool_)


def _check_origin(schema: pa.Schema, source: Location, origin: str | None) -> None:
    found = (schema.metadata or {}).get(_ORIGIN)
    if None not in (found, origin) and found != str(origin).encode():
        raise StoreError(
            f"{source} was made with other engines or settings, or is kept in another type, than the rest of the "
            f"store; {_AGAIN}"
        )


def _starts(table: pa.Table, source: Location) -> list[int]:
    """Positions at which a new video begins."""
    video_ids = table["video_id"].to_pylist()
    if not video_ids:
        raise StoreError(f"{source} is damaged: it has no rows; {_AGAIN}")
    return [row for row, video_id in enumerate(video_ids) if row == 0 or video_id != video_ids[row - 1]]


def _schema(num_dims: int, dtype: StoreDtype) -> pa.Schema:
    element = pa.field("element", pa.from_numpy_dtype(dtype), nullable=False)
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
            *(pa.field(name, kind) for name, kind in _ADDED.items()),
        ]
    )


@contextmanager
def _readable(path: Location) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())  # Arrow breaks lines
        raise StoreError(f"{path} is missing or damaged ({reason}); {_AGAIN}") from error
