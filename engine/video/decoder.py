"""The decoder that a run was started with: opens its videos, and counts those that it had to leave to PyAV."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.config import DEFAULT_MAX_PIXELS, DEFAULT_WORKING_PIXELS
from engine.records import Media
from engine.video import DecoderName
from engine.video.dali import DaliFrameSource, open_dali
from engine.video.dali_codecs import CODECS, Device
from engine.video.pyav import PyAvFrameSource
from engine.video.source import FrameSource

logger = logging.getLogger(__name__)


def default_decoder(device: Device) -> DecoderName:
    """What decodes where nobody chose: DALI on a GPU, so that pixels stay there, PyAV on a CPU."""
    return "dali" if device == "gpu" else "pyav"


class Decoder:
    """PyAV, or DALI on a device with PyAV for what it cannot decode; never changed while a run lasts. Thread-safe.

    ``max_pixels``: larger pictures are refused. The other options: see `PyAvFrameSource`. ``device``
    counts for DALI only.
    ``leaves_to_pyav``: some videos may be left to PyAV, so that it is worth saying which.
    """

    def __init__(
        self,
        name: DecoderName,
        *,
        device: Device,
        fps: float,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        working_pixels: int = DEFAULT_WORKING_PIXELS,
        maps_hdr: bool = False,
        max_keyframe_gap_s: float | None = None,
        resizes_planes: bool = False,
        replaces_blank: bool = False,
    ) -> None:
        self.name = name
        self.device = device
        self._options: Mapping[str, Any] = {
            "fps": fps,
            "max_pixels": max_pixels,
            "working_pixels": working_pixels,
            "maps_hdr": maps_hdr,
            "max_keyframe_gap_s": max_keyframe_gap_s,
        }
        self._pyav_options: Mapping[str, Any] = {"resizes_planes": resizes_planes, "replaces_blank": replaces_blank}
        self._refusals: dict[str, str] = {}
        self.leaves_to_pyav = name == "dali"

    def start(self) -> None:
        """Say what decodes. Raises ``BackendUnavailable`` where DALI is not installed, or no GPU it could use."""
        if self.leaves_to_pyav:
            open_dali(self.device)
            where, codecs = "a GPU" if self.device == "gpu" else "the CPU", ", ".join(CODECS[self.device])
            logger.info("decoder: DALI on %s for %s; other videos by PyAV", where, codecs)

    def open(self, media: Media) -> FrameSource:
        """The frames of a video. Raises ``MediaError`` for one that cannot be used."""
        if self.name == "pyav":
            return PyAvFrameSource(media, **self._pyav_options, **self._options)
        return DaliFrameSource(media, device=self.device, on_refusal=partial(self._note, media), **self._options)

    def refusal(self, video_id: str) -> str | None:
        """Why DALI left a video that was opened to PyAV; None where it did not."""
        return self._refusals.get(video_id)

    def _note(self, media: Media, reason: str) -> None:
        logger.info("%s: decoded by PyAV, not by DALI: %s", media.video_id, reason)
        self._refusals[media.video_id] = reason


def decoders_line(num_by_dali: int, refusals: Mapping[Any, int]) -> str:
    """How many videos DALI decoded, and how many it left to PyAV, by reason, most frequent first."""
    line = f"{num_by_dali} videos decoded by DALI, {sum(refusals.values())} by PyAV"
    reasons = "; ".join(f"{count} x {reason}" for reason, count in Counter(refusals).most_common())
    return f"{line} ({reasons})" if reasons else line
