"""Which frames of a video, their pixels and their times. Knows nothing of models and of what frames are for."""

from __future__ import annotations

from typing import Literal

DecoderName = Literal["pyav", "dali"]
