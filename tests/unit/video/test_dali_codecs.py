"""Which videos DALI is given: every rule of the table, on timelines that differ from a sound one in one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.video.dali_codecs import CODECS, refusal
from engine.video.media import Timeline
from engine.video.orientation import Orientation

A100, A10, L40S, H100, B200, RTX_5090 = (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)

SOUND = Timeline(
    times_s=np.arange(3) / 25,
    end_s=0.12,
    pts=np.arange(3),
    is_exact=True,
    stream=0,
    codec="vp9",
    size_wh=(640, 360),
    orientation=Orientation(),
    hdr=None,
    bottom_first=False,
    keyframes=np.array([0]),
    warnings=(),
    pixel_format="yuv420p",
    container="mov,mp4,m4a,3gp,3g2,mj2",
    is_interlaced=False,
    num_dropped=0,
    has_one_size=True,
    num_video_streams=1,
    size_bytes=1000,
)


def test_sound_videos_are_taken() -> None:
    for codec in CODECS["cpu"]:
        assert refusal(replace(SOUND, codec=codec), device="cpu") is None
    for codec in CODECS["gpu"]:
        assert refusal(replace(SOUND, codec=codec), device="gpu", compute_capability=L40S) is None


@pytest.mark.parametrize(
    ("codec", "on_cpu", "on_gpu"),
    [("vp9", True, True), ("mjpeg", True, False), ("h264", False, True), ("vp8", False, False), ("ffv1", False, False)],
)
def test_each_device_has_its_codecs(codec: str, on_cpu: bool, on_gpu: bool) -> None:
    timeline = replace(SOUND, codec=codec)
    assert refusal(timeline, device="cpu") == (None if on_cpu else f"codec {codec}")
    assert refusal(timeline, device="gpu", compute_capability=H100) == (None if on_gpu else f"codec {codec}")


@pytest.mark.parametrize(
    ("gpu", "is_taken"), [(A100, False), (A10, True), (L40S, True), (H100, False), (B200, True), (RTX_5090, True)]
)
def test_av1_depends_on_the_generation(gpu: tuple[int, int], is_taken: bool) -> None:
    found = refusal(replace(SOUND, codec="av1"), device="gpu", compute_capability=gpu)
    assert found == (None if is_taken else f"codec av1 on a GPU of compute capability {gpu[0]}.{gpu[1]}")


def test_mpeg4_in_avi_may_be_packed() -> None:
    timeline = replace(SOUND, codec="mpeg4", container="avi")
    found = refusal(timeline, device="gpu", compute_capability=H100)
    assert found == "packets that may hold two pictures (MPEG-4 in AVI)"


def test_gpus_before_turing_decode_nothing() -> None:
    found = refusal(replace(SOUND, codec="h264"), device="gpu", compute_capability=(7, 0))
    assert found == "codec h264 on a GPU of compute capability 7.0"


@pytest.mark.parametrize(
    ("codec", "size_wh", "is_taken"),
    [
        ("h264", (48, 16), True),
        ("h264", (46, 16), False),
        ("h264", (4096, 4096), True),
        ("h264", (4098, 2160), False),
        ("hevc", (144, 144), True),
        ("hevc", (640, 142), False),
        ("hevc", (8192, 4320), True),
        ("mpeg4", (2034, 1000), False),
        ("h264", (641, 360), False),
        ("h264", (640, 361), False),
    ],
)
def test_sizes(codec: str, size_wh: tuple[int, int], is_taken: bool) -> None:
    found = refusal(replace(SOUND, codec=codec, size_wh=size_wh), device="gpu", compute_capability=H100)
    assert found == (None if is_taken else f"picture size {size_wh[0]}x{size_wh[1]}")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pixel_format": "yuv420p10le"}, "pixel format yuv420p10le"),
        ({"pixel_format": "yuv444p"}, "pixel format yuv444p"),
        ({"container": "mpegts"}, "container mpegts"),
        ({"hdr": "hlg"}, "HDR (HLG)"),
        ({"is_exact": False}, "packets without sound times"),
        ({"num_dropped": 1}, "frames dropped by an edit list"),
        ({"has_one_size": False}, "pictures of several sizes"),
        ({"num_video_streams": 2}, "several video streams"),
        ({"is_interlaced": True}, "interlaced pictures"),
        ({"size_bytes": 2**31}, "file larger than 2 GiB"),
    ],
)
def test_what_dali_would_get_wrong_is_refused(device: Any, change: dict[str, Any], reason: str) -> None:
    assert refusal(replace(SOUND, **change), device=device) == reason
