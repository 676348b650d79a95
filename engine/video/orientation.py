"""How a picture is turned and mirrored before it is shown: the display matrix of a container or of the codec."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """One of eight: transpose (swap rows and columns), then mirror left to right and top to bottom."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Self:
        """The nearest to a display matrix (ISO 14496-12, ``tkhd``): nine int32 in the byte order of this machine.

        ``(x, y)`` is shown at ``(a x + c y, b x + d y)``, for the matrix ``a b u c d v ...``; y points down.
        """
        a, b, _, c, d = struct.unpack("=5i", matrix[:20])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
        return cls(mirror_x=a < 0, mirror_y=d < 0)

    def apply(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The picture ``(H, W, ...)`` as it is shown, C-contiguous."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return np.ascontiguousarray(picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])
