"""PyAvFrameSource on the recorded clips and on odd files; what every source must do is in ``tests/contracts``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.errors import MediaError
from engine.records import Media, Region, Span, View
from engine.video import pyav
from engine.video.media import index_timeline, open_video
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec
from tests.conftest import golden_root
from tests.oracles import rgb_of_planes
from tests.videos import damage_tail, moving_frames, write_timed_video

SAMPLING = golden_root() / "sampling"
CLIPS: dict[str, Any] = json.loads((SAMPLING / "golden.json").read_text())["videos"]
TOO_SHORT = sorted(name for name, clip in CLIPS.items() if clip["n_outputs"] == 0)
USABLE = sorted(CLIPS.keys() - TOO_SHORT)
JPEGS = sorted(path.name for path in (SAMPLING / "jpeg_rgb").glob("*.png"))


def golden_media(name: str) -> Media:
    return Media(name, SAMPLING / "videos" / name)


def pictures(source: PyAvFrameSource, *, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """All frames ``(F, H, W, 3)`` at their own size, put together from two squares, which are not resized."""
    width, height = size_wh
    side = min(size_wh)
    regions = [Region(0, 0, side, side), Region(width - side, height - side, width, height)]
    spec = InputSpec("square", side)
    parts = [
        np.concatenate([c.inputs["square"] for c in source.model_inputs([spec], views=[View(region)])])
        for region in regions
    ]
    joined = np.empty((len(parts[0]), height, width, 3), dtype=np.uint8)
    for region, part in zip(regions, parts, strict=True):
        joined[:, region.y0 : region.y1, region.x0 : region.x1] = part
    return joined


def fully_decoded(path: Path) -> list[av.VideoFrame]:
    """Every frame that decodes, in plain decoding with one thread."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                continue
    return frames


def planes(frame: av.VideoFrame) -> list[NDArray[np.float64]]:
    """Full-range 8-bit planes of a planar frame, unrounded."""
    bits = frame.format.components[0].bits
    dtype = np.uint8 if bits == 8 else np.dtype("<u2")
    found = []
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
        samples = rows.view(dtype)[:, : plane.width] / 2 ** (bits - 8)
        if frame.color_range != av.video.reformatter.ColorRange.JPEG:
            samples = (samples - 128) * 255 / 224 + 128 if index else (samples - 16) * 255 / 219
        found.append(samples)
    return found


