"""Only the file itself is opened: lists, playlists and patterns that name videos of the test are refused."""

from __future__ import annotations

import os
import wave
from dataclasses import fields
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.errors import MediaError, RemoteError
from engine.records import Media
from engine.storage.ranged import held
from engine.video import DecoderName, container
from engine.video.container import VIDEO_FORMATS, holds_video, open_container
from engine.video.decoder import Decoder
from engine.video.media import Timeline, index_timeline
from engine.video.pyav import PyAvFrameSource
from engine.video.stills import stills
from tests.object_store import Failure, ObjectStore
from tests.videos import moving_frames, write_video

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nown.ts\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>own.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>\n'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 1 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
INDEX = (
    "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\nid: en, index: 0\n"
    "timestamp: 00:00:00:000, filepos: 000000000\n"
)
LISTS = {
    "concat.mp4": "ffconcat version 1.0\nfile own.mp4\n",
    "old_concat.mp4": "file 'own.mp4'\n",
    "concat": "ffconcat version 1.0\nfile own.mp4\n",
    "hls.mp4": HLS,
    "hls.m3u8": HLS,
    "network.m3u8": HLS.replace("own.ts", "http://127.0.0.1:1/own.ts"),
    "dash.mp4": DASH,
    "dash.mpd": DASH,
    "session.mp4": SDP,
    "session.sdp": SDP,
    "subtitles.mp4": INDEX,
    "subtitles.idx": INDEX,
    "picture%03d.png": "a pattern of names",
    "picture%03d.mp4": "a pattern of names",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, three pictures of a sequence, and lists that name them."""
    write_video(tmp_path / "own.mp4", moving_frames(30))
    write_video(tmp_path / "own.ts", moving_frames(30))
    for number, picture in enumerate(moving_frames(3), start=1):
        Image.fromarray(picture).save(tmp_path / f"picture{number:03d}.png")
    for name, text in LISTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def num_packets(path: Path) -> int:
    with open_container(path) as video:
        return sum(packet.size > 0 for packet in video.demux(video=0))


@pytest.mark.parametrize("decoder", ["pyav", "dali"])
@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_other_files_is_refused(
    folder: Path, name: str, decoder: DecoderName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(MediaError, match=r"not a video file by itself|cannot read it as a media file"):
        Decoder(decoder, device="cpu", fps=1).open(Media("list", Path(name)))
    assert not holds_video(Path(name))


def test_the_first_list_would_be_read_without_the_locks(folder: Path) -> None:
    with av.open(str(folder / "concat.mp4")) as video:
        assert sum(packet.size > 0 for packet in video.demux(video=0)) == 30


def test_no_other_file_could_be_opened_even_by_a_demuxer_of_lists(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "VIDEO_FORMATS", VIDEO_FORMATS | {"concat"})
    with pytest.raises(MediaError, match=r"concat\.mp4: "):
        num_packets(folder / "concat.mp4")


@pytest.mark.parametrize("name", sorted(VIDEO_FORMATS))
def test_every_format_is_one_of_ffmpegs(name: str) -> None:
    assert av.ContainerFormat(name, "r").is_input


def test_pictures_sound_and_text_are_no_videos(folder: Path) -> None:
    (folder / "subtitles.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n\n")
    (folder / "text.nfo").write_text("drawn on a terminal\n" * 50)
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16_000))
    for name in ("picture001.png", "sound.wav", "subtitles.srt", "text.nfo"):
        assert not holds_video(folder / name), name


@pytest.mark.parametrize("name", ["zwei Wörter.mp4", "http:colon %03d.mp4", "-", "@x", os.fsdecode(b"\xff\n.mp4")])
def test_the_name_says_nothing(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("own.mp4").rename(name)
    assert holds_video(Path(name))
    assert num_packets(Path(name)) == 30


def test_no_descriptor_is_left_open(folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    num_packets(folder / "own.mp4")
    with pytest.raises(MediaError):
        num_packets(folder / "concat.mp4")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    write_song_with_cover(tmp_path / "song")
    assert not holds_video(tmp_path / "song")


def test_a_title_that_is_not_utf8_is_kept_as_escapes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", moving_frames(5))
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        target.metadata["title"] = "Caf!"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / "b.mkv").read_bytes()
    assert content.count(b"Caf!") == 1
    (tmp_path / "b.mkv").write_bytes(content.replace(b"Caf!", b"Caf\xe9"))
    with open_container(tmp_path / "b.mkv") as video:
        assert video.metadata["title"] == "Caf\\xe9"


def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="not a regular file"):
        open_container(tmp_path / "pipe.mp4")


def test_of_remote_files_nothing_else_is_opened_either(folder: Path, object_store: ObjectStore) -> None:
    for name in (*LISTS, "own.mp4", "own.ts", "picture001.png"):
        object_store.put(f"lists/{name}", folder / name)
    for name in LISTS:
        object_store.requests.clear()
        with pytest.raises(MediaError, match=r"not a video file by itself|cannot read it"):
            open_container(object_store.path(f"lists/{name}")).__enter__()
        assert all(" /videos/lists/own" not in request for request in object_store.requests), name
        assert not holds_video(object_store.path(f"lists/{name}"))
    assert holds_video(object_store.path("lists/own.mp4"))


MAX_GAP_S = 2.1
NUM_FRAMES, FRAMES_PER_S, FRAMES_PER_KEYFRAME = 60, 10, 15


def write_noise(path: Path, *, codec: str, index_at_front: bool = False) -> None:
    """A film of some megabytes with a key frame each 1.5 s, B-frames where the codec has them, and sound."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_at_front else {}) as video:
        options = {"crf": "20", "preset": "ultrafast", "bf": "2"} if codec in ("libx264", "libx265") else {"b": "9M"}
        options |= {"sc_threshold": "1000000000"} if codec == "mpeg4" else {"cpu-used": "8", "deadline": "realtime"}
        stream = video.add_stream(codec, rate=FRAMES_PER_S, options=options)
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        stream.codec_context.gop_size = FRAMES_PER_KEYFRAME
        sound = video.add_stream("aac" if path.suffix == ".mp4" else "libopus", rate=48_000)
        for _ in range(NUM_FRAMES):
            picture = generator.integers(0, 256, (192, 256, 3), dtype=np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        video.mux(stream.encode())
        for start in range(0, NUM_FRAMES * 48_000 // FRAMES_PER_S, 1024):
            samples = generator.uniform(-1, 1, (1, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, start
            video.mux(sound.encode(frame))
        video.mux(sound.encode())


def differences(one: Timeline, other: Timeline) -> list[str]:
    return [
        item.name for item in fields(Timeline) if not np.array_equal(getattr(one, item.name), getattr(other, item.name))
    ]


@pytest.mark.parametrize(
    ("name", "codec", "index_at_front", "reads_part"),
    [
        ("end.mp4", "libx264", False, True),
        ("front.mp4", "libx264", True, True),
        ("hevc.mp4", "libx265", False, True),
        ("mpeg4.mp4", "mpeg4", False, True),
        ("vp9.mp4", "libvpx-vp9", False, False),
        ("other.mkv", "libx264", False, False),
    ],
)
def test_key_frames_of_a_remote_file_are_those_of_the_file(
    object_store: ObjectStore, tmp_path: Path, name: str, codec: str, index_at_front: bool, reads_part: bool
) -> None:
    path = tmp_path / name
    write_noise(path, codec=codec, index_at_front=index_at_front)
    url = object_store.put(f"keyframes/{name}", path)
    size_bytes = path.stat().st_size
    for max_gap_s in (MAX_GAP_S, None):
        local = PyAvFrameSource(Media("a", path), fps=4, max_keyframe_gap_s=max_gap_s)
        expected = [picture.copy() for picture in local.pictures()]
        with held(url) as remote_path:
            remote = PyAvFrameSource(Media("a", remote_path), fps=4, max_keyframe_gap_s=max_gap_s)
            found = [picture.copy() for picture in remote.pictures()]
            read_bytes = remote_path.file.traffic.read_bytes
        assert np.array_equal(found, expected)
        assert np.array_equal(remote.timestamps, local.timestamps)
        assert remote.warnings == local.warnings == ()
        if max_gap_s is None:
            assert read_bytes == size_bytes
        elif reads_part:
            assert len(found) == NUM_FRAMES // FRAMES_PER_KEYFRAME
            assert read_bytes < 0.6 * size_bytes
        timelines = [index_timeline(Media("a", place), keyframes_alone=max_gap_s is not None) for place in (path, url)]
        assert differences(*timelines) == []


def test_where_key_frames_do_not_do_all_of_a_remote_file_is_read(object_store: ObjectStore, tmp_path: Path) -> None:
    write_noise(tmp_path / "a.mp4", codec="libx264")
    url = object_store.put("keyframes/few.mp4", tmp_path / "a.mp4")
    local = PyAvFrameSource(Media("a", tmp_path / "a.mp4"), max_keyframe_gap_s=1.0)
    with held(url) as path:
        remote = PyAvFrameSource(Media("a", path), max_keyframe_gap_s=1.0)
        assert all(np.array_equal(*pair) for pair in zip(remote.pictures(), local.pictures(), strict=True))
    assert remote.warnings == local.warnings
    assert "all frames are sampled" in remote.warnings[0]


def test_stills_of_a_remote_file_are_those_of_the_file(object_store: ObjectStore, tmp_path: Path) -> None:
    write_noise(tmp_path / "a.mp4", codec="libx264")
    url = object_store.put("stills/a.mp4", tmp_path / "a.mp4")
    times_s = [0.0, 2.3, 5.0]
    with held(url) as path:
        found = list(stills(path, times_s, short_side_px=96))
        assert path.file.traffic.read_bytes < path.file.traffic.size_bytes
    for one, other in zip(found, stills(tmp_path / "a.mp4", times_s, short_side_px=96), strict=True):
        assert one.time_s == other.time_s
        assert np.array_equal(one.picture, other.picture)


def test_an_error_of_the_store_is_no_end_of_a_file(object_store: ObjectStore, tmp_path: Path) -> None:
    """FFmpeg takes what it cannot read for cut off; what is described must not depend on the weather."""
    write_noise(tmp_path / "a.mkv", codec="libx264")
    url = object_store.put("broken/a.mkv", tmp_path / "a.mkv")
    with held(url) as path:
        with open_container(path) as video:
            assert video.streams.video
        object_store.failures["broken"] = Failure(403, "AccessDenied")
        with pytest.raises(RemoteError, match="access is denied"):
            index_timeline(Media("a", path))
        object_store.failures.clear()


def test_an_empty_remote_file_says_so(object_store: ObjectStore) -> None:
    with pytest.raises(MediaError, match=r"s3://videos/empty\.mp4: the file is empty"):
        open_container(object_store.put("empty.mp4", b"")).__enter__()


def write_song_with_cover(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as song:
        sound = song.add_stream("aac", rate=48_000)
        cover = song.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        song.mux(cover.encode(av.VideoFrame.from_ndarray(moving_frames(1)[0], format="rgb24")))
        song.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        song.mux(sound.encode(frame))
        song.mux(sound.encode())
