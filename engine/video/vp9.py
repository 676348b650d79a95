"""Picture sizes that VP9 frames tell in their headers (VP9 Bitstream Specification 0.6, section 6.2).

A decoder that makes one picture size of a video cannot be asked: an encoder may change it at any frame.
"""

from __future__ import annotations

from collections.abc import Iterator

_HEADER_BYTES = 32
_FRAME_MARKER, _SYNC_CODE, _SRGB = 2, 0x498342, 7


class _Bits:
    def __init__(self, content: bytes) -> None:
        self._value = int.from_bytes(content)
        self._left = 8 * len(content)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("the header ends early")
        return self._value >> self._left & (1 << count) - 1

    def expect(self, value: int, count: int) -> None:
        if self.take(count) != value:
            raise ValueError("this is no header")


def told_sizes(packet: bytes) -> set[tuple[int, int]]:
    """``(width, height)`` of those frames of a packet that tell it; a frame of an earlier one's size does not."""
    sizes = set()
    for frame in _frames(packet):
        try:
            size = _told_size(_Bits(frame[:_HEADER_BYTES]))
        except ValueError:
            continue
        if size is not None:
            sizes.add(size)
    return sizes


def _frames(packet: bytes) -> Iterator[bytes]:
    """The frames of a superframe (annex B), hidden ones included, or the one frame of the packet."""
    marker = packet[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = packet[-2 - count * width :]
    if marker >> 5 != 0b110 or len(index) < 2 + count * width or index[0] != marker:
        yield packet
        return
    start = 0
    for number in range(count):
        size = int.from_bytes(index[1 + number * width : 1 + (number + 1) * width], "little")
        yield packet[start : start + size]
        start += size


def _told_size(bits: _Bits) -> tuple[int, int] | None:
    bits.expect(_FRAME_MARKER, 2)
    profile = bits.take(1) | bits.take(1) << 1
    bits.take(profile == 3)
    if bits.take(1):  # shows an existing frame
        return None
    is_inter, is_shown, is_resilient = bits.take(1), bits.take(1), bits.take(1)
    if not is_inter:
        _skip_colors(bits, profile)
    else:
        is_intra_only = not is_shown and bits.take(1)
        bits.take(0 if is_resilient else 2)
        if is_intra_only:
            if profile:
                _skip_colors(bits, profile)
            else:
                bits.expect(_SYNC_CODE, 24)
            bits.take(8)
        else:
            bits.take(8 + 3 * 4)
            if any(bits.take(1) for _ in range(3)):  # as large as a frame that it refers to
                return None
    return bits.take(16) + 1, bits.take(16) + 1


def _skip_colors(bits: _Bits, profile: int) -> None:
    bits.expect(_SYNC_CODE, 24)
    bits.take(profile >= 2)
    if bits.take(3) != _SRGB:
        bits.take(1 + 3 * (profile % 2))
    else:
        bits.take(profile % 2)
