"""The contract of FrameSource with NVDEC: the classes of the contract suite, on another implementation."""

from __future__ import annotations

import pytest

from tests.contracts.test_frame_source import (
    TestDamagedFiles,
    TestFits,
    TestFrames,
    TestUnusableFiles,
    originals,
    source,
    test_close_may_be_called_at_any_time_and_again,
    test_scene_statistics_are_over_all_frames,
    video,
)
from tests.frame_sources import Implementation, dali

__all__ = [
    "TestDamagedFiles",
    "TestFits",
    "TestFrames",
    "TestUnusableFiles",
    "originals",
    "source",
    "test_close_may_be_called_at_any_time_and_again",
    "test_scene_statistics_are_over_all_frames",
    "video",
]

pytestmark = pytest.mark.gpu


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(dali("gpu", codec="libx264"), id="dali-gpu-h264"),
        pytest.param(dali("gpu", codec="libx264", cache_bytes=0, stack_bytes=200_000), id="dali-gpu-h264-uncached"),
        # VP9 of this size is below what NVDEC takes: PyAV decodes, and the frames are uploaded.
        pytest.param(dali("gpu", codec="libvpx-vp9"), id="dali-gpu-vp9-uploaded"),
    ],
)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    return request.param
