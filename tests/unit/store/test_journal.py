"""Videos that were appended are there again, whatever was cut off or damaged after them."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from engine.records import Descriptors
from engine.store.journal import Journal
from engine.store.shards import Fingerprint, StoredVideo


def stored(number: int) -> StoredVideo:
    rows = np.random.default_rng(number).standard_normal((number + 1, 4)).astype(np.float32)
    times = np.stack([np.arange(number + 1), np.arange(1, number + 2)], axis=1).astype(np.float32)
    video = Descriptors(f"V{number}", times, rows, edit_score=0.5, gate="stopped_rows_kept", warnings=("cut short",))
    return StoredVideo(video, Fingerprint(number, 7))


def written(path: Path, *numbers: int) -> list[int]:
    """Append videos; the size of the file after each."""
    journal = Journal(path)
    sizes = []
    for number in numbers:
        journal.append(stored(number))
        sizes.append(path.stat().st_size)
    journal.close()
    return sizes


def found(path: Path) -> list[str]:
    journal = Journal(path)
    journal.close()
    return [video.descriptors.video_id for video in journal.videos]


def test_what_was_appended_is_read_back_exactly(tmp_path: Path) -> None:
    written(tmp_path / "journal", 0, 2)
    written(tmp_path / "journal", 1)
    journal = Journal(tmp_path / "journal")
    journal.close()
    for video, number in zip(journal.videos, (0, 2, 1), strict=True):
        expected = stored(number)
        assert video.fingerprint == expected.fingerprint
        for name in ("video_id", "edit_score", "gate", "warnings"):
            assert getattr(video.descriptors, name) == getattr(expected.descriptors, name)
        np.testing.assert_array_equal(video.descriptors.descriptors, expected.descriptors.descriptors)
        np.testing.assert_array_equal(video.descriptors.timestamps, expected.descriptors.timestamps)


def test_a_file_cut_anywhere_gives_the_whole_videos_before_the_cut_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    sizes = written(path, 0, 1, 2)
    content = path.read_bytes()
    for length in (0, 5, *range(sizes[0] - 1, len(content), 97), *sizes):
        path.write_bytes(content[:length])
        whole = [f"V{number}" for number, size in enumerate(sizes) if size <= length]
        assert found(path) == whole
        written(path, 5)
        assert found(path) == [*whole, "V5"]


@pytest.mark.parametrize("flipped", [3, 40, -1])
def test_a_damaged_record_and_what_follows_it_are_dropped(tmp_path: Path, flipped: int) -> None:
    path = tmp_path / "journal"
    first, _ = written(path, 0, 1)
    content = bytearray(path.read_bytes())
    content[flipped if flipped < 0 else first + flipped] ^= 1
    path.write_bytes(content)
    assert found(path) == ["V0"]


@pytest.mark.parametrize("num_zeros", [1, 12, 4096])
def test_zeros_at_the_end_as_after_a_power_cut_are_cut_off(tmp_path: Path, num_zeros: int) -> None:
    path = tmp_path / "journal"
    written(path, 0, 1)
    with path.open("ab") as file:
        file.write(bytes(num_zeros))
    assert found(path) == ["V0", "V1"]
    written(path, 5)
    assert found(path) == ["V0", "V1", "V5"]


def test_a_full_disk_is_said_with_the_path(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # the same error as of a full disk, but for its number
    try:
        with pytest.raises(OSError, match=r"cannot be written: File too large.*: '.*journal'"):
            Journal(tmp_path / "journal").append(stored(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found(tmp_path / "journal") == []


def test_a_cleared_journal_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.clear()
    journal.append(stored(0))
    journal.clear()
    assert not (tmp_path / "journal").exists()
    journal.append(stored(1))
    journal.close()
    assert found(tmp_path / "journal") == ["V1"]
