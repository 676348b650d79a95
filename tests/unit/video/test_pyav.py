"""PyAvFrameSource on the recorded clips and on odd files; what every source must do is in ``tests/contracts``."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
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
from engine.video.dali import DaliFrameSource
from engine.video.media import index_timeline, open_video
from engine.video.pyav import PyAvFrameSource
from engine.video.source import InputSpec
from tests.conftest import golden_root
from tests.oracles import rgb_of_planes
from tests.videos import damage_tail, moving_frames, pack_b_frames, write_matrix, write_timed_video

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
def test_clips_of_which_the_reference_takes_nothing_have_one_frame(name: str) -> None:
    source = PyAvFrameSource(golden_media(name))
    assert source.num_frames == len(list(source.pictures())) == 1
    assert source.warnings == ()


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
    path: Path,
    frames: list[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    **options: str,
) -> None:
    with av.open(str(path), "w", container_options=container_options or {}) as container:
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
        # AVI has no presentation times, and FFmpeg takes those of decoding: two frames later with these B-frames.
        late = 2 if name.endswith(".avi") else 0
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

    def test_a_time_that_no_video_has_is_not_believed(self, tmp_path: Path) -> None:
        frames = moving_frames(3, height=64, width=96)
        write_timed_video(tmp_path / "clock.mkv", frames, times_ms=[0, 40, 2_000_000_000])
        source = PyAvFrameSource(Media("clock", tmp_path / "clock.mkv"))
        assert nearest_originals(source, frames) == [2]
        assert source.warnings == ("the clock of the file is set anew at 0.0 s, 0.1 s; taken to go on at once",)


def shift_times(path: Path, source: Path, *, shift_s: Callable[[float], float]) -> None:
    """Copy a file, with other time stamps for its packets: those that ``shift_s`` makes of their decoding times."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                time_s = float((packet.pts if packet.dts is None else packet.dts) * packet.time_base)
                shift = round((shift_s(time_s) - time_s) / packet.time_base)
                packet.pts += shift
                packet.dts = packet.pts if packet.dts is None else packet.dts + shift
                packet.stream = stream
                container.mux(packet)


