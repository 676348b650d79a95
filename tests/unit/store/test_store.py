from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import StoreError
from engine.records import Descriptors, Failure
from engine.store.challenge_npz import write_npz
from engine.store.journal import Journal
from engine.store.shards import Fingerprint, StoreDtype, StoredVideo, read_shard, write_shard
from engine.store.store import ShardRecord, StoreWriter, check_same_dimensions, read_descriptors, read_manifest
from tests.conftest import REPOSITORY

IDENTITY = {"engines": "sha256:1234", "fps": 1.0, "preset": {"name": "lite", "mean": (0.5, 0.5, 0.5)}}
FAILURES = [
    Failure("bad", Path("videos/bad.mp4"), "decode", "no frame"),
    Failure("caf", Path("videos") / b"caf\xe9.mp4".decode(errors="surrogateescape"), "open", "denied"),
]


def video(video_id: str, num_rows: int = 3, *, num_dims: int = 6) -> Descriptors:
    rng = np.random.default_rng([*video_id.encode()])
    times = np.stack([np.arange(num_rows), np.arange(1, num_rows + 1)], axis=1).astype(np.float32)
    return Descriptors(video_id, times, rng.standard_normal((num_rows, num_dims)).astype(np.float32), edit_score=0.75)


def fingerprint(video_id: str) -> Fingerprint:
    return Fingerprint(len(video_id), 17)


def open_store(folder: Path) -> StoreWriter:
    """Shards of two videos."""
    return StoreWriter(folder, identity=IDENTITY, rows_per_shard=6)


def add(writer: StoreWriter, *video_ids: str) -> None:
    for video_id in video_ids:
        writer.add(video(video_id), fingerprint(video_id))


def write(folder: Path, *video_ids: str) -> None:
    with open_store(folder) as writer:
        add(writer, *video_ids)
        writer.finish(failures=FAILURES)


def records(folder: Path) -> dict[str, ShardRecord]:
    found = read_manifest(folder).shards
    return {name: record for name, record in found.items() if isinstance(record, ShardRecord)}


def make_version_2(folder: Path) -> None:
    """The manifest as the version before wrote it: no checksums."""
    values = read_manifest(folder).model_dump(mode="json", exclude={"known_bad"})
    values["format"] = "vsc-engine descriptors, version 2"
    values["shards"] = {name: record.num_videos for name, record in records(folder).items()}
    (folder / "manifest.json").write_text(json.dumps(values))


def shards_of(folder: Path) -> dict[str, list[str]]:
    found = sorted(folder.glob("shard-*.parquet"))
    return {path.name: [item.descriptors.video_id for item in read_shard(path)] for path in found}


def assert_holds(folder: Path, *video_ids: str) -> None:
    found = read_descriptors(folder)
    assert [item.video_id for item in found] == sorted(video_ids)
    for item in found:
        np.testing.assert_array_equal(item.descriptors, video(item.video_id).descriptors)
        np.testing.assert_array_equal(item.timestamps, video(item.video_id).timestamps)
        assert item.edit_score == 0.75


