"""NVDEC's frames against PyAV's, and where they lie; the contract of frame sources is in `test_frame_source`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.describe.scenes import find_scenes
from engine.records import Media
from engine.runtime.device_array import as_rows
from engine.video.dali import DaliFrameSource
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec
from tests.conftest import golden_root
from tests.frame_sources import to_host

pytestmark = pytest.mark.gpu

SAMPLING = golden_root() / "sampling" / "videos"
SPECS = [InputSpec("frames_224", 224), InputSpec("frames_256", 256)]
# Grey levels: NVDEC decodes what FFmpeg decodes, DALI converts colors otherwise (see `engine.video.dali`).
MAX_MEAN_DIFFERENCE = 1.0


def inputs(source: Any, name: str) -> Any:
    return np.concatenate([to_host(chunk.inputs[name]) for chunk in source.model_inputs(SPECS)])


@pytest.mark.parametrize("name", ["h264_25fps.mp4", "h264_bframes_gop300.mp4", "h264_vfr.mp4", "rotate_tag_90.mp4"])
def test_nvdec_gives_the_frames_of_pyav(name: str) -> None:
    media = Media(name, SAMPLING / name)
    source, host = DaliFrameSource(media, device="gpu"), PyAvFrameSource(media)
    assert source.refused is None, "PyAV decoded it, and nothing was tested"
    for spec in SPECS:
        found, expected = (inputs(opened, spec.name).astype(np.int16) for opened in (source, host))
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean(axis=(1, 2, 3)).max() < MAX_MEAN_DIFFERENCE
    assert find_scenes(source.scene_statistics()) == find_scenes(host.scene_statistics())


def test_frames_stay_on_the_device() -> None:
    source = DaliFrameSource(Media("clip", SAMPLING / "h264_25fps.mp4"), device="gpu")
    for chunk in source.model_inputs(SPECS):
        for spec in SPECS:
            rows = as_rows(chunk.inputs[spec.name])
            assert not isinstance(rows, np.ndarray)
            assert rows.shape[1:] == (spec.size_px, spec.size_px, 3)
            assert rows.dtype == np.uint8


def test_what_nvdec_lacks_is_decoded_by_pyav_and_lies_on_the_device_all_the_same() -> None:
    name = "hevc_10bit.mp4"
    source = DaliFrameSource(Media(name, SAMPLING / name), device="gpu")
    assert source.refused is not None
    host = PyAvFrameSource(Media(name, SAMPLING / name))
    for found, expected in zip(source.model_inputs(SPECS), host.model_inputs(SPECS), strict=True):
        assert not isinstance(found.inputs["frames_224"], np.ndarray)
        difference = np.abs(to_host(found.inputs["frames_224"]).astype(np.int16) - expected.inputs["frames_224"])
        assert difference.max() <= 3, "the pictures are PyAV's; only the resizing is DALI's"
