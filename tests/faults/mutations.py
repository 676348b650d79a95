"""Damages the bytes of a file as disks, networks, editors and people do."""

from __future__ import annotations

import random
import re

_VALUES = re.compile(rb'"[^"\n]*"|-?\d+(\.\d+)?|true|false|null|\[[^\[\]]*\]|\{[^{}]*\}')
_ODD_VALUES = (
    b"null", b"[]", b"{}", b"1e999", b"-1", b'"', b"true", b"\\ud800", b"\x00", b"\xff", b"1" * 5000, b"[" * 100_000,
    b"NaN", b",,,", b"\n", b'"\xed\xa0\x80"', b"9" * 30, b'""',
)  # fmt: skip


def mutated(content: bytes, seed: int) -> bytes:
    """The content, damaged once; the same seed gives the same damage."""
    generator = random.Random(seed)  # noqa: S311
    damaged = bytearray(content)
    start = generator.randrange(len(content))
    end = start + generator.randint(1, 64)
    match generator.randrange(8):
        case 0:
            del damaged[start:]
        case 1:
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        case 2:
            del damaged[start:end]
        case 3:
            damaged[start:start] = generator.choice(_ODD_VALUES)
        case 4:
            damaged[start:start] = damaged[start:end] * generator.randint(1, 3)
        case 5:
            damaged[start:end] = generator.randbytes(generator.randint(1, 64))
        case 6:
            damaged[start:end] = bytes(end - start)
        case 7:
            values = list(_VALUES.finditer(content[:100_000]))
            if values:
                chosen = generator.choice(values)
                damaged[chosen.start() : chosen.end()] = generator.choice(_ODD_VALUES)
    return bytes(damaged)
