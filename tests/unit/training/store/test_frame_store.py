from __future__ import annotations

import io
import json
import pickle
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lmdb")

from engine.errors import ConfigError, StoreError
from engine.records import Media
from engine.video.pyav import PyAvFrameSource
from tests.conftest import REPOSITORY
from tests.videos import moving_frames
from training.footage.clips import write_clip
from training.store.frame_store import FrameStore, build_store, decode_picture, find_sources

VIDEO = REPOSITORY / "tests" / "golden" / "sampling" / "videos" / "h264_25fps.mp4"


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    picture(1).save(folder / "b.png")
    picture(2).save(folder / "a" / "c.png")
    return folder


def test_pictures_of_a_folder_come_back_as_they_are_in_the_order_of_names(pictures: Path, tmp_path: Path) -> None:
    assert build_store(find_sources([pictures]), tmp_path / "store") == []
    store = FrameStore.open(tmp_path / "store")
    assert store.names() == ["pictures/a/c.png", "pictures/b.png"]
    for index, seed in enumerate((2, 1)):
        np.testing.assert_array_equal(store.picture(index), np.array(picture(seed)))


def test_pictures_of_one_video_that_are_alike_are_stored_once(tmp_path: Path) -> None:
    still = np.full((48, 64, 3), 90, np.uint8)
    frames = [still, still, *moving_frames(1, height=48, width=64, seed=5), still, np.array(picture(1, (64, 48)))]
    write_clip(tmp_path / "clip.mp4", iter(frames), fps=Fraction(1))
    build_store(find_sources([tmp_path / "clip.mp4"]), tmp_path / "store", distinct_bits=20)
    assert FrameStore.open(tmp_path / "store").names() == ["clip/000000", "clip/000002", "clip/000004"]
    with pytest.raises(ConfigError, match="holds a store made with"):
        build_store(find_sources([tmp_path / "clip.mp4"]), tmp_path / "store")


def test_a_closed_store_can_be_opened_again(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures]), tmp_path / "store")
    for _ in range(2):
        with FrameStore.open(tmp_path / "store") as store:
            assert store.picture(0).ndim == 3


def test_a_video_gives_the_frames_that_the_engine_samples(tmp_path: Path) -> None:
    build_store(find_sources([VIDEO]), tmp_path / "store")
    store = FrameStore.open(tmp_path / "store")
    sampled = list(PyAvFrameSource(Media("v", VIDEO)).pictures())
    assert store.names() == [f"h264_25fps/{slot:06d}" for slot in range(len(sampled))]
    for index, frame in enumerate(sampled):
        assert np.abs(store.picture(index).astype(int) - frame).mean() < 4, "more than JPEG of quality 95 loses"


def test_a_zip_file_is_a_folder_of_pictures(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive, io.BytesIO() as content:
        picture(3).save(content, format="png")
        archive.writestr("x/y.png", content.getvalue())
        archive.writestr("x/readme.txt", "no picture")
    build_store(find_sources([tmp_path / "set.zip"]), tmp_path / "store")
    store = FrameStore.open(tmp_path / "store")
    assert store.names() == ["set/x/y.png"]
    np.testing.assert_array_equal(store.picture(0), np.array(picture(3)))


def test_hidden_files_are_passed_over(pictures: Path) -> None:
    (pictures / ".thumbnails").mkdir()
    picture(5).save(pictures / ".thumbnails" / "a.png")
    (pictures / "._a.png").write_bytes(b"companion")
    assert len(find_sources([pictures])) == 2


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    picture(4, (200, 100)).save(tmp_path / "large.png")
    build_store(find_sources([tmp_path / "large.png"]), tmp_path / "store", short_side_px=50)
    assert FrameStore.open(tmp_path / "store").picture(0).shape == (50, 100, 3)


def test_a_broken_picture_is_listed_and_costs_no_other(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"no picture")
    [failure] = build_store(find_sources([pictures]), tmp_path / "store")
    assert failure.name == "pictures/broken.jpg"
    assert "cannot identify" in failure.reason
    assert len(FrameStore.open(tmp_path / "store")) == 2
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["failures"][0]["name"] == failure.name


def test_a_second_build_writes_no_shard_again_and_gives_the_same_store(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures]), tmp_path / "store")
    shard = tmp_path / "store" / "shard-00000.lmdb"
    (tmp_path / "store" / "manifest.json").unlink()  # a build that was cut short before its end
    with pytest.raises(StoreError, match="did not end"):
        FrameStore.open(tmp_path / "store")
    before = shard.stat()
    build_store(find_sources([pictures]), tmp_path / "store")
    assert shard.stat().st_mtime_ns == before.st_mtime_ns
    assert len(FrameStore.open(tmp_path / "store")) == 2


def test_a_changed_source_makes_its_shard_anew(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures]), tmp_path / "store")
    picture(9, (44, 30)).save(pictures / "b.png")
    build_store(find_sources([pictures]), tmp_path / "store")
    np.testing.assert_array_equal(FrameStore.open(tmp_path / "store").picture(1), np.array(picture(9, (44, 30))))


def test_other_settings_are_refused(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures]), tmp_path / "store")
    with pytest.raises(ConfigError, match="choose another"):
        build_store(find_sources([pictures]), tmp_path / "store", short_side_px=32)


def test_workers_and_processes_give_the_same_store(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures, VIDEO]), tmp_path / "one")
    build_store(find_sources([pictures, VIDEO]), tmp_path / "two", num_workers=2)
    one, two = (FrameStore.open(tmp_path / name) for name in ("one", "two"))
    assert one.names() == two.names()
    pictures_of_two = [two.picture(index) for index in range(len(two))]
    content = pickle.dumps(two)
    del two  # LMDB opens a file once in a process
    sent = pickle.loads(content)  # noqa: S301 - as a process sends it to another
    for index in range(len(one)):
        np.testing.assert_array_equal(one.picture(index), pictures_of_two[index])
        np.testing.assert_array_equal(one.picture(index), sent.picture(index))


def test_sources_that_give_nothing_at_all_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="none of 1 sources gave a picture"):
        build_store(find_sources([tmp_path / "broken.png"]), tmp_path / "store")


@pytest.mark.parametrize("path", ["absent", "empty"])
def test_no_sources_are_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no such file|no videos and no pictures"):
        find_sources([tmp_path / path])


def test_two_sources_of_one_name_are_an_error(pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "pictures"
    other.mkdir(parents=True)
    picture(5).save(other / "b.png")
    with pytest.raises(ConfigError, match=r"both be called 'pictures/b.png'"):
        find_sources([pictures, other])


def test_positions_outside_the_store_are_an_error(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures]), tmp_path / "store")
    store = FrameStore.open(tmp_path / "store")
    for index in (-1, 2):
        with pytest.raises(IndexError):
            store.picture(index)


def test_a_missing_shard_is_an_error(pictures: Path, tmp_path: Path) -> None:
    build_store(find_sources([pictures]), tmp_path / "store")
    (tmp_path / "store" / "shard-00000.lmdb").unlink()
    with pytest.raises(StoreError, match="misses shard-00000"):
        FrameStore.open(tmp_path / "store")


def test_what_is_transparent_becomes_white() -> None:
    with io.BytesIO() as file:
        Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(file, format="png")
        np.testing.assert_array_equal(decode_picture(file.getvalue()), np.full((2, 2, 3), 255))
