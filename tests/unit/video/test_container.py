"""Only the file itself is opened: lists, playlists and patterns that name videos of the test are refused."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.errors import MediaError
from engine.records import Media
from engine.video import DecoderName, container
from engine.video.container import VIDEO_FORMATS, holds_video, open_container
from engine.video.decoder import Decoder
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
