from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import StoreError
from engine.records import Descriptors
from engine.store.shards import (
    Fingerprint,
    StoredVideo,
    from_bytes,
    read_index,
    read_shard,
    to_bytes,
    write_shard,
)


def stored(video_id: str, num_rows: int = 2, *, num_dims: int = 5, **gate: object) -> StoredVideo:
    rng = np.random.default_rng(num_rows)
    rows = rng.standard_normal((num_rows, num_dims)).astype(np.float32)
    times = rng.random((num_rows, 2)).astype(np.float32)
    return StoredVideo(
        Descriptors(video_id, times, rows, **gate),  # type: ignore[arg-type]
        Fingerprint(size_bytes=2**40 + num_rows, mtime_ns=1_700_000_000_123_456_789),
    )


VIDEOS = [
    stored("Q2", 3, edit_score=0.1 + 0.2),
    stored("Q1", 1, edit_score=1e-300, gate="stopped"),
    stored('naïve, "quoted"', 4, warnings=("cut short: 3 s lost", "")),
    stored("Q3", 3, blank=np.array([False, True, False]), shot_ends_s=(1 / 3, 2.0)),
]


def test_round_trip_is_exact(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", VIDEOS)
    for found, expected in zip(read_shard(tmp_path / "a.parquet"), VIDEOS, strict=True):
        assert found.fingerprint == expected.fingerprint
        for name in ("video_id", "edit_score", "gate", "warnings", "shot_ends_s"):
            assert getattr(found.descriptors, name) == getattr(expected.descriptors, name)
        np.testing.assert_array_equal(found.descriptors.timestamps, expected.descriptors.timestamps)
        np.testing.assert_array_equal(found.descriptors.blank, expected.descriptors.blank)
        np.testing.assert_array_equal(found.descriptors.descriptors, expected.descriptors.descriptors)


def test_float16_rounds_descriptors_and_nothing_else(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", VIDEOS, dtype="float16")
    assert pq.read_schema(tmp_path / "a.parquet").field("descriptor").type.value_type == pa.float16()
    assert read_index(tmp_path / "a.parquet")[0] == 5
    for found, expected in zip(read_shard(tmp_path / "a.parquet"), VIDEOS, strict=True):
        rows = found.descriptors.descriptors
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, expected.descriptors.descriptors.astype(np.float16))
        np.testing.assert_array_equal(found.descriptors.timestamps, expected.descriptors.timestamps)
        assert found.descriptors.edit_score == expected.descriptors.edit_score
    write_shard(tmp_path / "b.parquet", read_shard(tmp_path / "a.parquet"), dtype="float16")
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes(), "it rounds once"


def test_float16_takes_half_the_space() -> None:
    videos = [stored("Q1", 400, num_dims=512)]
    assert len(to_bytes(videos, dtype="float16")) < 0.55 * len(to_bytes(videos))


def test_values_that_float16_does_not_hold_are_refused(tmp_path: Path) -> None:
    video = stored("Q1")
    video.descriptors.descriptors[1, 1] = -70_000
    write_shard(tmp_path / "a.parquet", [video])
    with pytest.raises(StoreError, match=r"'Q1' has descriptors with values up to 70000, and float16 holds none above"):
        write_shard(tmp_path / "b.parquet", [video], dtype="float16")
    assert not (tmp_path / "b.parquet").exists()


def test_dimension_and_fingerprints_alone(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", VIDEOS)
    expected = {video.descriptors.video_id: video.fingerprint for video in VIDEOS}
    assert read_index(tmp_path / "a.parquet") == (5, expected)


def test_the_same_videos_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, VIDEOS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", VIDEOS)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 11
    assert table["blank"].to_pylist() == [None] * 8 + [False, True, False]
    assert table["video_id"].to_pylist()[:4] == ["Q2", "Q2", "Q2", "Q1"]
    assert table.schema.field("descriptor").type.list_size == 5


@pytest.mark.parametrize("missing", [["blank", "shot_ends_s"], ["shot_ends_s"]])
def test_a_shard_of_an_older_version(missing: list[str], tmp_path: Path) -> None:
    write_shard(tmp_path / "new.parquet", VIDEOS)
    table = pq.read_table(tmp_path / "new.parquet")
    pq.write_table(table.drop_columns(missing), tmp_path / "old.parquet", write_page_checksum=True)
    assert read_index(tmp_path / "old.parquet") == read_index(tmp_path / "new.parquet")
    for found, expected in zip(read_shard(tmp_path / "old.parquet"), VIDEOS, strict=True):
        assert found.descriptors.shot_ends_s is None
        assert (found.descriptors.blank is None) == ("blank" in missing or expected.descriptors.blank is None)
        np.testing.assert_array_equal(found.descriptors.descriptors, expected.descriptors.descriptors)


def test_a_fingerprint_notices_a_change(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"abc")
    before = Fingerprint.of(path)
    assert before == Fingerprint.of(path)
    assert before.size_bytes == 3
    path.write_bytes(b"abcd")
    assert Fingerprint.of(path) != before


def test_a_video_as_bytes_is_the_same_again(tmp_path: Path) -> None:
    (found,) = from_bytes(to_bytes(VIDEOS[:1]), source=tmp_path)
    assert found.fingerprint == VIDEOS[0].fingerprint
    assert found.descriptors.edit_score == VIDEOS[0].descriptors.edit_score
    np.testing.assert_array_equal(found.descriptors.descriptors, VIDEOS[0].descriptors.descriptors)
    with pytest.raises(StoreError, match=r"journal is missing or damaged"):
        from_bytes(b"PAR1", source=tmp_path / "journal")


class TestBadShards:
    def test_missing_or_damaged_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        with pytest.raises(StoreError, match=r"a\.parquet is missing or damaged .* delete it and extract again"):
            read_shard(path)
        write_shard(path, VIDEOS)
        path.write_bytes(path.read_bytes()[:-10])
        for read in (read_shard, read_index):
            with pytest.raises(StoreError, match=r"a\.parquet is missing or damaged"):
                read(path)

    def test_another_table_fails(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"video_id": ["a"], "score": [1.0]}), tmp_path / "a.parquet")
        with pytest.raises(StoreError, match=r"not a shard of descriptors; its columns are \['video_id', 'score'\]"):
            read_shard(tmp_path / "a.parquet")
        with pytest.raises(StoreError, match=r"a\.parquet"):
            read_index(tmp_path / "a.parquet")

    @pytest.mark.parametrize("damage", ["an id that is no text", "lists of any length", "no rows"])
    def test_damage_that_parquet_does_not_notice_fails(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "a.parquet"
        write_shard(path, VIDEOS)
        table = pq.read_table(path)
        if damage == "no rows":
            pq.write_table(table.slice(0, 0), path)
        elif damage == "lists of any length":
            rows = pa.array(table["descriptor"].to_pylist(), pa.list_(pa.float32()))
            pq.write_table(table.set_column(table.column_names.index("descriptor"), "descriptor", rows), path)
        else:
            content = path.read_bytes()
            assert VIDEOS[0].descriptors.video_id.encode() in content
            path.write_bytes(content.replace(VIDEOS[0].descriptors.video_id.encode(), b"\xff\xff"))
        for read in (read_shard, read_index):
            with pytest.raises(StoreError, match=r"a\.parquet is (missing or damaged|not a shard|damaged)"):
                read(path)

    def test_values_that_are_not_finite_fail(self, tmp_path: Path) -> None:
        video = stored("Q1")
        video.descriptors.descriptors[1, 1] = np.nan
        write_shard(tmp_path / "a.parquet", [video])
        with pytest.raises(StoreError, match=r"a\.parquet is damaged: descriptors of 'Q1': expected finite values"):
            read_shard(tmp_path / "a.parquet")