class TestWriting:
    def test_videos_are_read_in_the_order_of_their_ids(self, tmp_path: Path) -> None:
        write(tmp_path / "new" / "store", "c", "a", "e", "b", "d")
        assert_holds(tmp_path / "new" / "store", "a", "b", "c", "d", "e")
        assert shards_of(tmp_path / "new" / "store") == {
            "shard-00000.parquet": ["c", "a"],
            "shard-00001.parquet": ["e", "b"],
            "shard-00002.parquet": ["d"],
        }

    def test_the_manifest_says_what_is_there(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "b", "c")
        manifest = read_manifest(tmp_path)
        assert manifest.complete
        assert manifest.identity == json.loads(json.dumps(IDENTITY))
        assert manifest.num_dims == 6
        assert {name: record.num_videos for name, record in records(tmp_path).items()} == {
            "shard-00000.parquet": 2,
            "shard-00001.parquet": 1,
        }
        for name, record in records(tmp_path).items():
            assert record.crc32 == zlib.crc32((tmp_path / name).read_bytes())
        assert manifest.failures == tuple(FAILURES)

    def test_the_same_videos_give_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            write(tmp_path / name, "b", "a", "c")
        names = sorted(path.name for path in (tmp_path / "one").iterdir())
        assert names == [".lock", "manifest.json", "shard-00000.parquet", "shard-00001.parquet"]
        for name in names:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_a_store_of_failures_only(self, tmp_path: Path) -> None:
        write(tmp_path)
        assert read_descriptors(tmp_path) == []
        assert read_manifest(tmp_path).failures == tuple(FAILURES)

    def test_a_video_is_taken_once(self, tmp_path: Path) -> None:
        with open_store(tmp_path) as writer:
            add(writer, "a", "b", "c")
            for video_id in ("a", "c"):
                with pytest.raises(StoreError, match=f"holds '{video_id}' already; discard it first"):
                    add(writer, video_id)
            assert set(writer.finished) == {"a", "b", "c"}

    def test_other_dimensions_fail(self, tmp_path: Path) -> None:
        with open_store(tmp_path) as writer:
            add(writer, "a")
            with pytest.raises(StoreError, match="'b' has descriptors of 7 dimensions, the other videos have 6"):
                writer.add(video("b", num_dims=7), fingerprint("b"))
            writer.finish()
        write_shard(tmp_path / "shard-00007.parquet", [StoredVideo(video("b", num_dims=7), fingerprint("b"))])
        with pytest.raises(StoreError, match=r"has descriptors of 7 dimensions, the other videos have 6"):
            open_store(tmp_path)

    def test_a_shard_with_videos_of_another_fails(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "b", "c")
        write_shard(tmp_path / "shard-00007.parquet", [StoredVideo(video("c"), fingerprint("c"))])
        with pytest.raises(StoreError, match=r"shard-00007\.parquet repeats videos of other shards: \['c'\]"):
            open_store(tmp_path)


