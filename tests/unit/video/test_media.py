from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from engine.errors import MediaError
from engine.records import Media
from engine.video.media import claimed_duration_s, index_timeline
from tests.conftest import golden_root
from tests.videos import moving_frames, write_timed_video, write_video

SAMPLING = golden_root() / "sampling"
CLIPS: dict[str, Any] = json.loads((SAMPLING / "golden.json").read_text())["videos"]


def media(path: Path) -> Media:
    return Media(path.stem, path)


class TestGoldenTimelines:
    """Against what was recorded by decoding every frame with ffmpeg."""

    @pytest.mark.parametrize("name", CLIPS)
    def test_timeline(self, name: str) -> None:
        clip = CLIPS[name]
        timeline = index_timeline(media(SAMPLING / "videos" / name))
        assert timeline.is_exact
        assert timeline.size_wh == tuple(clip["decoded_size_wh"])
        marked = np.arange(6).reshape(2, 3)
        turned = np.rot90(marked, clip["rotation_ccw_degrees"] // 90)
        np.testing.assert_array_equal(timeline.orientation.apply(marked), turned)
        assert timeline.times_s[0] == pytest.approx(clip["first_frame_time"], abs=1e-9)
        assert (np.diff(timeline.times_s) > 0).all()
        if name == "truncated_faststart.mp4":  # packets without their bytes are still in its index
            assert len(timeline) > clip["decoded_frames"]
            return
        assert len(timeline) == clip["decoded_frames"]
        end_s = clip["last_frame_time"] + clip["last_frame_duration"]
        assert timeline.end_s == pytest.approx(end_s, abs=1e-9)
        if "frame_times" in clip:
            np.testing.assert_allclose(timeline.times_s, clip["frame_times"], atol=1e-6)

    @pytest.mark.parametrize("name", CLIPS)
    def test_pts_are_the_labels_of_decoded_frames(self, name: str) -> None:
        timeline = index_timeline(media(SAMPLING / "videos" / name))
        labels = []
        with av.open(str(SAMPLING / "videos" / name)) as container:
            try:
                labels += [frame.pts for frame in container.decode(video=0)]
            except av.error.InvalidDataError:
                assert name == "truncated_faststart.mp4"
        if name == "truncated_faststart.mp4":
            assert labels == timeline.pts[: len(labels)].tolist()
        else:
            assert labels == timeline.pts.tolist()


class TestIndexTimeline:
    def test_variable_rate_with_b_frames_is_in_presentation_order(self, tmp_path: Path) -> None:
        times_ms = [0, 40, 90, 400, 410, 2000, 2020, 2500, 2600, 2700]
        frames = moving_frames(len(times_ms), height=48, width=64)
        write_timed_video(tmp_path / "vfr.mkv", frames, times_ms=times_ms)
        assert index_timeline(media(tmp_path / "vfr.mkv")).times_s.tolist() == [time / 1000 for time in times_ms]

    def test_times_are_rounded_once(self, tmp_path: Path) -> None:
        write_video(tmp_path / "ntsc.mp4", moving_frames(45), fps=30)
        timeline = index_timeline(media(tmp_path / "ntsc.mp4"))
        assert timeline.times_s.tolist() == [frame / 30 for frame in range(45)]
        assert timeline.end_s == 1.5

    def test_a_lying_header_does_not_count(self, tmp_path: Path) -> None:
        path = tmp_path / "liar.mkv"
        write_video(path, moving_frames(50))
        honest = index_timeline(media(path))
        content = path.read_bytes()
        duration = content.index(b"\x44\x89\x88") + 3  # the element Duration, a float64 of 8 bytes, in milliseconds
        path.write_bytes(content[:duration] + struct.pack(">d", 3_600_000.0) + content[duration + 8 :])
        with av.open(str(path)) as container:
            assert container.duration == 3600 * av.time_base
        lying = index_timeline(media(path))
        assert (lying.times_s.tolist(), lying.end_s) == (honest.times_s.tolist(), honest.end_s)

    def test_audio_that_starts_first_shifts_the_video(self) -> None:
        timeline = index_timeline(media(SAMPLING / "videos" / "video_after_audio_0_4s.mkv"))
        assert timeline.times_s[0] == 0.423

    @pytest.mark.parametrize("name", ["b_frames.avi", "raw.h264"])
    def test_containers_without_presentation_times_are_not_exact(self, tmp_path: Path, name: str) -> None:
        write_video(tmp_path / name, moving_frames(50))
        timeline = index_timeline(media(tmp_path / name))
        assert not timeline.is_exact
        assert len(timeline) == 50
        np.testing.assert_allclose(np.diff(timeline.times_s), 0.04)

    @pytest.mark.parametrize(("codec", "name"), [("libvpx", "v.webm"), ("libvpx-vp9", "v.webm"), ("mjpeg", "v.avi")])
    def test_codecs_that_do_not_reorder_are_exact(self, tmp_path: Path, codec: str, name: str) -> None:
        write_video(tmp_path / name, moving_frames(30), codec=codec)
        timeline = index_timeline(media(tmp_path / name))
        assert timeline.is_exact
        assert timeline.codec == {"libvpx": "vp8", "libvpx-vp9": "vp9"}.get(codec, codec)
        assert len(timeline) == 30

    @pytest.mark.parametrize("name", ["zwei Wörter 视频.mp4", "http:colon %03d.mp4", os.fsdecode(b"not\xffutf8.mp4")])
    def test_any_file_name_works(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        write_video(tmp_path / "plain.mp4", moving_frames(5))
        (tmp_path / "plain.mp4").rename(tmp_path / name)
        monkeypatch.chdir(tmp_path)
        assert len(index_timeline(Media("any", Path(name)))) == 5

    def test_a_cover_picture_is_no_video(self, tmp_path: Path) -> None:
        write_two_streams(tmp_path / "two.mp4", first=(64, 48), second=(128, 96), cover="second")
        assert index_timeline(media(tmp_path / "two.mp4")).size_wh == (64, 48)

    def test_the_largest_of_several_streams_counts(self, tmp_path: Path) -> None:
        write_two_streams(tmp_path / "two.mkv", first=(64, 48), second=(128, 96))
        timeline = index_timeline(media(tmp_path / "two.mkv"))
        assert timeline.size_wh == (128, 96)
        assert timeline.warnings == ("described is video stream 2 of 2 of the file",)

    def test_the_first_of_equal_films_counts(self, tmp_path: Path) -> None:
        write_two_streams(tmp_path / "two.mp4", first=(64, 48), second=(64, 48))
        timeline = index_timeline(media(tmp_path / "two.mp4"))
        assert timeline.stream == 0
        assert timeline.warnings == ("described is video stream 1 of 2 of the file",)

    def test_a_poster_is_no_film_however_large_and_wherever_it_is(self, tmp_path: Path) -> None:
        for name, first, second, lengths in [
            ("before.mkv", (128, 96), (64, 48), (1, 50)),
            ("after.mp4", (64, 48), (128, 96), (50, 2)),
            ("still.mkv", (64, 48), (64, 48), (1, 50)),
        ]:
            write_two_streams(tmp_path / name, first=first, second=second, lengths=lengths)
            timeline = index_timeline(media(tmp_path / name))
            assert timeline.stream == lengths.index(50)
            assert len(timeline) == 50

    def test_a_film_without_a_decoder_is_not_replaced_by_its_poster(self, tmp_path: Path) -> None:
        path = tmp_path / "v.mkv"
        write_two_streams(path, first=(64, 48), second=(128, 96), lengths=(50, 1), codecs=("libx264", "mjpeg"))
        path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_UNKNOWN/CODEC"))
        with pytest.raises(MediaError, match=r"v\.mkv: FFmpeg has no decoder for the video stream"):
            index_timeline(media(path))

    @pytest.mark.parametrize("scales", [(1, 1, 1), (1, 2, 1)])
    def test_sizes_that_change_and_change_back(self, tmp_path: Path, scales: tuple[int, ...]) -> None:
        for scale in set(scales):
            frames = moving_frames(20, height=64 * scale, width=96 * scale)
            write_video(tmp_path / f"{scale}.ts", frames)
        (tmp_path / "v.ts").write_bytes(b"".join((tmp_path / f"{scale}.ts").read_bytes() for scale in scales))
        timeline = index_timeline(media(tmp_path / "v.ts"))
        assert len(timeline) == 60
        assert timeline.has_one_size == (set(scales) == {1})

    def test_metadata_that_is_not_utf8_does_not_count(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "v.mp4"), "w", options={"movflags": "use_metadata_tags"}) as container:
            container.metadata["title"] = "CafX"
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.metadata["handler_name"] = "StreamX"
            for frame in moving_frames(10, height=48, width=64):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        content = (tmp_path / "v.mp4").read_bytes()
        assert content.count(b"CafX") == content.count(b"StreamX") == 1
        content = content.replace(b"CafX", b"Caf\xe9").replace(b"StreamX", b"Stream\xff")
        (tmp_path / "v.mp4").write_bytes(content)
        with pytest.raises(UnicodeDecodeError), av.open(str(tmp_path / "v.mp4")):
            pass
        assert len(index_timeline(media(tmp_path / "v.mp4"))) == 10
        assert claimed_duration_s(media(tmp_path / "v.mp4")) == pytest.approx(0.4)


class TestCutFiles:
    """Files that end before their header says tell how much is missing."""

    @pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.webm", "libvpx"), ("v.avi", "mpeg4")])
    def test_how_much_is_missing(self, tmp_path: Path, name: str, codec: str) -> None:
        write_video(tmp_path / name, moving_frames(150), codec=codec)
        whole = index_timeline(media(tmp_path / name))
        assert whole.warnings == ()
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        timeline = index_timeline(media(tmp_path / name))
        found = re.fullmatch(
            r"the file ends after (\d\.\d) s of the 6\.0 s that its header claims: (\d\d)% is missing",
            timeline.warnings[0],
        )
        assert found is not None
        assert float(found[1]) == pytest.approx(timeline.end_s, abs=0.06)
        assert float(found[2]) == pytest.approx(100 * (1 - timeline.end_s / 6), abs=1)
        assert 30 < float(found[2]) < 70

    @pytest.mark.parametrize("name", ["v.mkv", "v.avi"])
    def test_sound_that_is_longer_than_the_video_is_no_loss(self, tmp_path: Path, name: str) -> None:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            sound = container.add_stream("mp2", rate=48_000)
            for frame in moving_frames(25, height=48, width=64):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
            for number in range(250):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48_000, 1152 * number
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
        assert index_timeline(media(tmp_path / name)).warnings == ()


def write_two_streams(
    path: Path,
    *,
    first: tuple[int, int],
    second: tuple[int, int],
    cover: str = "",
    lengths: tuple[int, int] = (10, 10),
    codecs: tuple[str, str] = ("libx264", "libx264"),
) -> None:
    """Two video tracks, both marked as default; ``cover`` names the one that is a cover picture instead."""
    with av.open(str(path), "w") as container:
        streams = []
        for name, (width, height), length, usual in zip(
            ("first", "second"), (first, second), lengths, codecs, strict=True
        ):
            codec = "mjpeg" if name == cover else usual
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = Disposition.attached_pic if name == cover else Disposition.default
            streams.append((stream, moving_frames(1 if name == cover else length, height=height, width=width)))
        for stream, pictures in streams:
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


def write_sound(path: Path, *, with_empty_video_track: bool = False) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        if with_empty_video_track:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


class TestUnusableFiles:
    def test_missing_file_fails(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"gone\.mp4: No such file or directory"):
            index_timeline(media(tmp_path / "gone.mp4"))

    def test_empty_file_fails(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        with pytest.raises(MediaError, match=r"empty\.mp4: the file is empty"):
            index_timeline(media(tmp_path / "empty.mp4"))

    def test_text_fails(self, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
        with pytest.raises(MediaError, match=r"text\.mp4: FFmpeg cannot read it as a media file \(Invalid data"):
            index_timeline(media(tmp_path / "text.mp4"))

    def test_a_file_cut_before_its_index_fails(self, tmp_path: Path) -> None:
        write_video(tmp_path / "cut.mp4", moving_frames(30))
        (tmp_path / "cut.mp4").write_bytes((tmp_path / "cut.mp4").read_bytes()[:5000])
        with pytest.raises(MediaError, match=r"cut\.mp4: FFmpeg cannot read it"):
            index_timeline(media(tmp_path / "cut.mp4"))

    def test_audio_only_fails(self, tmp_path: Path) -> None:
        write_sound(tmp_path / "song.mp4")
        with pytest.raises(MediaError, match=r"song\.mp4: no video stream in this file \(QuickTime / MOV\)"):
            index_timeline(media(tmp_path / "song.mp4"))

    def test_an_empty_video_track_fails(self, tmp_path: Path) -> None:
        write_sound(tmp_path / "song.mkv", with_empty_video_track=True)
        with pytest.raises(MediaError, match=r"song\.mkv: the video stream has no frames"):
            index_timeline(media(tmp_path / "song.mkv"))

    def test_a_directory_fails(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"not a regular file; expected a video file"):
            index_timeline(Media("dir", tmp_path))


class TestClaimedDuration:
    def test_it_is_what_the_header_says(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", moving_frames(50), fps=10)
        assert claimed_duration_s(Media("a", tmp_path / "a.mp4")) == pytest.approx(5, abs=0.1)

    def test_what_is_no_video_fails(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"text")
        with pytest.raises(MediaError, match="cannot read it as a media file"):
            claimed_duration_s(Media("a", tmp_path / "a.mp4"))
