"""The implementations of FrameSource that the contract suite runs on; a GPU joins by `dali("gpu")` in ``tests/gpu``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.records import Media
from engine.video.arrays import ArrayFrameSource
from engine.video.dali import DaliFrameSource
from engine.video.dali_codecs import Device
from engine.video.pyav import PyAvFrameSource
from engine.video.source import FrameSource

SAMPLING_FPS = 4


@dataclass(frozen=True)
class Implementation:
    """``open(media, fps=...)`` makes the source; ``codec`` is one that it decodes.

    ``max_resize_difference`` and ``mean_resize_difference`` bound its resizing, in grey levels. ``reads_files``: it
    decodes, and can tell what is lost.
    """

    open: Callable[..., FrameSource]
    codec: str
    max_resize_difference: int
    mean_resize_difference: float = 0.3
    reads_files: bool = True

    def source(self, path: Path, *, fps: float = SAMPLING_FPS) -> closing[FrameSource]:
        return closing(self.open(Media(path.stem, path), fps=fps))


def to_host(frames: Any) -> NDArray[np.uint8]:
    """The frames of a chunk in host memory."""
    return np.asarray(frames.cpu() if hasattr(frames, "__cuda_array_interface__") else frames)


def dali(device: Device, *, codec: str, **options: int) -> Implementation:
    """DALI on a device: two passes of resizing, each a grey level off the oracle."""
    return Implementation(partial(DaliFrameSource, device=device, **options), codec=codec, max_resize_difference=2)


def arrays(media: Media, *, fps: float) -> ArrayFrameSource:
    """The frames of a file as a caller would pass them who decoded and sampled it."""
    with closing(PyAvFrameSource(media, fps=fps)) as source:
        frames = np.stack(list(source.pictures()))
        return ArrayFrameSource(frames, source.timestamps[:, 0], fps=fps)


IMPLEMENTATIONS = [
    # In its first pass Pillow may round a half otherwise than the oracle; the lobes of the second pass make 1.25 of it.
    pytest.param(Implementation(PyAvFrameSource, codec="libx264", max_resize_difference=2), id="pyav"),
    pytest.param(
        Implementation(partial(PyAvFrameSource, cache_bytes=0), codec="libx264", max_resize_difference=2),
        id="pyav-uncached",
    ),
    pytest.param(
        Implementation(
            partial(PyAvFrameSource, resizes_planes=True, replaces_blank=True),
            codec="libx264",
            max_resize_difference=7,
            mean_resize_difference=0.8,
        ),
        id="pyav-as-lite",
    ),
    pytest.param(Implementation(arrays, "libx264", max_resize_difference=2, reads_files=False), id="arrays"),
    pytest.param(dali("cpu", codec="libvpx-vp9"), id="dali-cpu-vp9"),
    pytest.param(dali("cpu", codec="mjpeg", cache_bytes=0, stack_bytes=200_000), id="dali-cpu-mjpeg-uncached"),
    # H.264 is not for DALI's CPU device: PyAV decodes, DALI does the rest.
    pytest.param(dali("cpu", codec="libx264"), id="dali-cpu-h264"),
]