class TestClocks:
    """Rows for what is shown, in the order shown, however many seconds the time stamps claim."""

    @pytest.mark.parametrize(
        ("name", "codec", "options"),
        [
            ("v.ts", "libx264", {"bf": "2", "g": "25"}),
            ("v.vob", "mpeg2video", {"bf": "2", "b": "4M"}),
            ("v.mkv", "libx264", {"bf": "2"}),
            ("v.webm", "libvpx", {"b": "1M", "cpu-used": "8"}),
        ],
    )
    def test_joined_recordings_whose_clock_starts_again(
        self, tmp_path: Path, name: str, codec: str, options: dict[str, str]
    ) -> None:
        frames = moving_frames(150, height=64, width=96)
        for part, some in (("a", frames[:75]), ("b", frames[75:])):
            encode(tmp_path / f"{part}{name}", some, codec=codec, **options)
        joined = b"".join((tmp_path / f"{part}{name}").read_bytes() for part in "ab")
        (tmp_path / name).write_bytes(joined)
        source = PyAvFrameSource(Media("v", tmp_path / name))
        assert nearest_originals(source, frames) == [12, 37, 62, 87, 112, 137]
        assert source.timestamps[:, 0].tolist() == list(range(6))
        (line,) = source.warnings
        assert re.fullmatch(r"the clock of the file is set anew at [23]\.\d s; taken to go on at once", line)

    def test_a_leap_of_a_broadcast_clock_is_no_hole(self, tmp_path: Path, originals: list[NDArray[np.uint8]]) -> None:
        encode(tmp_path / "v.ts", originals, g="25")
        shift_times(tmp_path / "leap.ts", tmp_path / "v.ts", shift_s=lambda time_s: time_s + 5000 * (time_s > 3))
        source = PyAvFrameSource(Media("v", tmp_path / "leap.ts"))
        assert nearest_originals(source, originals) == [12, 37, 62]
        assert source.warnings[0].startswith("the clock of the file is set anew at ")

    def test_a_clock_that_overflows_goes_on(self, tmp_path: Path, originals: list[NDArray[np.uint8]]) -> None:
        encode(tmp_path / "v.mp4", originals, g="25")
        wrap_s = 2**33 / 90_000
        shift_times(tmp_path / "v.ts", tmp_path / "v.mp4", shift_s=lambda time_s: time_s + wrap_s - 1.5)
        source = PyAvFrameSource(Media("v", tmp_path / "v.ts"))
        assert nearest_originals(source, originals) == [12, 37, 62]
        assert source.timestamps[:, 0].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("hole_s", [2000, 900_000])
    def test_a_hole_in_the_times_makes_no_rows(self, tmp_path: Path, hole_s: int) -> None:
        frames = moving_frames(75, height=64, width=96)
        times_ms = [40 * n + (1000 * hole_s if n >= 36 else 0) for n in range(75)]
        write_timed_video(tmp_path / "gap.mkv", frames, times_ms=times_ms)
        source = PyAvFrameSource(Media("gap", tmp_path / "gap.mkv"))
        assert nearest_originals(source, frames) == [12, 35, 37, 62]
        assert source.timestamps[:, 0].tolist() == [0, 1, hole_s + 1, hole_s + 2]
        (chunk,) = source.model_inputs([InputSpec("a", 32)])
        np.testing.assert_array_equal(chunk.timestamps, source.timestamps)
        assert source.warnings == (
            "the time stamps hold 1 pictures for more than 60 s, the first from "
            f"1 s to {hole_s + 1} s; each has one row",
        )

    def test_packed_b_frames_are_taken_in_the_order_in_which_they_are_shown(self, tmp_path: Path) -> None:
        frames = moving_frames(75, height=64, width=96)
        encode(tmp_path / "v.avi", frames, codec="mpeg4", bf="2", b="4M")
        pack_b_frames(tmp_path / "packed.avi", tmp_path / "v.avi")
        source = PyAvFrameSource(Media("packed", tmp_path / "packed.avi"))
        # AVI has no times; those of decoding count, as in ffmpeg -vf fps=1: the first picture is shown a frame late.
        assert nearest_originals(source, frames) == [11, 36, 61]

    @pytest.mark.parametrize(
        ("name", "options"), [("v.mkv", {"live": "1"}), ("v.flv", {"flvflags": "no_duration_filesize"})]
    )
    def test_a_live_recording_without_a_length(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], name: str, options: dict[str, str]
    ) -> None:
        encode(tmp_path / name, originals, container_options=options)
        source = PyAvFrameSource(Media("v", tmp_path / name))
        assert nearest_originals(source, originals) == [12, 37, 62]
        assert source.warnings == ()


def sei_orientation(codec: str, *, mirror_x: bool, mirror_y: bool, quarter_turns: int) -> bytes:
    """A NAL unit with the message "display orientation" (ITU-T H.264 D.1.27, H.265 D.2.17)."""
    # Not canceled, mirrors, angle; shown until further notice (H.264: a repetition period of 0 and no extension).
    bits = f"0{mirror_x:d}{mirror_y:d}{quarter_turns << 14:016b}" + ("10" if codec == "h264" else "1")
    payload = int((bits + "1").ljust(24, "0"), 2).to_bytes(3)
    header = b"\x06" if codec == "h264" else b"\x4e\x01"
    return b"\x00\x00\x00\x01" + header + bytes([47, len(payload)]) + payload + b"\x80"


def insert_sei(path: Path, sei: bytes, *, codec: str) -> None:
    """Put a NAL unit in front of the first picture of an Annex B stream."""
    content = path.read_bytes()
    places = [match.start() for match in re.finditer(rb"\x00\x00\x01", content)]
    kinds = [content[place + 3] & 31 if codec == "h264" else content[place + 3] >> 1 & 63 for place in places]
    first = next(place for place, kind in zip(places, kinds, strict=True) if kind in (5, 19, 20, 21))
    first -= content[first - 1] == 0
    path.write_bytes(content[:first] + sei + content[first:])


