"""The decoder that a run was started with: opens its videos, and counts those that it had to leave to PyAV."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Literal

from engine.frames import FrameSource
from engine.frames.dali import DaliFrameSource, open_dali
from engine.frames.dali_support import CODECS, Device
from engine.frames.pyav import PyAvFrameSource
from engine.records import Media

logger = logging.getLogger(__name__)

DecoderName = Literal["pyav", "dali"]


class Decoder:
    """PyAV, or DALI on a device with PyAV for what it cannot decode; never changed while a run lasts. Thread-safe.

    ``device`` counts for DALI only. Raises ``BackendUnavailable``, before any video is opened, where DALI is not
    installed or finds no GPU that it can use.
    """

    def __init__(self, name: DecoderName, *, device: Device, fps: float) -> None:
        self.name = name
        self.device = device
        self._fps = fps
        self._lock = threading.Lock()
        self._num_opened = 0
        self._refusals: Counter[str] = Counter()
        if name == "dali":
            open_dali(device)
            where, codecs = "a GPU" if device == "gpu" else "the CPU", ", ".join(CODECS[device])
            logger.info("decoder: DALI on %s for %s; other videos by PyAV", where, codecs)

    def open(self, media: Media) -> FrameSource:
        """The frames of a video. Raises ``MediaError`` for one that cannot be used."""
        if self.name == "pyav":
            return PyAvFrameSource(media, fps=self._fps)
        source = DaliFrameSource(media, fps=self._fps, device=self.device, on_refusal=self._noting(media))
        with self._lock:
            self._num_opened += 1
        return source

    @property
    def refusals(self) -> dict[str, int]:
        """How many videos DALI left to PyAV so far, by reason, most frequent first."""
        with self._lock:
            return dict(self._refusals.most_common())

    def summary(self) -> str:
        """One line on who decoded how many videos; empty where there was no choice."""
        if self.name == "pyav":
            return ""
        refusals = self.refusals
        reasons = "; ".join(f"{count} x {reason}" for reason, count in refusals.items())
        num_by_pyav = sum(refusals.values())
        return f"{self._num_opened - num_by_pyav} videos decoded by DALI, {num_by_pyav} by PyAV" + (
            f" ({reasons})" if reasons else ""
        )

    def _noting(self, media: Media) -> Callable[[str], None]:
        def note(reason: str) -> None:
            logger.info("%s: decoded by PyAV, not by DALI: %s", media.video_id, reason)
            with self._lock:
                self._refusals[reason] += 1

        return note
