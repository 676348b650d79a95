"""What keyframes carry in front of their pictures: headers for the pictures to come, their size among them.

ITU-T H.264 7.3.1 and H.265 7.3.1 (sequence parameter sets), AV1 5.3 (sequence header OBU).
"""

from __future__ import annotations

from collections.abc import Iterator

_SPS_TYPES = {"h264": (7, 0, 31), "hevc": (33, 1, 63)}  # the type of the unit, and where its first byte has it
_SEQUENCE_HEADER_OBU = 1


def sequence_headers(codec: str, packet: bytes, *, length_bytes: int) -> bytes:
    """The headers in a packet of H.264, HEVC or AV1, one after the other; empty where there are none.

    ``codec``: FFmpeg's name. ``length_bytes``: of the length in front of each unit of H.264 or HEVC; 0 where start
    codes divide them (Annex B).
    """
    if codec == "av1":
        return b"".join(unit for kind, unit in _obus(packet) if kind == _SEQUENCE_HEADER_OBU)
    if codec not in _SPS_TYPES:
        return b""
    wanted, shift, mask = _SPS_TYPES[codec]
    units = _prefixed(packet, length_bytes) if length_bytes else iter(packet.split(b"\0\0\1")[1:])
    return b"".join(unit.rstrip(b"\0") for unit in units if unit and unit[0] >> shift & mask == wanted)


def length_bytes(codec: str, extradata: bytes | None) -> int:
    """Bytes of the lengths that divide the units, as the header of the file has it (ISO 14496-15); 0 for Annex B."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or extradata is None or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def _prefixed(packet: bytes, size: int) -> Iterator[bytes]:
    start = 0
    while start + size < len(packet):
        length = int.from_bytes(packet[start : start + size])
        yield packet[start + size : start + size + length]
        start += size + length


def _obus(packet: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(packet):
        header = packet[start]
        start += 2 if header & 4 else 1
        length = len(packet) - start
        if header & 2:
            length = shift = 0
            while start < len(packet):
                byte = packet[start]
                length |= (byte & 127) << shift
                start, shift = start + 1, shift + 7
                if byte < 128:
                    break
        yield header >> 3 & 15, packet[start : start + length]
        start += length