def expected_orientation(frame: NDArray[np.uint8], *, mirror_x: bool, mirror_y: bool, quarter_turns: int) -> Any:
    """Mirrored first, then turned counter-clockwise, as the standards say."""
    frame = frame[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    return np.rot90(frame, quarter_turns)


ORIENTATIONS = [
    {"mirror_x": mirror_x, "mirror_y": mirror_y, "quarter_turns": turns}
    for mirror_x in (False, True)
    for mirror_y in (False, True)
    for turns in range(4)
]


class TestOrientation:
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    @pytest.mark.parametrize("codec", ["h264", "hevc"])
    def test_of_side_data_in_the_stream(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], codec: str, orientation: dict[str, Any]
    ) -> None:
        options = {"x265-params": "log-level=none:repeat-headers=1"} if codec == "hevc" else {}
        path = tmp_path / f"v.{codec}"
        encode(path, originals[:20], codec="libx264" if codec == "h264" else "libx265", **options)
        insert_sei(path, sei_orientation(codec, **orientation), codec=codec)
        (picture,) = PyAvFrameSource(Media("v", path)).pictures()
        wanted = expected_orientation(originals[12], **orientation)
        assert picture.shape == wanted.shape
        assert np.abs(picture.astype(np.int16) - wanted).mean() < 6

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_of_the_container(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], orientation: dict[str, Any]
    ) -> None:
        encode(tmp_path / "v.mp4", originals[:20])
        # What becomes of one step to the right and of one down, y pointing down.
        marked = np.arange(6).reshape(2, 3)
        shown = expected_orientation(marked, **orientation)
        origin, right, down = (np.argwhere(shown == n)[0] for n in (0, 1, 3))
        write_matrix(tmp_path / "v.mp4", (*(right - origin)[::-1], *(down - origin)[::-1]))
        (picture,) = PyAvFrameSource(Media("v", tmp_path / "v.mp4")).pictures()
        wanted = expected_orientation(originals[12], **orientation)
        assert picture.shape == wanted.shape
        assert np.abs(picture.astype(np.int16) - wanted).mean() < 6


def blocks(num_frames: int, *, step: int) -> list[NDArray[np.uint8]]:
    """A grey picture of large blocks that moves by ``step`` pixels a frame: 192x128."""
    tiles = np.random.default_rng(3).integers(30, 226, size=(8, 60, 1), dtype=np.uint8)
    wide = np.kron(tiles, np.ones((16, 16, 3), dtype=np.uint8))
    return [np.ascontiguousarray(wide[:, step * n : step * n + 192]) for n in range(num_frames)]


