"""Single pictures, against decoding everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engine.errors import MediaError
from engine.video import stills as module
from engine.video.stills import Still, stills
from tests.videos import damage_tail, moving_frames, turn_video, write_timed_video, write_video

TIMES_S = [-1.0, 0.0, 0.39, 0.41, 1.21, 5.5, 10.99, 11.97]


def write_long(path: Path, *, codec: str = "libx264", num_seconds: int = 12, audio: bool = False) -> None:
    write_video(path, moving_frames(num_seconds * 25), codec=codec, audio=audio)


def shown_at(path: Path, times_s: list[float]) -> list[np.ndarray]:
    """Every frame is decoded; of those that begin at a time or before, the last one is shown."""
    with av.open(str(path)) as container:
        start_s = container.start_time / av.time_base
        frames = [(frame.time - start_s, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [[frames[0][1], *(picture for begin_s, picture in frames if begin_s <= time_s)][-1] for time_s in times_s]


def check_pictures(path: Path, times_s: list[float]) -> None:
    """They come in the order of their times, and are those that are shown."""
    found = list(stills(path, times_s, short_side_px=1000))
    assert [still.time_s for still in found] == sorted(times_s)
    for still, expected in zip(found, shown_at(path, sorted(times_s)), strict=True):
        np.testing.assert_array_equal(still.picture, expected, err_msg=f"at {still.time_s} s")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")],
)
def test_pictures_are_those_that_are_shown(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    write_long(path, codec=codec, audio=name == "a.mkv")
    check_pictures(path, [5.5, *TIMES_S[:5], *TIMES_S[6:]])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_pictures_that_are_shown_long_are_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    times_ms = np.cumsum([40, 40, 1900, 40, 40, 700, 1200, 40] * 8).tolist()
    write_timed_video(path, moving_frames(len(times_ms)), times_ms=times_ms)
    times_s = np.arange(0.02, times_ms[-1] / 1000, 0.7).tolist()
    check_pictures(path, times_s)


def test_few_bytes_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_long(path)
    monkeypatch.setattr(module, "_MAX_BYTES_AHEAD", 1000)
    check_pictures(path, TIMES_S)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "tff=1:interlaced=1:bframes=3"}),
        ("a.ts", "mpeg2video", {"flags": "+ilme+ildct", "bf": "2", "b": "4M"}),
    ],
)
def test_interlaced_pictures_are_found(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    path = tmp_path / name
    write_video(path, moving_frames(100), codec=codec, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    times_s = [0.7, 1.5, 1.54, 3.1]
    check_pictures(path, times_s)


def test_frames_that_no_other_needs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_timed_video(path, moving_frames(200), times_ms=list(range(0, 8000, 40)))
    decode, times_s = module._decode, list[float]()

    def noted(*arguments: Any) -> Iterator[av.VideoFrame]:
        for frame in decode(*arguments):
            times_s.append(frame.time)
            yield frame

    monkeypatch.setattr(module, "_decode", noted)
    found = [still.picture for still in stills(path, [7.0, 7.1], short_side_px=1000)]
    assert 7.08 in times_s
    assert len(times_s) < 125
    np.testing.assert_array_equal(found, shown_at(path, [7.0, 7.1]))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_behind_the_end_is_the_last_picture(tmp_path: Path, name: str) -> None:
    write_long(tmp_path / name)
    last, same = stills(tmp_path / name, [99.0, 100.0], short_side_px=1000)
    np.testing.assert_array_equal(last.picture, shown_at(tmp_path / name, [99.0])[0])
    np.testing.assert_array_equal(same.picture, last.picture)


def test_times_go_on_where_recordings_were_joined(tmp_path: Path) -> None:
    first, second = tmp_path / "first.ts", tmp_path / "second.ts"
    write_video(first, moving_frames(100, seed=1))
    write_video(second, moving_frames(100, seed=2))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    for still in stills(first, [4.1, 5.0, 7.5], short_side_px=1000):
        (expected,) = shown_at(second, [still.time_s - 4.0])
        np.testing.assert_array_equal(still.picture, expected)


def test_a_file_that_cannot_seek_is_decoded_from_its_start(tmp_path: Path) -> None:
    path, raw = tmp_path / "a.mp4", tmp_path / "a.h264"
    write_long(path)
    with av.open(str(path)) as source, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    *inside, behind = stills(raw, [1.0, 6.0, 99.0], short_side_px=96)
    assert behind.picture.shape == (96, 128, 3)
    for still in inside:
        near = shown_at(path, np.arange(still.time_s - 0.16, still.time_s + 0.17, 0.04).tolist())
        assert any(np.abs(still.picture.astype(int) - picture).mean() < 2 for picture in near), still.time_s


def test_pictures_are_reduced_and_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_long(path, num_seconds=1)
    (plain,) = stills(path, [0.5], short_side_px=48)
    turn_video(path, quarter_turns=1)
    (turned,) = stills(path, [0.5], short_side_px=48)
    assert plain.picture.shape == (48, 64, 3)
    np.testing.assert_array_equal(turned.picture, np.rot90(plain.picture, -1))


def test_damage_behind_a_time_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_long(path)
    (expected,) = shown_at(path, [1.0])
    damage_tail(path, keep=0.7)
    first, *rest = stills(path, [1.0, 11.0], short_side_px=1000)
    np.testing.assert_array_equal(first.picture, expected)
    assert [type(still) for still in rest] == [Still]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_keyframes_too_far_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    write_long(path, num_seconds=4)
    monkeypatch.setattr(module, "MAX_GROUP_FRAMES", 20)
    with pytest.raises(MediaError, match=r"no keyframe within 20 frames before 3\.5 s"):
        list(stills(path, [3.5], short_side_px=96))


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        list(stills(path, [1.0], short_side_px=96))
