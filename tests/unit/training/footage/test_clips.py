"""Clips whose frames say their own index, read at other rates, from other starts, and after damage."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.errors import MediaError
from tests.conftest import golden_root
from tests.videos import moving_frames, write_video
from training.footage.clips import read_clip, reencode, write_clip

LEVELS_PER_FRAME = 5


def level_frames(num_frames: int, *, height: int = 64, width: int = 96) -> list[NDArray[np.uint8]]:
    """Flat grey frames: 5 levels brighter from one to the next."""
    return [np.full((height, width, 3), LEVELS_PER_FRAME * index, np.uint8) for index in range(num_frames)]


def indices(frames: list[NDArray[np.uint8]]) -> list[int]:
    return [round(float(frame.mean()) / LEVELS_PER_FRAME) for frame in frames]


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "counting.mp4"
    write_video(path, level_frames(50), fps=25)
    return path


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(10), Fraction(30), Fraction(50), Fraction(30000, 1001)])
@pytest.mark.parametrize("start_s", [0.0, 0.4, 0.735, 1.9])
def test_read_clip_shows_what_is_on_screen(counting: Path, fps: Fraction, start_s: float) -> None:
    start = Fraction(str(start_s))
    times = [start + k / fps for k in range(200) if start + k / fps < 2]
    assert indices(list(read_clip(counting, fps=fps, start_s=start_s))) == [int(time * 25) for time in times]


def test_audio_does_not_shift_the_times(tmp_path: Path) -> None:
    write_video(tmp_path / "sound.mp4", level_frames(25), fps=25, audio=True)
    assert indices(list(read_clip(tmp_path / "sound.mp4", fps=Fraction(25), start_s=0.2))) == list(range(5, 25))


def test_reading_from_the_end_gives_nothing(counting: Path) -> None:
    assert list(read_clip(counting, fps=Fraction(25), start_s=2.0)) == []


def test_frames_are_shrunk_but_never_enlarged(counting: Path) -> None:
    assert next(read_clip(counting, fps=Fraction(25), short_side_px=32)).shape == (32, 48, 3)
    assert next(read_clip(counting, fps=Fraction(25), short_side_px=100)).shape == (64, 96, 3)


@pytest.mark.parametrize(("name", "output"), [("rotate_tag_90", 2), ("rotate_tag_180", 1), ("rotate_tag_270", 1)])
def test_rotation_metadata_is_applied(name: str, output: int) -> None:
    folder = golden_root() / "sampling"
    picture = folder / "jpeg_rgb" / f"{name}.mp4.{output}.png"
    if not picture.is_file():
        pytest.skip("only the full golden set shows this rotation")
    expected = np.asarray(Image.open(picture), np.float64)
    frame = next(read_clip(folder / "videos" / f"{name}.mp4", fps=Fraction(25), start_s=output + 0.48))
    assert frame.shape == expected.shape
    # 5 levels: the golden picture went through JPEG, see the note on color there. Upside down it is 180.
    assert np.abs(frame - expected).mean() < 10


def test_a_damaged_tail_ends_the_clip(tmp_path: Path) -> None:
    video = tmp_path / "cut.mkv"
    write_video(video, moving_frames(50), fps=25)
    whole = list(read_clip(video, fps=Fraction(25)))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    kept = list(read_clip(video, fps=Fraction(25)))
    assert 10 < len(kept) < 40
    assert all(np.array_equal(a, b) for a, b in zip(kept[:10], whole[:10], strict=True))


def test_reading_no_video_fails(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        next(read_clip(tmp_path / "text.mp4", fps=Fraction(25)))


def test_write_clip_keeps_rate_number_and_content(tmp_path: Path) -> None:
    path = tmp_path / "written.mp4"
    fps = Fraction(30000, 1001)
    assert write_clip(path, iter(level_frames(40)), fps=fps) == 40
    assert indices(list(read_clip(path, fps=fps))) == list(range(40))


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        write_clip(tmp_path / name, level_frames(30), fps=Fraction(15))
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_writing_no_frame_fails_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no frame to write"):
        write_clip(tmp_path / "none.mp4", [], fps=Fraction(25))
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize("shape", [(64, 96), (65, 97)])
def test_reencode_keeps_number_and_order(shape: tuple[int, int]) -> None:
    height, width = shape
    passed = list(reencode(level_frames(30, height=height, width=width), crf=30))
    assert {frame.shape for frame in passed} == {(64, 96, 3)}
    assert indices(passed) == list(range(30))