class TestInterlaced:
    """Fields of 50 a second in frames of 25, against the recording of 50 pictures a second."""

    @pytest.mark.parametrize(
        ("name", "codec", "options", "bottom_first"),
        [
            ("bottom_first.mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "8M"}, True),
            ("flagged.mp4", "libx264", {"x264-params": "tff=1:interlaced=1", "crf": "12"}, False),
            ("found.mp4", "libx264", {"crf": "12"}, False),
        ],
    )
    def test_the_first_field_is_shown(
        self, tmp_path: Path, name: str, codec: str, options: dict[str, str], bottom_first: bool
    ) -> None:
        progressive = blocks(60, step=10)
        woven = [one.copy() for one in progressive[::2]]
        for frame, later in zip(woven, progressive[1::2], strict=True):
            frame[int(not bottom_first) :: 2] = later[int(not bottom_first) :: 2]
        encode(tmp_path / name, woven, codec=codec, **options)
        (picture,) = PyAvFrameSource(Media("v", tmp_path / name)).pictures()
        away = [np.abs(picture.astype(np.int16) - frame).mean() for frame in progressive]
        assert np.argmin(away) == 24
        # A combed picture is as far from one as from the other.
        assert away[24] < 0.3 * away[25]

    @pytest.mark.parametrize("options", [{"x264-params": "tff=1:interlaced=1"}, {}])
    def test_a_picture_that_is_reduced_shows_one_field_too(self, tmp_path: Path, options: dict[str, str]) -> None:
        progressive = blocks(60, step=10)
        woven = [one.copy() for one in progressive[::2]]
        for frame, later in zip(woven, progressive[1::2], strict=True):
            frame[1::2] = later[1::2]
        encode(tmp_path / "v.mp4", woven, crf="12", **options)
        (picture,) = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), working_pixels=96 * 64).pictures()
        halved = [frame.reshape(64, 2, 96, 2, 3).mean(axis=(1, 3)) for frame in progressive]
        away = [np.abs(picture - frame).mean() for frame in halved]
        assert np.argmin(away) == 24
        assert away[24] < 0.3 * away[25]

    def test_progressive_pictures_stay_whole(self, tmp_path: Path) -> None:
        frames = blocks(30, step=10)
        frames = [frame // 2 + np.arange(128, dtype=np.uint8)[:, None, None] // 2 % 2 * 40 for frame in frames]
        encode(tmp_path / "v.mp4", frames, crf="8", pix_fmt="yuv444p")
        (picture,) = PyAvFrameSource(Media("v", tmp_path / "v.mp4")).pictures()
        assert np.abs(picture.astype(np.int16) - frames[12]).mean() < 3


def encode_hdr(path: Path, frames: list[NDArray[np.uint8]], *, transfer: str) -> None:
    """10 bits, tagged as BT.2020 with PQ or HLG; what the pixels are is not converted."""
    params = f"log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    encode(path, frames, codec="libx265", pix_fmt="yuv420p10le", **{"x265-params": params})


class TestHdr:
    @pytest.mark.parametrize(("transfer", "grey"), [("smpte2084", 148), ("arib-std-b67", 191)])
    def test_reference_white_becomes_almost_white_where_it_is_mapped(
        self, tmp_path: Path, transfer: str, grey: int
    ) -> None:
        """203 cd/m2 have the code 0.58 in PQ and 0.75 in HLG (ITU-R BT.2408)."""
        encode_hdr(tmp_path / "v.mp4", [np.full((64, 96, 3), grey, np.uint8)] * 20, transfer=transfer)
        (mapped,) = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), maps_hdr=True).pictures()
        (as_is,) = PyAvFrameSource(Media("v", tmp_path / "v.mp4")).pictures()
        assert np.abs(as_is.astype(int) - grey).max() <= 3
        assert mapped.mean() == pytest.approx(242, abs=8)  # 0.88 of white; a step of the code is as much

    def test_standard_videos_stay(self, tmp_path: Path, originals: list[NDArray[np.uint8]]) -> None:
        encode(tmp_path / "v.mp4", originals)
        one, other = (
            np.stack(list(PyAvFrameSource(Media("v", tmp_path / "v.mp4"), maps_hdr=maps).pictures()))
            for maps in (False, True)
        )
        np.testing.assert_array_equal(one, other)


