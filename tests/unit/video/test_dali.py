"""DaliFrameSource against PyAvFrameSource, on its CPU device; what every source must do is in ``tests/contracts``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.describe.scenes import find_scenes
from engine.errors import BackendUnavailable, MediaError
from engine.records import Media
from engine.video.dali import DaliFrameSource, DaliOperators, open_dali
from engine.video.dali_codecs import CODECS, CodecSupport
from engine.video.media import index_timeline
from engine.video.orientation import Orientation
from engine.video.pyav import PyAvFrameSource
from engine.video.sampling import Samples
from engine.video.source import InputSpec
from engine.video.statistics import SceneStatisticsAccumulator
from tests.conftest import golden_root, recorded
from tests.videos import damage_tail, moving_frames, turn_video, write_matrix, write_timed_video, write_video

SAMPLING = golden_root() / "sampling" / "videos"
SCENES = golden_root() / "scenes"
STACKS = json.loads((SCENES / "golden.json").read_text())["stacks"] if SCENES.is_dir() else {}

# Grey levels between the colors of DALI's CPU device and of PyAV. DALI's scaler takes chroma samples to lie at the
# left pixel of their pair, JPEG decoders in the middle: little in smooth pictures, more at colored edges.
MAX_MEAN_DIFFERENCE = 1.0
MAX_SMOOTH_DIFFERENCE, MAX_EDGE_DIFFERENCE = 5, 24


def media(path: Path) -> Media:
    return Media(path.stem, path)


def pictures(source: DaliFrameSource) -> NDArray[np.uint8]:
    """All sampled frames at full size, (F, H, W, 3)."""
    return np.concatenate([np.asarray(stack) for stack in source._stacks()])


def assert_same_frames(path: Path, *, fps: float = 1.0, max_difference: int = MAX_SMOOTH_DIFFERENCE) -> DaliFrameSource:
    source = DaliFrameSource(media(path), fps=fps)
    expected = np.stack(list(PyAvFrameSource(media(path), fps=fps).pictures()))
    found = pictures(source)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(np.int16) - expected)
    assert difference.mean(axis=(1, 2, 3)).max() < MAX_MEAN_DIFFERENCE
    assert difference.max() <= max_difference
    return source


class TestSameFramesAsPyAv:
    @pytest.mark.parametrize(
        ("name", "codec"), [("v.webm", "libvpx-vp9"), ("v.mp4", "libvpx-vp9"), ("v.avi", "mjpeg"), ("v.mkv", "mjpeg")]
    )
    def test_constant_rate(self, tmp_path: Path, name: str, codec: str) -> None:
        write_video(tmp_path / name, moving_frames(80), codec=codec, audio=True)
        source = assert_same_frames(tmp_path / name, fps=3)
        assert source.refused is None

    @pytest.mark.parametrize(("codec", "num_rows"), [("mjpeg", 4), ("libx264", 1)])
    def test_key_frames_alone(self, tmp_path: Path, codec: str, num_rows: int) -> None:
        write_video(tmp_path / "v.mkv", moving_frames(80), codec=codec)
        sources = [kind(media(tmp_path / "v.mkv"), max_keyframe_gap_s=5) for kind in (DaliFrameSource, PyAvFrameSource)]
        found, expected = ([*source.model_inputs([InputSpec("a", 96)])] for source in sources)
        assert sum(len(chunk.timestamps) for chunk in found) == num_rows
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.timestamps, other.timestamps)
            difference = np.abs(np.asarray(one.inputs["a"]).astype(np.int16) - other.inputs["a"])
            assert difference.mean() < MAX_MEAN_DIFFERENCE

    def test_too_few_key_frames_are_told(self, tmp_path: Path) -> None:
        write_video(tmp_path / "v.webm", moving_frames(80), codec="libvpx-vp9")
        source = DaliFrameSource(media(tmp_path / "v.webm"), max_keyframe_gap_s=1)
        assert (source.refused, source.num_frames) == (None, 3)
        assert source.warnings == ("3.2 s without a key frame, more than 1 s; all frames are sampled",)

    def test_variable_rate(self, tmp_path: Path) -> None:
        times_ms = [0, 40, 90, 400, 410, *range(2000, 2600, 17), 5000, 5040, 5500]
        frames = moving_frames(len(times_ms), height=48, width=64)
        write_timed_video(tmp_path / "v.mkv", frames, times_ms=times_ms, codec="libvpx-vp9")
        source = assert_same_frames(tmp_path / "v.mkv", fps=5)
        assert source.refused is None

    def test_hidden_frames_do_not_count(self, tmp_path: Path) -> None:
        options = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}
        with av.open(str(tmp_path / "v.webm"), "w") as container:
            stream = container.add_stream("libvpx-vp9", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for frame in moving_frames(80, height=64, width=96):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        assert assert_same_frames(tmp_path / "v.webm", fps=5).refused is None

    @pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
    def test_mirrors(self, tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
        write_video(tmp_path / "v.mp4", moving_frames(25, height=48, width=64), codec="libvpx-vp9")
        write_matrix(tmp_path / "v.mp4", matrix)
        assert assert_same_frames(tmp_path / "v.mp4", fps=4).refused is None

    @pytest.mark.parametrize("quarter_turns", [1, 2, 3])
    def test_rotation(self, tmp_path: Path, quarter_turns: int) -> None:
        write_video(tmp_path / "v.mp4", moving_frames(25, height=48, width=64), codec="libvpx-vp9")
        turn_video(tmp_path / "v.mp4", quarter_turns=quarter_turns)
        assert index_timeline(media(tmp_path / "v.mp4")).orientation != Orientation()
        assert assert_same_frames(tmp_path / "v.mp4", fps=4).refused is None

    def test_a_hole_in_the_times_makes_no_rows(self, tmp_path: Path) -> None:
        times_ms = [40 * n + (2_000_000 if n >= 36 else 0) for n in range(75)]
        frames = moving_frames(75, height=48, width=64)
        write_timed_video(tmp_path / "v.mkv", frames, times_ms=times_ms, codec="libvpx-vp9")
        source = assert_same_frames(tmp_path / "v.mkv")
        assert source.refused is None
        (chunk,) = source.model_inputs([InputSpec("a", 32)])
        assert chunk.timestamps[:, 0].tolist() == [0, 1, 2001, 2002]
        assert source.warnings == PyAvFrameSource(media(tmp_path / "v.mkv")).warnings != ()

    def test_interlaced_pictures_that_do_not_say_so_are_left_to_pyav(self, tmp_path: Path) -> None:
        tiles = np.random.default_rng(3).integers(30, 226, size=(6, 40, 1), dtype=np.uint8)
        wide = np.kron(tiles, np.ones((16, 16, 3), dtype=np.uint8))
        frames = [wide[:, 8 * n : 8 * n + 128].copy() for n in range(50)]
        for frame, later in zip(frames[::2], frames[1::2], strict=True):
            frame[1::2] = later[1::2]
        write_video(tmp_path / "v.webm", frames[::2], codec="libvpx-vp9")
        source = DaliFrameSource(media(tmp_path / "v.webm"), fps=5)
        assert source.refused == "interlaced pictures"
        expected = PyAvFrameSource(media(tmp_path / "v.webm"), fps=5)
        np.testing.assert_array_equal(pictures(source), np.stack(list(expected.pictures())))

    def test_hdr_is_left_to_pyav(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "v.webm"), "w") as container:
            stream = container.add_stream("libvpx-vp9", rate=25, options={"cpu-used": "8"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.color_trc = 16  # SMPTE ST 2084
            for frame in moving_frames(25, height=48, width=64):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        source = DaliFrameSource(media(tmp_path / "v.webm"), maps_hdr=True)
        assert source.refused == "HDR (PQ)"
        expected = PyAvFrameSource(media(tmp_path / "v.webm"), maps_hdr=True)
        np.testing.assert_array_equal(pictures(source), np.stack(list(expected.pictures())))

    def test_recorded_vp9(self) -> None:
        assert assert_same_frames(SAMPLING / "vp9.webm", max_difference=MAX_EDGE_DIFFERENCE).refused is None

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("h264_bframes_gop300.mp4", "codec h264"),
            ("odd_dims_vp9.webm", "picture size 163x121"),
            ("truncated_faststart.mp4", "codec h264"),
            ("rotate_tag_90.mp4", "codec h264"),
        ],
    )
    def test_what_dali_cannot_decode_comes_from_pyav_to_the_bit(self, name: str, reason: str) -> None:
        noted: list[str] = []
        source = DaliFrameSource(media(SAMPLING / name), on_refusal=noted.append)
        assert noted == [source.refused] == [reason]
        expected = PyAvFrameSource(media(SAMPLING / name))
        np.testing.assert_array_equal(pictures(source), np.stack(list(expected.pictures())))
        assert source.warnings == expected.warnings


class TestSceneStatistics:
    @pytest.mark.parametrize("name", recorded(STACKS))
    def test_boxes_of_the_recorded_stacks(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((SCENES / name).glob("*.webp"))]
        source = DaliFrameSource(media(SAMPLING / "h264_25fps.mp4"))
        assert source._host is not None
        # The recorded frames take the place of the decoded ones: they are uploaded, and all else is DALI's.
        monkeypatch.setattr(source._host, "pictures", lambda: iter(frames))
        numbers = np.arange(len(frames))
        monkeypatch.setattr(source._host, "_samples", Samples(numbers, numbers, np.empty((0, 2), np.float32), []))
        statistics = source.scene_statistics()
        boxes = [list(region.box) for region in find_scenes(statistics)]
        assert boxes == (STACKS[name]["boxes_xyxy"] if STACKS[name]["status"] else [])

    def test_they_equal_those_of_the_same_frames_on_the_host_to_the_bit(self, tmp_path: Path) -> None:
        write_video(tmp_path / "v.webm", moving_frames(120), codec="libvpx-vp9")
        source = DaliFrameSource(media(tmp_path / "v.webm"), fps=9, stack_bytes=500_000)
        accumulator = SceneStatisticsAccumulator(num_frames=source.num_frames)
        for picture in pictures(source):
            accumulator.add(picture)
        found, expected = source.scene_statistics(), accumulator.finish()
        assert source.num_frames > 40
        np.testing.assert_array_equal(found.variance, expected.variance)
        np.testing.assert_array_equal(found.edge_mean, expected.edge_mean)

    def test_no_other_pixels_are_copied_to_the_host_than_those_of_twenty_frames(self, tmp_path: Path) -> None:
        write_video(tmp_path / "v.webm", moving_frames(120), codec="libvpx-vp9")
        source = DaliFrameSource(media(tmp_path / "v.webm"), fps=9)
        copied: list[tuple[tuple[int, ...], str]] = []

        class Watched(DaliOperators):
            def download(self, stack: Any) -> NDArray[Any]:
                array = super().download(stack)
                copied.append((array.shape, array.dtype.name))
                return array

        operators = open_dali("cpu")
        source._operators = Watched(operators.dali, operators.device)
        source.scene_statistics()
        assert copied == [((1, 96, 128, 3), "uint8")] * 20 + [((96, 128, 3), "uint64")] * 2


class TestBadFiles:
    def test_damage_in_the_middle_splits_the_work(self, tmp_path: Path) -> None:
        write_video(tmp_path / "v.mp4", moving_frames(130), codec="mjpeg")
        whole = pictures(DaliFrameSource(media(tmp_path / "v.mp4"), fps=5))
        damage_tail(tmp_path / "v.mp4", keep=0.5, until=0.55)
        noted: list[str] = []
        source = DaliFrameSource(media(tmp_path / "v.mp4"), fps=5, on_refusal=noted.append)
        assert source.refused is None
        found = pictures(source)
        expected = PyAvFrameSource(media(tmp_path / "v.mp4"), fps=5)
        rest = np.stack(list(expected.pictures()))
        assert noted == ["damaged"]
        assert source.warnings == expected.warnings != ()
        assert source.num_frames == len(found) == len(rest)
        first_lost = int(0.5 * 26) - 1
        np.testing.assert_array_equal(found[:first_lost], whole[:first_lost])
        np.testing.assert_array_equal(found[first_lost + 3 :], rest[first_lost + 3 :])

    @pytest.mark.parametrize("order", [(1, 2, 1), (2, 1, 1), (2, 1, 2), (1, 1, 2)])
    def test_pictures_of_several_sizes_come_from_pyav(self, tmp_path: Path, order: tuple[int, ...]) -> None:
        join_sizes(tmp_path / "v.mkv", order)
        noted: list[str] = []
        source = DaliFrameSource(media(tmp_path / "v.mkv"), fps=5, on_refusal=noted.append)
        found = pictures(source)
        expected = np.stack(list(PyAvFrameSource(media(tmp_path / "v.mkv"), fps=5).pictures()))
        assert noted == [source.refused] == ["pictures of several sizes"]
        assert source.warnings == ("pictures of several sizes; all are scaled to the first",)
        assert np.abs(found.astype(np.int16) - expected).max() <= MAX_SMOOTH_DIFFERENCE

    def test_a_failure_of_dali_is_no_reason_to_decode_on_the_host(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_video(tmp_path / "v.mp4", moving_frames(30), codec="libx264")
        monkeypatch.setitem(CODECS["cpu"], "h264", CodecSupport())
        source = DaliFrameSource(media(tmp_path / "v.mp4"))
        with pytest.raises(MediaError, match=r"v\.mp4: DALI cannot decode it \(.*\) and FFmpeg can.*--decoder pyav"):
            source.scene_statistics()

    def test_a_file_that_is_gone_between_two_passes_fails(self, tmp_path: Path) -> None:
        write_video(tmp_path / "v.webm", moving_frames(30), codec="libvpx-vp9")
        source = DaliFrameSource(media(tmp_path / "v.webm"), cache_bytes=0)
        source.scene_statistics()
        (tmp_path / "v.webm").unlink()
        with pytest.raises(MediaError, match=r"v\.webm: No such file or directory"):
            source.scene_statistics()


def join_sizes(path: Path, order: tuple[int, ...]) -> None:
    """VP9 whose pictures change size at its keyframes: ``order`` has a factor for each run of 20 frames."""
    packets = []
    for scale in order:
        part = path.with_name(f"part{scale}.mkv")
        write_video(part, moving_frames(20, height=48 * scale, width=64 * scale), codec="libvpx-vp9")
        with av.open(str(part)) as container:
            packets += [bytes(packet) for packet in container.demux(video=0) if packet.size]
            template = container.streams.video[0]
            if not path.exists() and scale == order[0]:
                target = av.open(str(path), "w")
                stream = target.add_stream_from_template(template)
    for number, content in enumerate(packets):
        packet = av.Packet(content)
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 40 * number, 40 * number, stream.time_base
        packet.is_keyframe = number % 20 == 0
        target.mux(packet)
    target.close()


def test_rows_stay_valid_after_the_source_is_closed(tmp_path: Path) -> None:
    write_video(tmp_path / "v.webm", moving_frames(50), codec="libvpx-vp9")
    source = DaliFrameSource(media(tmp_path / "v.webm"), fps=10)
    rows = [chunk.inputs["a"] for chunk in source.model_inputs([InputSpec("a", 32)])]
    before = [row.copy() for row in rows]
    source.close()
    list(DaliFrameSource(media(tmp_path / "v.webm"), fps=12).model_inputs([InputSpec("a", 32)]))
    for row, copy in zip(rows, before, strict=True):
        np.testing.assert_array_equal(row, copy)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali.experimental.dynamic", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'vsc-engine\[dali\]', or decode with PyAV"):
        open_dali.__wrapped__("cpu")


def test_a_missing_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BackendUnavailable, match=r"DALI cannot use a GPU on this machine: .*--decoder pyav"):
        open_dali.__wrapped__("gpu")
