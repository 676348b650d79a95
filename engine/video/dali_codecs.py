"""Which videos DALI decodes, on which device: a table of what NVIDIA documents. Imports no DALI, opens no file.

Sources. Codecs, generations and sizes on a GPU: NVDEC Application Note (section NVDEC Capabilities) and NVDEC Video
Decoder API Programming Guide (section Video Decoder Capabilities) of the Video Codec SDK 13.0. Codecs on a CPU:
`decoders.video` of the DALI 2.4 documentation. Everything else is what DALI's own code does between the file and
NVDEC, see `refusal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.video.media import Timeline

Device = Literal["cpu", "gpu"]
ComputeCapability = tuple[int, int]

MIN_COMPUTE_CAPABILITY = (7, 5)
"""CUDA 13, which DALI is built for, begins with Turing."""

MAX_FILE_BYTES = 2**31 - 1
"""DALI counts the bytes of a file in 32 bits."""

_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"}
_PIXEL_FORMATS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True)
class CodecSupport:
    """Picture sizes that a decoder takes, both ends included; ``since`` and ``without``: generations of GPUs."""

    min_wh: tuple[int, int] = (1, 1)
    max_wh: tuple[int, int] = (8192, 8192)
    since: ComputeCapability = MIN_COMPUTE_CAPABILITY
    without: frozenset[ComputeCapability] = frozenset()


CODECS: dict[Device, dict[str, CodecSupport]] = {
    "cpu": {"mjpeg": CodecSupport(), "vp9": CodecSupport()},
    "gpu": {
        "h264": CodecSupport(min_wh=(48, 16), max_wh=(4096, 4096)),
        "hevc": CodecSupport(min_wh=(144, 144)),
        "mpeg4": CodecSupport(min_wh=(48, 16), max_wh=(2032, 2032)),
        "vp9": CodecSupport(min_wh=(128, 128)),
        # GA10x, Ada and Blackwell have it; A100 (8.0) and Hopper (9.0) do not.
        "av1": CodecSupport(min_wh=(128, 128), since=(8, 6), without=frozenset({(9, 0)})),
    },
}
"""FFmpeg's names of the codecs. Left out on purpose: VP8, whose hidden frames lie in packets of their own, which DALI
counts as frames; MJPEG on a GPU, where it is not known whether DALI widens its range as it should."""


def refusal(timeline: Timeline, *, device: Device, compute_capability: ComputeCapability | None = None) -> str | None:
    """Why DALI must not decode this video, in a few words; None if it may.

    ``compute_capability``: of the GPU, for ``device="gpu"``. DALI numbers frames by their packets, tells no times, and
    turns surfaces of 8 bits and 4:2:0 into RGB: what breaks its numbering or has other pixels is refused.
    """
    support = CODECS[device].get(timeline.codec)
    if support is None:
        return f"codec {timeline.codec}"
    if compute_capability is not None and not (
        compute_capability >= support.since and compute_capability not in support.without
    ):
        return f"codec {timeline.codec} on a GPU of compute capability {'.'.join(map(str, compute_capability))}"
    if timeline.pixel_format not in _PIXEL_FORMATS:
        return f"pixel format {timeline.pixel_format}"
    if not _fits(timeline.size_wh, support):
        return f"picture size {timeline.size_wh[0]}x{timeline.size_wh[1]}"
    if timeline.container not in _CONTAINERS:
        return f"container {timeline.container}"
    if timeline.codec == "mpeg4" and timeline.container == "avi":
        return "packets that may hold two pictures (MPEG-4 in AVI)"
    if timeline.hdr is not None:
        return f"HDR ({timeline.hdr.upper()})"
    return _unsound_numbering(timeline)


def _fits(size_wh: tuple[int, int], support: CodecSupport) -> bool:
    # DALI makes RGB of blocks of 2 x 2 pixels: in a picture of odd size they reach over the edge.
    return all(
        low <= size <= high and size % 2 == 0
        for size, low, high in zip(size_wh, support.min_wh, support.max_wh, strict=True)
    )


def _unsound_numbering(timeline: Timeline) -> str | None:
    if not timeline.is_exact:
        return "packets without sound times"
    if timeline.num_dropped:
        return "frames dropped by an edit list"
    if not timeline.has_one_size:
        return "pictures of several sizes"
    if timeline.num_video_streams > 1:
        return "several video streams"
    if timeline.is_interlaced:
        return "interlaced pictures"
    if timeline.size_bytes > MAX_FILE_BYTES:
        return "file larger than 2 GiB"
    return None
