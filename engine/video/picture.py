"""A sampled picture as it is shown, in RGB or as the planes that it is made from. Knows nothing of files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.records import Frames
from engine.video.blank import find_blank
from engine.video.color import Plane, chroma_box, rgb_from_planes
from engine.video.resize import FILTERS, fit_picture
from engine.video.source import InputSpec

Planes = tuple[Plane, Plane, Plane]
"""Full-range Y, Cb and Cr, see `engine.video.color.rgb_from_planes`."""


class Picture:
    """A picture of RGB, uint8 ``(H, W, 3)``, or one of planes, which becomes RGB where that is asked for.

    A stretched model input is then made of planes, each resized alone: half the work of making RGB of all pixels first.
    It differs by 0.1 to 0.5 grey levels in the mean, because chroma is interpolated once instead of twice.
    """

    def __init__(self, content: Frames | Planes) -> None:
        self._planes = content if isinstance(content, tuple) else None
        self._rgb = None if isinstance(content, tuple) else content
        height, width = (content[0] if isinstance(content, tuple) else content).shape[:2]
        self._num_rgb_bytes = int(3 * height * width)

    @property
    def num_bytes(self) -> int:
        """Bytes of what was given."""
        return self._num_plane_bytes or self._num_rgb_bytes

    @property
    def num_bytes_with_rgb(self) -> int:
        """Bytes with RGB beside what was given."""
        return self._num_plane_bytes + self._num_rgb_bytes

    @property
    def _num_plane_bytes(self) -> int:
        return sum(int(plane.nbytes) for plane in self._planes or ())

    @property
    def rgb(self) -> Frames:
        """RGB, uint8 ``(H, W, 3)``; made once."""
        if self._rgb is None:
            assert self._planes is not None  # noqa: S101 - one of both was given
            self._rgb = rgb_from_planes(*self._planes)
        return self._rgb

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing, see `engine.video.blank`; RGB is only made of pictures whose luma says nothing."""
        if self._planes is not None and not find_blank(self._planes[0][None, ..., None])[0]:
            return False
        return bool(find_blank(self.rgb[None])[0])

    def drop_rgb(self) -> None:
        """Forget RGB that can be made again."""
        if self._planes is not None:
            self._rgb = None

    def fit(self, spec: InputSpec) -> NDArray[np.uint8]:
        """The picture as a model takes it, uint8 ``(size_px, size_px, 3)``."""
        if self._planes is None or spec.fit != "stretch":
            return fit_picture(self.rgb, spec)
        luma, *chroma = map(Image.fromarray, self._planes)
        size_wh = spec.size_px, spec.size_px
        planes = [luma.resize(size_wh, FILTERS[spec.interpolation])]
        # Chroma has fewer samples, and RGB would be made of it with the same filter.
        planes += [
            plane.resize(size_wh, Image.Resampling.BILINEAR, box=chroma_box(plane.size, size_wh=luma.size))
            for plane in chroma
        ]
        return np.asarray(Image.merge("YCbCr", planes).convert("RGB"))
