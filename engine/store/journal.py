"""The videos that were described since the last shard was written: each is on the disk as soon as it was appended.

A file of records, each with its length and checksum before it. What a crash left half-written at the end is cut off
when the journal is opened again.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from engine.files import flush_to_disk, writing
from engine.store.shards import StoreDtype, StoredVideo, from_bytes, to_bytes

logger = logging.getLogger(__name__)

_MAGIC = b"vsc-engine journal 1\n"
_HEADER = struct.Struct("<QI")  # bytes of the record, and their CRC-32


class Journal:
    """A journal for one process at a time, made on disk by the first `append`; ``videos`` are those found in it.

    What is damaged or half-written, and all after it, is left out and said. ``origin``, ``dtype``: see
    `engine.store.shards.write_shard`. Raises ``StoreError`` for videos of another ``origin``.
    """

    def __init__(self, path: Path, *, origin: str | None = None, dtype: StoreDtype = "float32") -> None:
        self._path = path
        self._origin = origin
        self._dtype = dtype
        self._file: BinaryIO | None = None
        self.videos: list[StoredVideo] = []
        if path.exists():
            self._file = path.open("r+b")
            records = _whole_records(self._file)
            self.videos = [video for record in records for video in from_bytes(record, source=path, origin=origin)]

    def append(self, video: StoredVideo) -> None:
        """Add a video; when this returns it is on the disk. Raises ``StoreError`` as `write_shard` does."""
        content = to_bytes([video], origin=self._origin, dtype=self._dtype)
        is_new = self._file is None
        if self._file is None:
            self._file = self._path.open("xb")
            self._file.write(_MAGIC)
        with writing(self._path):
            self._file.write(_HEADER.pack(len(content), zlib.crc32(content)) + content)
            self._file.flush()
            os.fsync(self._file.fileno())
        if is_new:
            flush_to_disk(self._path.parent)

    def clear(self) -> None:
        """Forget all videos: they are in a shard."""
        if self._file is not None:
            self.close()
            self._path.unlink()

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._file is not None:
            file, self._file = self._file, None
            with writing(self._path):  # what did not fit on a full disk is tried once more
                file.close()


def _whole_records(file: BinaryIO) -> list[bytes]:
    """The whole records; the file is cut, and positioned, after the last one."""
    content = file.read()
    records = []
    end = len(_MAGIC)
    if content.startswith(_MAGIC):
        while (record := _record_at(content, end)) is not None:
            records.append(record)
            end += _HEADER.size + len(record)
    if end < len(content):
        logger.warning(
            "%s: its last %d bytes are half-written or damaged; the videos in them are described again",
            file.name,
            len(content) - end,
        )
    file.seek(0)
    file.write(_MAGIC)
    file.seek(end)
    file.truncate()
    return records


def _record_at(content: bytes, start: int) -> bytes | None:
    if len(content) < start + _HEADER.size:
        return None
    size_bytes, checksum = _HEADER.unpack_from(content, start)
    begin = start + _HEADER.size
    record = content[begin : begin + size_bytes]
    # Zeros, which a power cut leaves, would be an empty record with a right checksum.
    is_whole = 0 < size_bytes == len(record) and zlib.crc32(record) == checksum
    return record if is_whole else None
