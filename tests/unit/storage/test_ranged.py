from __future__ import annotations

import io
import threading
from itertools import pairwise

import numpy as np
import pytest

from engine.errors import RemoteError
from engine.storage.location import ObjectInfo
from engine.storage.ranged import MIN_AHEAD_BYTES, Range, RangedFile, Traffic, merged, without


class Memory:
    """A source of known bytes that notes what is read of it."""

    def __init__(self, content: bytes, *, fails_at: int | None = None) -> None:
        self.content = content
        self.info = ObjectInfo(len(content), "v")
        self.num_read_bytes = 0
        self.ranges: list[Range] = []
        self.fails_at = fails_at

    def read(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.content)
        if self.fails_at is not None and start <= self.fails_at < stop:
            raise RemoteError("it broke")
        self.ranges.append((start, stop))
        self.num_read_bytes += stop - start
        return self.content[start:stop]

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        pass


CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_001, dtype=np.uint8).tobytes()


def read_all(reader: io.RawIOBase, size: int) -> bytes:
    pieces = []
    while piece := reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


def test_reads_what_is_there_each_byte_once_however_often() -> None:
    source = Memory(CONTENT)
    file = RangedFile(source)
    assert read_all(file.reader(), 65_536) == CONTENT
    assert file.reader().readall() == CONTENT
    assert source.num_read_bytes == len(CONTENT)
    assert file.traffic == Traffic(len(CONTENT), len(CONTENT))
    assert len(source.ranges) < 10  # more and more at once, as long as it goes on
    file.close()


def test_any_order_of_reads_gives_the_bytes() -> None:
    generator = np.random.default_rng(1)
    source = Memory(CONTENT)
    file = RangedFile(source)
    reader = file.reader()
    for _ in range(300):
        start, size = int(generator.integers(len(CONTENT))), int(generator.integers(1, 100_000))
        assert reader.seek(start) == reader.tell() == start
        found = reader.read(size)
        assert found
        assert found == CONTENT[start : start + len(found)]
        assert reader.tell() == start + len(found)
    assert source.num_read_bytes <= len(CONTENT)
    file.close()


def test_a_jump_reads_little() -> None:
    source = Memory(CONTENT)
    file = RangedFile(source)
    reader = file.reader()
    reader.read(10)
    reader.seek(-10, 2)
    assert reader.read(100) == CONTENT[-10:]
    assert reader.read(1) == b""
    assert source.num_read_bytes <= 2 * MIN_AHEAD_BYTES + 10
    file.close()


def test_what_is_left_out_reads_as_zeros_and_is_never_read() -> None:
    source = Memory(CONTENT)
    file = RangedFile(source)
    reader = file.reader()
    left_out = [(1000, 900_000), (1_500_000, 2_999_000)]
    reader.leave_out(left_out)
    expected = bytearray(CONTENT)
    for start, stop in left_out:
        expected[start:stop] = bytes(stop - start)
    assert read_all(reader, 65_536) == bytes(expected)
    assert source.num_read_bytes == len(CONTENT) - sum(stop - start for start, stop in left_out)
    for start, stop in source.ranges:
        assert all(stop <= begin or end <= start for begin, end in left_out)
    assert file.reader().readall() == CONTENT  # another reader knows nothing of it
    assert source.num_read_bytes == len(CONTENT)
    file.close()


def test_beyond_what_may_be_kept_it_is_read_again() -> None:
    source = Memory(CONTENT)
    file = RangedFile(source, max_kept_bytes=1_000_000)
    assert file.reader().readall() == file.reader().readall() == CONTENT
    assert len(CONTENT) < source.num_read_bytes < 2 * len(CONTENT)
    file.close()


def test_an_error_stays() -> None:
    file = RangedFile(Memory(CONTENT, fails_at=2_000_000))
    file.raise_error()
    reader = file.reader()
    with pytest.raises(RemoteError, match="it broke"):
        reader.readall()
    reader.seek(0)
    with pytest.raises(RemoteError, match="it broke"):  # also of what is kept: FFmpeg took the first for an end
        reader.read(1)
    with pytest.raises(RemoteError, match="it broke"):
        file.raise_error()
    file.close()


def test_several_threads_share_one_file() -> None:
    source = Memory(CONTENT)
    file = RangedFile(source)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(file.reader().readall())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert source.num_read_bytes == len(CONTENT)
    file.close()


def numbers(ranges: list[Range]) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}


@pytest.mark.parametrize("seed", range(50))
def test_ranges_are_sets_of_numbers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        starts = generator.integers(0, 60, generator.integers(0, 8))
        sides.append([(int(start), int(start + generator.integers(1, 9))) for start in starts])
    one, other = map(merged, sides)
    for ranges, given in zip((one, other), sides, strict=True):
        assert numbers(ranges) == numbers(given)
        assert all(stop < begin for (_, stop), (begin, _) in pairwise(ranges))
    assert numbers(without(one, other)) == numbers(one) - numbers(other)
    assert without(one, other) == merged(without(one, other))


def test_traffic_adds_up() -> None:
    total = Traffic(1_000_000, 4_000_000) + Traffic(500_000, 500_000)
    assert total == Traffic(1_500_000, 4_500_000)
    assert str(total + None) == "read 1.5 MB of 4.5 MB"