@pytest.mark.parametrize("name", USABLE)
class TestGoldenClips:
    def test_the_frames_are_those_that_the_reference_takes(self, name: str) -> None:
        clip = CLIPS[name]
        decoded = fully_decoded(SAMPLING / "videos" / name)
        source = PyAvFrameSource(golden_media(name))
        found = pictures(source, size_wh=tuple(clip["output_size_wh"]))
        assert source.num_frames == len(found) == clip["n_outputs"]
        turns = clip["rotation_ccw_degrees"] // 90
        for picture, output in zip(found, clip["outputs"], strict=True):
            index = output["source_frame"]
            distances = {
                near: np.abs(np.rot90(rgb_of_planes(*planes(decoded[near])), turns) - picture).mean()
                for near in range(max(index - 1, 0), min(index + 2, len(decoded)))
            }
            # Half a grey level of rounding in the range, twice in the interpolation and once in the matrix.
            assert distances[index] < 1.0
            assert distances[index] == min(distances.values())

    def test_skipping_changes_no_bit(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        size_wh = tuple(CLIPS[name]["output_size_wh"])
        skipping = PyAvFrameSource(golden_media(name))
        found, statistics = pictures(skipping, size_wh=size_wh), skipping.scene_statistics()
        monkeypatch.setattr(pyav, "_SKIPPABLE_CODECS", frozenset())
        decoding_all = PyAvFrameSource(golden_media(name))
        np.testing.assert_array_equal(found, pictures(decoding_all, size_wh=size_wh))
        np.testing.assert_array_equal(statistics.variance, decoding_all.scene_statistics().variance)
        assert skipping.warnings == decoding_all.warnings

    def test_warnings_are_for_damage_only(self, name: str) -> None:
        source = PyAvFrameSource(golden_media(name))
        source.scene_statistics()
        assert source.warnings == (("85 of 86 frames decode",) if name == "truncated_faststart.mp4" else ())


@pytest.mark.parametrize("name", TOO_SHORT)
def test_clips_without_an_output_fail(name: str) -> None:
    with pytest.raises(MediaError, match=r"too short to give a frame at 1 fps: lasts 0\.\d\d s"):
        PyAvFrameSource(golden_media(name))


@pytest.mark.parametrize("name", JPEGS)
def test_pixels_are_those_of_the_references_jpegs_without_the_quantiser(name: str) -> None:
    clip_name, number, _ = name.rsplit(".", 2)
    expected = np.asarray(Image.open(SAMPLING / "jpeg_rgb" / name))
    found = pictures(PyAvFrameSource(golden_media(clip_name)), size_wh=(expected.shape[1], expected.shape[0]))
    difference = np.abs(found[int(number)].astype(np.int16) - expected)
    # What is left is the quantiser; with nearest chroma the mean is 5, with the tagged matrix of BT.709 it is 10.
    assert difference.mean() < 1.25
    assert difference.max() <= 21


def test_skipping_leaves_frames_out() -> None:
    media = golden_media("h264_bframes_gop300.mp4")
    with open_video(media) as video:
        num_decoded = sum(1 for _ in pyav._decode_needed(video, frozenset(), may_skip=True))
    assert num_decoded < 0.8 * len(index_timeline(media))


def encode(
    path: Path, frames: list[NDArray[np.uint8]], *, codec: str = "libx264", pix_fmt: str = "yuv420p", **options: str
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def nearest_originals(source: PyAvFrameSource, originals: list[NDArray[np.uint8]]) -> list[int]:
    height, width = originals[0].shape[:2]
    return [
        int(np.argmin([np.abs(picture.astype(np.int16) - original).mean() for original in originals]))
        for picture in pictures(source, size_wh=(width, height))
    ]


@pytest.fixture(scope="module")
def originals() -> list[NDArray[np.uint8]]:
    return moving_frames(80, height=64, width=96)


class TestOddFiles:
    @pytest.mark.parametrize(
        ("name", "codec", "options"),
        [
            ("b_frames.ts", "libx264", {"bf": "3", "b-pyramid": "normal"}),
            ("interlaced.mp4", "libx264", {"bf": "3", "x264-params": "tff=1:interlaced=1"}),
            ("open_gop.mkv", "libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}),
            ("no_presentation_times.avi", "libx264", {"bf": "3"}),
            ("no_times.h264", "libx264", {"bf": "3"}),
            ("hevc_b_pyramid.mp4", "libx265", {"x265-params": "bframes=4:b-pyramid=1:log-level=none"}),
            ("hidden_frames.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M", "cpu-used": "8"}),
            ("hidden_frames_vp9.webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
            ("flash.flv", "libx264", {"bf": "3"}),
            ("program.mpg", "mpeg2video", {"bf": "2", "b": "4M"}),
        ],
    )
    def test_the_right_frames_of_every_container(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], name: str, codec: str, options: dict[str, str]
    ) -> None:
        encode(tmp_path / name, originals, codec=codec, **options)
        source = PyAvFrameSource(Media(name, tmp_path / name))
        # AVI has no presentation times: with B-frames the first picture is shown a frame after the start of the file.
        late = 1 if name.endswith(".avi") else 0
        assert nearest_originals(source, originals) == [12 - late, 37 - late, 62 - late]
        assert source.warnings == ()

    @pytest.mark.parametrize(
        ("codec", "pix_fmt"), [("libx264", "yuv422p"), ("libx264", "gray"), ("ffv1", "bgr0"), ("ffv1", "yuv411p")]
    )
    def test_pixel_formats(self, tmp_path: Path, originals: list[NDArray[np.uint8]], codec: str, pix_fmt: str) -> None:
        encode(tmp_path / "v.mkv", originals, codec=codec, pix_fmt=pix_fmt)
        if pix_fmt == "gray":
            originals = [np.repeat(f @ np.array([[0.299], [0.587], [0.114]]), 3, axis=-1) for f in originals]
        assert nearest_originals(PyAvFrameSource(Media("v", tmp_path / "v.mkv")), originals) == [12, 37, 62]

    def test_frames_of_another_size_are_scaled_to_the_first(self, tmp_path: Path) -> None:
        small, large = (moving_frames(80, height=64 * k, width=96 * k) for k in (1, 2))
        encode(tmp_path / "small.h264", small[:40])
        encode(tmp_path / "large.h264", large[40:])
        joined = (tmp_path / "small.h264").read_bytes() + (tmp_path / "large.h264").read_bytes()
        (tmp_path / "joined.h264").write_bytes(joined)
        source = PyAvFrameSource(Media("joined", tmp_path / "joined.h264"))
        found = pictures(source, size_wh=(96, 64)).astype(np.int16)
        halved = large[62].reshape(64, 2, 96, 2, 3).mean(axis=(1, 3))
        assert np.abs(found[1] - small[37]).mean() < 4
        assert np.abs(found[2] - halved).mean() < 4

    def test_a_stream_cut_in_the_middle_of_a_gop_starts_where_it_decodes(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "whole.ts", originals, g="30", bf="2")
        content = (tmp_path / "whole.ts").read_bytes()
        packets = [content[start : start + 188] for start in range(0, len(content), 188)]
        (tmp_path / "cut.ts").write_bytes(b"".join(packets[:2] + packets[len(packets) // 8 :]))
        media = Media("cut", tmp_path / "cut.ts")
        timeline, source = index_timeline(media), PyAvFrameSource(media)
        first_packet, first_decodable = len(originals) - len(timeline), 30
        assert 0 < first_packet < first_decodable
        due = {first_packet + n: int(time_s + 0.5) for n, time_s in enumerate(timeline.times_s)}
        shown = [
            max(k for k in due if k >= first_decodable and due[k] <= max(n, due[first_decodable]))
            for n in range(int(timeline.end_s + 0.5))
        ]
        assert nearest_originals(source, originals) == shown
        assert source.warnings == (f"50 of {len(timeline)} frames decode",)

    def test_a_picture_is_not_repeated_into_a_hole_that_the_damage_leaves_open(self, tmp_path: Path) -> None:
        frames = moving_frames(40, height=64, width=96)
        times_ms = [*range(0, 800, 40), *range(5000, 5800, 40)]
        write_timed_video(tmp_path / "hole.mp4", frames, times_ms=times_ms)
        media = Media("hole", tmp_path / "hole.mp4")
        assert nearest_originals(PyAvFrameSource(media), frames) == [12, 19, 19, 19, 19, 32]
        damage_tail(media.path, keep=0.45)
        source = PyAvFrameSource(media)
        assert nearest_originals(source, frames) == [12]
        assert source.num_frames == 1

    def test_broken_time_stamps_fail(self, tmp_path: Path) -> None:
        frames = moving_frames(3, height=64, width=96)
        write_timed_video(tmp_path / "clock.mkv", frames, times_ms=[0, 40, 2_000_000_000])
        with pytest.raises(MediaError, match=r"clock\.mkv: broken time stamps, the last frame is said to end at 20000"):
            PyAvFrameSource(Media("clock", tmp_path / "clock.mkv"))


class TestCache:
    """What is kept is seen where the file is gone between two passes."""

    @pytest.mark.parametrize(("cache_bytes", "is_kept"), [(3 * 64 * 96 * 3, True), (3 * 64 * 96 * 3 - 1, False)])
    def test_pictures_are_kept_if_all_fit(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], cache_bytes: int, is_kept: bool
    ) -> None:
        encode(tmp_path / "v.mp4", originals)
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), cache_bytes=cache_bytes)
        first = source.scene_statistics()
        (tmp_path / "v.mp4").unlink()
        if not is_kept:
            with pytest.raises(MediaError, match=r"v\.mp4: No such file"):
                source.scene_statistics()
            return
        np.testing.assert_array_equal(source.scene_statistics().variance, first.variance)
        source.close()
        with pytest.raises(MediaError, match=r"v\.mp4: No such file"):
            source.scene_statistics()

    def test_a_full_pass_that_was_asked_for_with_a_limit_is_kept_too(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", originals)
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"))
        chunks = list(source.model_inputs([InputSpec("a", 32)], views=[View(span=Span(stop=3))]))
        (tmp_path / "v.mp4").unlink()
        assert source.scene_statistics().num_frames == len(chunks[0].inputs["a"]) == 3