class TestInterruptions:
    def test_whole_shards_survive_and_work_goes_on(self, tmp_path: Path) -> None:
        def interrupted_run() -> None:
            with open_store(tmp_path) as writer:
                add(writer, "d", "b", "a")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted_run()
        with pytest.raises(StoreError, match=r"is not complete: .* interrupted .* it goes on where it stopped"):
            read_descriptors(tmp_path)
        with open_store(tmp_path) as writer:
            assert writer.finished == {key: fingerprint(key) for key in ("a", "b", "d")}
            add(writer, "c")
            writer.finish()
            assert "c" in writer.finished
        assert_holds(tmp_path, "a", "b", "c", "d")

    def test_a_killed_writer_loses_nothing_that_was_added(self, tmp_path: Path) -> None:
        script = f"""if True:
            import os, pathlib
            from tests.unit.store.test_store import add, open_store
            folder = pathlib.Path({str(tmp_path)!r})
            add(open_store(folder), "a", "b", "c")
            with (folder / "journal").open("ab") as journal:
                journal.write(b"half a record")
            (folder / ".shard-00001.parquet.1.aside").write_bytes(b"half")
            os.kill(os.getpid(), 9)
        """
        killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False)
        assert killed.returncode == -9
        with open_store(tmp_path) as writer:
            assert writer.finished == {key: fingerprint(key) for key in ("a", "b", "c")}
            assert not list(tmp_path.glob(".*.aside"))
            add(writer, "d")
            writer.finish()
        assert_holds(tmp_path, "a", "b", "c", "d")

    def test_a_journal_whose_videos_are_in_a_shard_already_is_dropped(self, tmp_path: Path) -> None:
        with open_store(tmp_path) as writer:
            add(writer, "a")
            journal = (tmp_path / "journal").read_bytes()
            writer.finish()
        (tmp_path / "journal").write_bytes(journal)
        with open_store(tmp_path) as writer:
            writer.finish()
        assert_holds(tmp_path, "a")
        assert not (tmp_path / "journal").exists()

    @pytest.mark.parametrize("gone", [(), ("a",)])
    def test_a_run_that_only_had_to_finish_gives_a_store_that_can_be_read(
        self, tmp_path: Path, gone: tuple[str, ...]
    ) -> None:
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            add(writer, "a", "b")
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            writer.discard(gone)
            writer.finish()
        assert_holds(tmp_path, *sorted({"a", "b"}.difference(gone)))

    def test_a_journal_of_other_dimensions_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        journal = Journal(tmp_path / "journal")
        journal.append(StoredVideo(video("b", num_dims=7), fingerprint("b")))
        journal.close()
        with pytest.raises(StoreError, match=r"'b' has descriptors of 7 dimensions, the other videos have 6"):
            open_store(tmp_path)

    def test_a_complete_store_can_be_extended(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            assert_holds(tmp_path, "a")
            add(writer, "b")
            with pytest.raises(StoreError, match="is not complete"):
                read_descriptors(tmp_path)
            writer.finish()
        assert_holds(tmp_path, "a", "b")
        assert read_manifest(tmp_path).failures == ()

    def test_one_writer_at_a_time(self, tmp_path: Path) -> None:
        with (
            StoreWriter(tmp_path, identity=IDENTITY),
            pytest.raises(StoreError, match="another process is writing to"),
        ):
            StoreWriter(tmp_path, identity=IDENTITY)
        with StoreWriter(tmp_path, identity=IDENTITY):
            pass


class TestDiscard:
    def test_discarded_videos_are_gone_and_can_be_added_again(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "b", "c", "d", "e")
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            writer.discard(["c", "d", "a", "unknown"])
            assert set(writer.finished) == {"b", "e"}
            add(writer, "a")
            writer.finish()
        assert_holds(tmp_path, "a", "b", "e")
        assert shards_of(tmp_path) == {
            "shard-00000.parquet": ["b"],
            "shard-00002.parquet": ["e"],
            "shard-00003.parquet": ["a"],
        }

    def test_an_interrupted_discard_leaves_an_incomplete_store(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "b")
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            writer.discard(["a"])
        with pytest.raises(StoreError, match="is not complete"):
            read_descriptors(tmp_path)

    def test_nothing_to_discard_changes_nothing(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            writer.discard([])
        assert_holds(tmp_path, "a")


class TestIdentity:
    def test_another_identity_fails_and_names_what_differs(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        other = IDENTITY | {"fps": 2.0, "role": "query"}
        with pytest.raises(
            StoreError, match=r"different are fps \(stored 1\.0, now 2\.0\), role \(stored None, now 'query'\)\. Choose"
        ):
            StoreWriter(tmp_path, identity=other)
        assert_holds(tmp_path, "a")
        write(tmp_path, "b")

    def test_other_folders_fail(self, tmp_path: Path) -> None:
        (tmp_path / "holiday.mp4").write_bytes(b"")
        with pytest.raises(StoreError, match="holds other files; choose a new or empty folder"):
            StoreWriter(tmp_path, identity=IDENTITY)

    def test_a_store_of_the_version_before_is_refused_with_the_command_that_makes_it_anew(self, tmp_path: Path) -> None:
        manifest = {"format": "vsc-engine descriptors, version 1", "complete": True, "identity": {"role": "query"}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        for read in (open_store, read_descriptors):
            with pytest.raises(
                StoreError, match=r"older version .* `vsc-engine extract VIDEOS --role query --output NEW"
            ):
                read(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "vsc-engine descriptors, version 1"}'])
    def test_other_manifests_fail(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(StoreError, match=r"manifest\.json is not the manifest of a descriptor store this version"):
            StoreWriter(tmp_path, identity=IDENTITY)
        with pytest.raises(StoreError, match="is not the manifest"):
            read_descriptors(tmp_path)


class TestReading:
    def test_the_format_is_told_from_the_path(self, tmp_path: Path) -> None:
        write(tmp_path / "store", "b", "a")
        write_npz(tmp_path / "a.npz", [video("b"), video("a")])
        assert [item.video_id for item in read_descriptors(tmp_path / "store", role="query")] == ["a", "b"]
        assert [item.video_id for item in read_descriptors(tmp_path / "a.npz")] == ["b", "a"]

    def test_other_paths_fail(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is not a descriptor store: it has no manifest"):
            read_descriptors(tmp_path)
        with pytest.raises(StoreError, match=r"a folder\) or an \.npz file, got .*x\.csv, which is neither"):
            read_descriptors(tmp_path / "x.csv")

    def test_a_missing_or_damaged_shard_fails(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "b", "c")
        (tmp_path / "shard-00001.parquet").write_bytes(b"PAR1")
        with pytest.raises(StoreError, match=r"shard-00001\.parquet is missing or damaged"):
            read_descriptors(tmp_path)
        with pytest.raises(StoreError, match=r"shard-00001\.parquet is missing or damaged"):
            StoreWriter(tmp_path, identity=IDENTITY)
        (tmp_path / "shard-00001.parquet").unlink()
        with pytest.raises(StoreError, match=r"shard-00001\.parquet is missing or damaged"):
            read_descriptors(tmp_path)
        write(tmp_path, "c")
        assert_holds(tmp_path, "a", "b", "c")

    @pytest.mark.parametrize(
        ("videos", "message"),
        [
            ([video("b")], r"expected 2 videos of 6 dimensions"),
            ([video("b", num_dims=7), video("c", num_dims=7)], r"expected 2 videos of 6 dimensions"),
            ([video("b"), video("x")], r"repeats videos of other shards: \['x'\]"),
        ],
    )
    def test_shards_that_do_not_fit_fail(self, tmp_path: Path, videos: list[Descriptors], message: str) -> None:
        write(tmp_path, "x", "a", "b", "c")
        write_shard(tmp_path / "shard-00001.parquet", [StoredVideo(item, Fingerprint(1, 2)) for item in videos])
        with pytest.raises(StoreError, match=r"shard-00001\.parquet is missing or damaged \(its checksum"):
            read_descriptors(tmp_path)
        make_version_2(tmp_path)
        with pytest.raises(StoreError, match=message):
            read_descriptors(tmp_path)


def rounded(video_id: str) -> np.ndarray:
    return video(video_id).descriptors.astype(np.float16).astype(np.float32)


def open_float16(folder: Path, dtype: StoreDtype | None = "float16") -> StoreWriter:
    return StoreWriter(folder, identity=IDENTITY, dtype=dtype, rows_per_shard=6)


class TestFloat16:
    def test_a_store_keeps_its_dtype(self, tmp_path: Path) -> None:
        """Also in the journal, and in a shard that loses a video; nobody has to ask for it again."""
        with open_float16(tmp_path) as writer:
            add(writer, "a", "b", "c")
            assert (tmp_path / "journal").exists()
        with open_float16(tmp_path, dtype=None) as writer:
            writer.discard(["a"])
            add(writer, "d")
            writer.finish()
        assert read_manifest(tmp_path).dtype == "float16"
        for path in tmp_path.glob("shard-*.parquet"):
            assert pq.read_schema(path).field("descriptor").type.value_type == pa.float16()
        found = read_descriptors(tmp_path)
        assert [item.video_id for item in found] == ["b", "c", "d"]
        for item in found:
            assert item.descriptors.dtype == np.float32
            np.testing.assert_array_equal(item.descriptors, rounded(item.video_id))

    @pytest.mark.parametrize(("first", "second"), [("float16", "float32"), ("float32", "float16"), (None, "float16")])
    def test_another_one_is_refused(self, tmp_path: Path, first: StoreDtype | None, second: StoreDtype) -> None:
        with open_float16(tmp_path, dtype=first) as writer:
            add(writer, "a")
            writer.finish()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(StoreError, match=f"as {first or 'float32'}, {second} was asked for, and they are never"):
            open_float16(tmp_path, dtype=second)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize(("dtype", "other"), [("float16", "float32"), ("float32", "float16")])
    def test_a_shard_of_another_one_is_refused(self, tmp_path: Path, dtype: StoreDtype, other: StoreDtype) -> None:
        """One that was copied from a store of the same engines and settings."""
        for folder, kept_as, video_id in (("one", dtype, "a"), ("two", other, "b")):
            with open_float16(tmp_path / folder, dtype=kept_as) as writer:
                add(writer, video_id)
                writer.finish()
        shutil.copy(tmp_path / "two" / "shard-00000.parquet", tmp_path / "one" / "shard-00001.parquet")
        with pytest.raises(StoreError, match=r"shard-00001\.parquet was made with .* or is kept in another type"):
            open_float16(tmp_path / "one", dtype=None)

    def test_a_store_of_float32_is_written_as_before(self, tmp_path: Path) -> None:
        """Versions that know no other dtype read it."""
        with open_float16(tmp_path, dtype="float32") as writer:
            add(writer, "a")
            writer.finish()
        assert "dtype" not in json.loads((tmp_path / "manifest.json").read_text())

    def test_a_video_with_values_that_do_not_fit_is_refused_and_the_others_stay(self, tmp_path: Path) -> None:
        large = video("b")
        large.descriptors[0, 0] = 1e5
        with open_float16(tmp_path) as writer:
            add(writer, "a")
            with pytest.raises(StoreError, match="'b' has descriptors with values up to 100000"):
                writer.add(large, fingerprint("b"))
        with open_float16(tmp_path) as writer:
            assert set(writer.finished) == {"a"}


class TestDamage:
    """A bit that flips anywhere is noticed, or changes nothing that is read."""

    def test_every_bit_of_a_shard(self, tmp_path: Path) -> None:
        write(tmp_path, "a")
        path = tmp_path / "shard-00000.parquet"
        content = path.read_bytes()
        for place in range(0, 8 * len(content), 61):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            with pytest.raises(
                StoreError, match=r"shard-00000\.parquet is missing or damaged .*; delete it and extract"
            ):
                read_descriptors(tmp_path)

    def test_descriptors_of_a_shard_that_no_manifest_knows(self, tmp_path: Path) -> None:
        """As after a kill: the checksums of the pages hold."""
        write(tmp_path, "a")
        make_version_2(tmp_path)
        path = tmp_path / "shard-00000.parquet"
        content = path.read_bytes()
        column = next(
            column
            for column in map(pq.ParquetFile(path).metadata.row_group(0).column, range(9))
            if column.path_in_schema == "descriptor.list.element"
        )
        start = column.data_page_offset
        noticed = 0
        for place in range(8 * start, 8 * (start + column.total_compressed_size), 11):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                found = read_descriptors(tmp_path)
            except StoreError:
                noticed += 1
                continue
            # What the header of a page says that nothing depends on.
            np.testing.assert_array_equal(found[0].descriptors, video("a").descriptors)
        assert noticed > 8 * column.total_compressed_size / 11 / 2

    def test_a_record_of_the_journal(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            add(writer, "a", "b", "c")
        path = tmp_path / "journal"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 8
        path.write_bytes(content)
        with StoreWriter(tmp_path, identity=IDENTITY) as writer:
            assert set(writer.finished) == {"a"}
            assert "are half-written or damaged; the videos in them are described again" in caplog.text
            add(writer, "b", "c")
            writer.finish()
        assert_holds(tmp_path, "a", "b", "c")


class TestOrigin:
    """What another store holds never gets into this one by a copied file."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        """Files of another store."""
        with StoreWriter(tmp_path / "other", identity=IDENTITY | {"fps": 2.0}) as writer:
            add(writer, "c")
            shutil.copy(tmp_path / "other" / "journal", tmp_path)
            writer.finish()
        shutil.copy(tmp_path / "other" / "shard-00000.parquet", tmp_path)
        return tmp_path

    def test_a_shard_of_another_store_is_refused(self, tmp_path: Path, other: Path) -> None:
        write(tmp_path / "store", "a")
        shutil.copy(other / "shard-00000.parquet", tmp_path / "store" / "shard-00001.parquet")
        with pytest.raises(StoreError, match=r"shard-00001\.parquet was made with other engines or settings"):
            open_store(tmp_path / "store")

    def test_a_journal_of_another_store_is_refused(self, tmp_path: Path, other: Path) -> None:
        write(tmp_path / "store", "a")
        shutil.copy(other / "journal", tmp_path / "store")
        with pytest.raises(StoreError, match="journal was made with other engines or settings"):
            open_store(tmp_path / "store")


class TestVersion2:
    """What the version before wrote is read, and extended."""

    def test_a_store_without_checksums(self, tmp_path: Path) -> None:
        write(tmp_path, "a", "b", "c")
        for path in tmp_path.glob("shard-*.parquet"):
            write_shard(path, read_shard(path))
        make_version_2(tmp_path)
        assert_holds(tmp_path, "a", "b", "c")
        write(tmp_path, "d")
        assert_holds(tmp_path, "a", "b", "c", "d")
        assert read_manifest(tmp_path).format.endswith("version 3")
        assert len(records(tmp_path)) == 3


class TestCheckSameDimensions:
    def test_one_dimension_passes(self) -> None:
        check_same_dimensions([video("a"), video("b")], [video("c")])

    def test_a_difference_on_either_side_fails(self) -> None:
        for queries, references in (
            ([video("a"), video("b", num_dims=7)], [video("c")]),
            ([video("a")], [video("c"), video("b", num_dims=7)]),
        ):
            with pytest.raises(StoreError, match="'a' has 6, 'b' has 7; make all of them with the same engines"):
                check_same_dimensions(queries, references)

    def test_an_empty_side_fails(self) -> None:
        with pytest.raises(StoreError, match="no reference descriptors"):
            check_same_dimensions([video("a")], [])
