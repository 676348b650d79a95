"""A remote file that is read in ranges: what was read once is kept in a temporary file, and what was read is counted.

Several readers share what is kept. A reader may be told which ranges nobody looks at: it gives zeros in their place.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

from engine.errors import RemoteError, not_written
from engine.storage.location import ObjectInfo, RemotePath

MAX_KEPT_BYTES = 4 << 30
"""Of one file, on the disk; what lies beyond is read again when it is needed again."""

MIN_AHEAD_BYTES = 128 << 10
MAX_AHEAD_BYTES = 8 << 20
"""How much is read at once: more while it goes on where it stopped, little after a jump."""

Range = tuple[int, int]


class Source(Protocol):
    """Where ranges come from, all of one version. Methods raise ``RemoteError``."""

    info: ObjectInfo
    num_read_bytes: int

    def read(self, start: int, stop: int) -> bytes:
        """The bytes ``start <= n < stop`` of a range that lies inside the file."""
        ...

    def check_unchanged(self) -> None:
        """Raise if the file has another version now."""
        ...

    def close(self) -> None:
        """End reading."""
        ...


@dataclass(frozen=True)
class Traffic:
    """How many bytes of a remote file were read, of how many."""

    read_bytes: int
    size_bytes: int

    def __add__(self, other: Traffic | None) -> Traffic:
        if other is None:
            return self
        return Traffic(self.read_bytes + other.read_bytes, self.size_bytes + other.size_bytes)

    def __str__(self) -> str:
        return f"read {self.read_bytes / 1e6:.1f} MB of {self.size_bytes / 1e6:.1f} MB"


class RangedFile:
    """A remote file while it is read, by one thread at a time or several. A context manager."""

    def __init__(self, source: Source, *, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._source = source
        self._max_kept_bytes = max_kept_bytes
        self._kept: list[Range] = []
        self._file = tempfile.TemporaryFile(prefix="vsc-engine-")  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()
        self._ahead_bytes = MIN_AHEAD_BYTES
        self._end = 0
        self._last_start, self._last = 0, b""
        self._error: RemoteError | None = None
        self.size_bytes = source.info.size_bytes

    @classmethod
    def of(cls, path: RemotePath) -> Self:
        """Open a remote file. Raises ``RemoteError``."""
        if path.is_web:
            from engine.storage.web import WebSource

            return cls(WebSource(path))
        from engine.storage.objects import ObjectSource

        return cls(ObjectSource(path))

    @property
    def traffic(self) -> Traffic:
        """What was read until now."""
        return Traffic(self._source.num_read_bytes, self.size_bytes)

    def reader(self) -> RangedReader:
        """A new reader at the start."""
        return RangedReader(self)

    def read_at(self, start: int, stop: int, *, limit: int) -> bytes:
        """Some bytes from ``start`` on, at least one, at most to ``stop``; nothing is read from the source at ``limit``
        or behind it. After an error each call raises it again: no bytes are left out of a video unnoticed.
        """
        with self._lock:
            self.raise_error()
            kept_until = self._kept_until(start)
            if kept_until > start:
                return os.pread(self._file.fileno(), min(stop, kept_until) - start, start)
            if not 0 <= start - self._last_start < len(self._last):
                try:
                    self._fetch(start, stop, limit=limit)
                except RemoteError as error:
                    self._error = error
                    raise
            return self._last[start - self._last_start : stop - self._last_start]

    def close(self) -> None:
        """Forget what was kept."""
        self._file.close()
        self._source.close()

    def raise_error(self) -> None:
        """Raise the error that a reader met, if one did."""
        if self._error is not None:
            raise self._error

    def check_unchanged(self) -> None:
        """Raise ``RemoteError`` if the file changed since it was opened."""
        self._source.check_unchanged()

    def _kept_until(self, start: int) -> int:
        place = bisect_right(self._kept, (start, self.size_bytes + 1)) - 1
        return self._kept[place][1] if place >= 0 else 0

    def _fetch(self, start: int, stop: int, *, limit: int) -> None:
        self._ahead_bytes = min(2 * self._ahead_bytes, MAX_AHEAD_BYTES) if start == self._end else MIN_AHEAD_BYTES
        place = bisect_right(self._kept, (start, self.size_bytes + 1))
        hole_end = self._kept[place][0] if place < len(self._kept) else self.size_bytes
        end = min(max(stop, start + self._ahead_bytes), hole_end, limit)
        content = self._source.read(start, end)
        self._end = end
        if sum(stop - begin for begin, stop in self._kept) + len(content) > self._max_kept_bytes:
            self._last_start, self._last = start, content
            return
        try:
            os.pwrite(self._file.fileno(), content, start)
        except OSError as error:
            raise not_written(error, tempfile.gettempdir()) from error
        self._kept = merged([*self._kept, (start, end)])
        self._last_start, self._last = start, content[: stop - start]


class RangedReader(io.RawIOBase):
    """A position in a `RangedFile`: has what FFmpeg needs of a file."""

    def __init__(self, file: RangedFile) -> None:
        self._file = file
        self._position = 0
        self._left_out: Sequence[Range] = ()
        self._starts: list[int] = []

    def leave_out(self, ranges: Sequence[Range]) -> None:
        """Give zeros in place of these ranges, ascending and apart, and read nothing of them."""
        self._left_out = ranges
        self._starts = [start for start, _ in ranges]

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, which nothing is read for."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size_bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, at least one before the end. Raises ``RemoteError``."""
        start = self._position
        stop = self._file.size_bytes if size < 0 else min(start + size, self._file.size_bytes)
        if start >= stop:
            return b""
        place = bisect_right(self._starts, start)
        if place and start < self._left_out[place - 1][1]:
            content = bytes(min(stop, self._left_out[place - 1][1]) - start)
        else:
            limit = self._left_out[place][0] if place < len(self._left_out) else self._file.size_bytes
            content = self._file.read_at(start, min(stop, limit), limit=limit)
        self._position += len(content)
        return content


class HeldPath(RemotePath):
    """A remote file that is open as ``file``: who reads it shares what was read."""

    def __init__(self, path: RemotePath, file: RangedFile) -> None:
        super().__init__(path.url, path.web, path.info)
        self.file = file

    def read_bytes(self) -> bytes:
        """The whole file."""
        return self.file.reader().readall()


@contextmanager
def held(path: RemotePath) -> Iterator[HeldPath]:
    """A remote file opened once for all who read it inside the block.

    Raises ``RemoteError`` where it cannot be opened, and after the block if it changed meanwhile.
    """
    if isinstance(path, HeldPath):
        yield path
        return
    file = RangedFile.of(path)
    try:
        yield HeldPath(path, file)
        file.check_unchanged()
    finally:
        file.close()


def merged(ranges: Sequence[Range]) -> list[Range]:
    """Ascending ranges for the same numbers; those that overlap or touch become one."""
    found: list[Range] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def without(ranges: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """The numbers of ``ranges`` that are in none of ``others``, both ascending and apart."""
    found, place = [], 0
    for start, stop in ranges:
        while place < len(others) and others[place][1] <= start:
            place += 1
        at = place
        while at < len(others) and others[at][0] < stop:
            if start < others[at][0]:
                found.append((start, others[at][0]))
            start = max(start, others[at][1])
            at += 1
        if start < stop:
            found.append((start, stop))
    return found