class TestLargePictures:
    def test_they_are_reduced_by_a_whole_factor(self, tmp_path: Path, originals: list[NDArray[np.uint8]]) -> None:
        encode(tmp_path / "v.mp4", originals, crf="4", pix_fmt="yuv444p")
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), working_pixels=96 * 64 // 4)
        for picture, number in zip(source.pictures(), (12, 37, 62), strict=True):
            halved = originals[number].reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
            assert picture.shape == halved.shape
            assert np.abs(picture - halved).mean() < 2
        assert source.has_one_size
        assert source.warnings == ()

    def test_the_limit(self) -> None:
        assert pyav.working_size((2560, 1440)) == (2560, 1440)
        assert pyav.working_size((3840, 2160)) == (1920, 1080)
        assert pyav.working_size((6000, 6000)) == (1500, 1500)
        assert pyav.working_size((1920, 1080), max_pixels=1280 * 720) == (960, 540)
        assert pyav.working_size((1280, 720), max_pixels=1280 * 720) == (1280, 720)
        for size_wh in [(7680, 4320), (120, 70_000), (8192, 8192), (9001, 7001)]:
            width, height = pyav.working_size(size_wh)
            assert 1 <= width * height <= 2560 * 1440

    @pytest.mark.parametrize(
        ("name", "codec"), [("v.mp4", "libx264"), ("v.avi", "mjpeg"), ("v.ts", "mpeg2video"), ("v.webm", "libvpx")]
    )
    @pytest.mark.parametrize("source", [PyAvFrameSource, DaliFrameSource])
    def test_more_pixels_than_are_allowed_fail(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], name: str, codec: str, source: Any
    ) -> None:
        encode(tmp_path / name, originals, codec=codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
        media = Media("v", tmp_path / name)
        assert source(media, max_pixels=96 * 64).num_frames == 3
        with pytest.raises(MediaError, match=rf"{name}: pictures of 96x64 pixels, more than --max-pixels 6143"):
            source(media, max_pixels=96 * 64 - 1)

    def test_pictures_that_grow_beyond_the_limit_are_not_decoded(self, tmp_path: Path) -> None:
        for scale in (1, 4):
            encode(tmp_path / f"{scale}.h264", moving_frames(40, height=64 * scale, width=96 * scale))
        joined = b"".join((tmp_path / f"{scale}.h264").read_bytes() for scale in (1, 4))
        (tmp_path / "joined.h264").write_bytes(joined)
        source = PyAvFrameSource(Media("joined", tmp_path / "joined.h264"), max_pixels=10_000)
        assert {picture.shape for picture in source.pictures()} == {(64, 96, 3)}
        assert source.warnings[0].startswith("40 of 80 frames decode")


def overwrite_packets(path: Path, *, wanted: Callable[[int, bool], bool]) -> None:
    """Zero the coded pictures for which ``wanted(number, is_keyframe)``, behind the length of their first unit."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for number, packet in enumerate(packets):
        if wanted(number, packet.is_keyframe):
            content[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)
    path.write_bytes(content)


class TestKeyframes:
    @pytest.mark.parametrize(("codec", "bf"), [("libx264", "0"), ("libx264", "2"), ("mpeg4", "0")])
    def test_only_key_frames_are_decoded(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], codec: str, bf: str
    ) -> None:
        encode(tmp_path / "v.mp4", originals[:75], codec=codec, g="10", sc_threshold="0", bf=bf)
        every = list(PyAvFrameSource(Media("v", tmp_path / "v.mp4"), fps=25).pictures())
        overwrite_packets(tmp_path / "v.mp4", wanted=lambda _, is_keyframe: not is_keyframe)
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), max_keyframe_gap_s=0.4)
        np.testing.assert_array_equal(np.stack(list(source.pictures())), np.stack([every[n] for n in (10, 40, 60)]))
        assert (source.num_frames, source.warnings) == (3, ())
        (chunk,) = source.model_inputs([InputSpec("a", 32)])
        np.testing.assert_array_equal(chunk.timestamps, np.float32([[0.4, 1.6], [1.6, 2.4], [2.4, 3.0]]))

    def test_all_frames_are_sampled_where_key_frames_are_too_far_apart(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", originals[:75], g="40", sc_threshold="0")
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), max_keyframe_gap_s=1.5)
        assert nearest_originals(source, originals) == [12, 37, 62]
        assert source.warnings == ("1.6 s without a key frame, more than 1.5 s; all frames are sampled",)

    def test_a_key_frame_that_does_not_decode_costs_its_own_row(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", originals[:75], codec="mpeg4", g="25", sc_threshold="1000000000")
        overwrite_packets(tmp_path / "v.mp4", wanted=lambda number, _: number == 25)
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), max_keyframe_gap_s=5)
        (chunk,) = source.model_inputs([InputSpec("a", 32)])
        assert chunk.timestamps.tolist() == [[0, 1], [2, 3]]
        assert nearest_originals(source, originals) == [0, 50]
        assert source.warnings == ("2 of 3 key frames decode",)

    def test_all_frames_are_sampled_where_the_first_key_frame_does_not_decode(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", originals[:75], codec="mpeg4", g="25", sc_threshold="1000000000")
        overwrite_packets(tmp_path / "v.mp4", wanted=lambda number, _: number == 0)
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), max_keyframe_gap_s=5)
        expected = PyAvFrameSource(Media("v", tmp_path / "v.mp4"))
        np.testing.assert_array_equal(list(source.pictures()), list(expected.pictures()))
        assert source.warnings == (
            *expected.warnings,
            "its first key frame does not decode; all frames are sampled",
        )

    def test_packets_without_times_do_not_tell_key_frames(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.avi", originals[:75], g="10", bf="2")
        source = PyAvFrameSource(Media("v", tmp_path / "v.avi"), max_keyframe_gap_s=5)
        assert source.num_frames == 3
        assert source.warnings == ("the packets do not tell which frames are key frames; all frames are sampled",)


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

    def test_memory_does_not_grow_with_the_number_of_views_that_have_ended(self, tmp_path: Path) -> None:
        """A long film has hundreds of shots."""
        frames = [np.full((240, 320, 3), 3 * number, np.uint8) for number in range(80)]
        encode(tmp_path / "v.mp4", frames)
        source = PyAvFrameSource(Media("v", tmp_path / "v.mp4"), fps=25, cache_bytes=0)
        views = [View(Region(0, 0, 160, 240), Span(start, start + 2)) for start in range(0, 80, 2)]
        tracemalloc.start()
        num_rows = sum(len(chunk.timestamps) for chunk in source.model_inputs([InputSpec("a", 32)], views=views))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert num_rows == 80
        assert peak_bytes < 12 * frames[0].nbytes


class TestBlankPictures:
    """At 25 frames a second the sampling rule takes 12, 37 and 62."""

    SAMPLED = (12, 37, 62)

    @staticmethod
    def source(path: Path, **options: Any) -> PyAvFrameSource:
        return PyAvFrameSource(Media("v", path), replaces_blank=True, **options)

    @pytest.fixture
    def with_black_samples(self, originals: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return [np.zeros_like(it) if n in self.SAMPLED else it for n, it in enumerate(originals)]

    @pytest.mark.parametrize("resizes_planes", [False, True])
    @pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": "3"}), ("mpeg4", {"b": "4M"})])
    def test_the_last_picture_before_stands_in(
        self,
        tmp_path: Path,
        originals: list[NDArray[np.uint8]],
        with_black_samples: list[NDArray[np.uint8]],
        codec: str,
        options: dict[str, str],
        *,
        resizes_planes: bool,
    ) -> None:
        encode(tmp_path / "v.mp4", with_black_samples, codec=codec, **options)
        source = self.source(tmp_path / "v.mp4", resizes_planes=resizes_planes)
        for _ in range(2):
            found = nearest_originals(source, originals)
            # No more than half a second before.
            assert all(sampled - 12 <= number < sampled for number, sampled in zip(found, self.SAMPLED, strict=True))
        assert not any(chunk.is_blank.any() for chunk in source.model_inputs([InputSpec("a", 32)]))

    def test_a_pass_that_ends_early_leaves_nothing_for_the_next(
        self, tmp_path: Path, with_black_samples: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", with_black_samples)
        wanted = [picture.copy() for picture in self.source(tmp_path / "v.mp4").pictures()]
        source = self.source(tmp_path / "v.mp4", cache_bytes=0)
        for _ in zip(range(2), source.pictures(), strict=False):
            pass
        np.testing.assert_array_equal(list(source.pictures()), wanted)

    def test_of_a_damaged_video_too(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]], with_black_samples: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", with_black_samples, g="10")
        damage_tail(tmp_path / "v.mp4", keep=0.6, until=0.7)
        source = self.source(tmp_path / "v.mp4")
        found = nearest_originals(source, originals)
        assert source.is_damaged
        assert 0 <= found[0] < 12
        assert not any(chunk.is_blank.any() for chunk in source.model_inputs([InputSpec("a", 32)]))

    def test_black_that_lasts_stays_black(self, tmp_path: Path, originals: list[NDArray[np.uint8]]) -> None:
        black = [np.zeros_like(originals[0])] * 30
        encode(tmp_path / "v.mp4", [*originals[:15], *black, *originals[45:]])
        (chunk,) = self.source(tmp_path / "v.mp4").model_inputs([InputSpec("a", 32)])
        assert chunk.is_blank.tolist() == [False, True, False]

    def test_pictures_that_say_something_are_those_of_the_sampling_rule(
        self, tmp_path: Path, originals: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", originals, bf="3")
        kept = PyAvFrameSource(Media("v", tmp_path / "v.mp4"))
        np.testing.assert_array_equal(
            list(self.source(tmp_path / "v.mp4").pictures()), [picture.copy() for picture in kept.pictures()]
        )

    def test_without_being_asked_for_the_sampling_rule_decides(
        self, tmp_path: Path, with_black_samples: list[NDArray[np.uint8]]
    ) -> None:
        encode(tmp_path / "v.mp4", with_black_samples)
        (chunk,) = PyAvFrameSource(Media("v", tmp_path / "v.mp4")).model_inputs([InputSpec("a", 32)])
        assert chunk.is_blank.all()
