from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.errors import StoreError
from engine.records import Descriptors, Failure
from engine.store import merge
from engine.store.input_shard import InputShard
from engine.store.merge import merge_stores
from engine.store.shards import Fingerprint, StoreDtype, StoredVideo
from engine.store.store import KnownBad, StoreWriter, read_descriptors, read_manifest
from engine.store.tables import write_failures

IDENTITY = {"engines": "sha256:1234", "settings": {"fps": 1.0}, "role": "reference"}


def video(video_id: str, num_rows: int = 3, *, num_dims: int = 6) -> Descriptors:
    rng = np.random.default_rng([*video_id.encode()])
    times = np.stack([np.arange(num_rows), np.arange(1, num_rows + 1)], axis=1).astype(np.float32)
    rows = rng.standard_normal((num_rows, num_dims)).astype(np.float32)
    return Descriptors(video_id, times, rows, edit_score=0.75, warnings=("a line",))


def write(
    folder: Path,
    *videos: str | Descriptors,
    shard: str | InputShard | None = None,
    identity: dict[str, object] = IDENTITY,
    failures: tuple[Failure, ...] = (),
    known_bad: tuple[KnownBad, ...] = (),
    dtype: StoreDtype | None = None,
) -> Path:
    parsed = InputShard.parse(shard) if isinstance(shard, str) else shard
    with StoreWriter(folder, identity=identity, shard=parsed, dtype=dtype, rows_per_shard=6) as writer:
        for item in videos:
            descriptors = video(item) if isinstance(item, str) else item
            writer.add(descriptors, Fingerprint(len(descriptors.video_id), 17))
        writer.finish(failures=failures, known_bad=known_bad)
    return folder


def failure(video_id: str) -> Failure:
    return Failure(video_id, Path(f"{video_id}.mp4"), "decode", "no frame")


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != ".lock"
    }


def assert_holds(folder: Path, *video_ids: str) -> None:
    found = read_descriptors(folder)
    assert [item.video_id for item in found] == sorted(video_ids)
    for item in found:
        expected = video(item.video_id)
        np.testing.assert_array_equal(item.descriptors, expected.descriptors)
        np.testing.assert_array_equal(item.timestamps, expected.timestamps)
        assert (item.edit_score, item.gate, item.warnings) == (0.75, "passed", ("a line",))


def refusal(paths: list[Path], output: Path, **options: bool) -> str:
    with pytest.raises(StoreError) as error:
        merge_stores(paths, output, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_shards_become_one_store_and_stay_as_they_are(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "1", "d", "a", "e", shard="1/3", failures=(failure("x"),)),
        write(tmp_path / "2", shard="2/3"),
        write(tmp_path / "3", "c", "b", shard="3/3"),
    ]
    before = [bytes_of(path) for path in paths]
    summary = merge_stores(paths, tmp_path / "all")
    assert (summary.num_videos, summary.num_repeated, summary.missing) == (5, 0, ())
    assert summary.failures == (failure("x"),)
    assert_holds(tmp_path / "all", "a", "b", "c", "d", "e")
    manifest = read_manifest(tmp_path / "all")
    assert (manifest.complete, manifest.identity, manifest.shard) == (True, IDENTITY, None)
    assert manifest.failures == (failure("x"),)
    assert [bytes_of(path) for path in paths] == before


def test_a_merged_store_is_gone_on_with_by_an_extraction(tmp_path: Path) -> None:
    """Fingerprints and known bad files come along, so that nothing is described again."""
    bad = KnownBad(sha256="0" * 64, size_bytes=1, mtime_ns=2, reader="this one", failure=failure("bad"))
    merge_stores([write(tmp_path / "1", "a", shard="1/1", known_bad=(bad,))], tmp_path / "all")
    with StoreWriter(tmp_path / "all", identity=IDENTITY) as writer:
        assert writer.finished == {"a": Fingerprint(1, 17)}
        assert writer.known_bad == (bad,)


class TestOneIdInSeveralStores:
    def test_equal_contents_are_kept_once(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / "1", "a", "b"), write(tmp_path / "2", "b", "c"), write(tmp_path / "3", "b")]
        summary = merge_stores(paths, tmp_path / "all")
        assert (summary.num_videos, summary.num_repeated) == (3, 1)
        assert_holds(tmp_path / "all", "a", "b", "c")

    @pytest.mark.parametrize(
        "changes",
        [
            {"descriptors": np.nextafter(video("b").descriptors, np.float32(np.inf))},
            {"timestamps": video("b").timestamps + np.float32(0.5)},
            {"edit_score": None},
            {"gate": "stopped_rows_kept"},
            {"warnings": ()},
            {"blank": np.array([True, False, False])},
        ],
    )
    def test_different_contents_are_refused_before_anything_is_written(
        self, tmp_path: Path, changes: dict[str, object]
    ) -> None:
        other = replace(video("b"), **changes)  # type: ignore[arg-type]
        paths = [write(tmp_path / "1", "a", "b"), write(tmp_path / "2", other)]
        text = refusal(paths, tmp_path / "all")
        assert "different contents under the id 'b'" in text
        assert str(paths[0]) in text
        assert str(paths[1]) in text
        assert not (tmp_path / "all").exists()

    def test_one_that_the_output_holds_otherwise_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "all", replace(video("b"), edit_score=None), "a")
        before = bytes_of(tmp_path / "all")
        text = refusal([write(tmp_path / "1", "b", "c")], tmp_path / "all")
        assert "different contents under the id 'b'" in text
        assert bytes_of(tmp_path / "all") == before

    def test_a_failure_of_one_that_another_described_is_none(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / "1", "a", failures=(failure("b"), failure("c"))), write(tmp_path / "2", "b")]
        assert merge_stores(paths, tmp_path / "all").failures == (failure("c"),)


def test_stores_of_float16_become_one(tmp_path: Path) -> None:
    paths = [write(tmp_path / "1", "a", "b", dtype="float16"), write(tmp_path / "2", "b", "c", dtype="float16")]
    assert merge_stores(paths, tmp_path / "all").num_repeated == 1
    assert read_manifest(tmp_path / "all").dtype == "float16"
    for item in read_descriptors(tmp_path / "all"):
        np.testing.assert_array_equal(item.descriptors, video(item.video_id).descriptors.astype(np.float16))


def test_tables_of_failures_are_merged(tmp_path: Path) -> None:
    """They also name files that could not be found, which are no matter of the store."""
    paths = [write(tmp_path / name, name, failures=(failure("y"),)) for name in "ab"]
    dangling = Failure("x", Path("caf\udce9.mp4"), "find", "No such file (a link to gone)")
    write_failures(paths[0] / "failures.csv", [dangling, failure("y")])
    found = merge_stores(paths, tmp_path / "all").failures
    assert [(item.video_id, item.stage) for item in found] == [("x", "find"), ("y", "decode")]


class TestAnInterruption:
    def test_the_same_merge_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = [write(tmp_path / "1", "a", "b", "c", shard="1/2"), write(tmp_path / "2", "d", "e", shard="2/2")]
        stored_videos = merge.stored_videos

        def interrupted(path: Path) -> object:
            for item in stored_videos(path):
                if item.descriptors.video_id == "e":
                    raise KeyboardInterrupt
                yield item

        class SmallShards(StoreWriter):
            def __init__(self, folder: Path, **options: object) -> None:
                super().__init__(folder, rows_per_shard=6, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(merge, "StoreWriter", SmallShards)
        monkeypatch.setattr(merge, "stored_videos", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge_stores(paths, tmp_path / "all")
        with pytest.raises(StoreError, match="is not complete"):
            read_descriptors(tmp_path / "all")
        monkeypatch.setattr(merge, "stored_videos", stored_videos)
        copied: list[str] = []
        add_copies = StoreWriter.add_copies

        def counted(writer: StoreWriter, videos: object) -> None:
            def each() -> object:
                for item in videos:  # type: ignore[attr-defined]
                    copied.append(item.descriptors.video_id)
                    yield item

            add_copies(writer, each())  # type: ignore[arg-type]

        monkeypatch.setattr(StoreWriter, "add_copies", counted)
        merge_stores(paths, tmp_path / "all")
        assert_holds(tmp_path / "all", "a", "b", "c", "d", "e")
        assert copied == ["e"], "what was in shards before is not copied again"

    def test_the_same_merge_twice(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / "1", "a", shard="1/2"), write(tmp_path / "2", "b", shard="2/2")]
        first = merge_stores(paths, tmp_path / "all")
        before = bytes_of(tmp_path / "all")
        assert merge_stores(paths, tmp_path / "all") == first
        assert bytes_of(tmp_path / "all") == before


class TestWhatDoesNotBelongTogether:
    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / "1", "a", shard="1/4"), write(tmp_path / "3", "b", shard="3/4")]
        assert "shard 2/4, 4/4 of the inputs" in refusal(paths, tmp_path / "all")
        assert not (tmp_path / "all").exists()
        summary = merge_stores(paths, tmp_path / "all", allow_missing=True)
        assert summary.missing == ("2/4", "4/4")
        assert_holds(tmp_path / "all", "a", "b")

    def test_many_missing_shards_are_counted(self, tmp_path: Path) -> None:
        text = refusal([write(tmp_path / "1", "a", shard="1/1000")], tmp_path / "all")
        assert "shard 2/1000, 3/1000, 4/1000, 5/1000, 6/1000 and 994 more" in text

    def test_shards_of_different_counts(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / "1", "a", shard="1/2"), write(tmp_path / "2", "b", shard="2/3")]
        assert "shard 1/2 of the inputs" in refusal(paths, tmp_path / "all", allow_missing=True)

    def test_shards_of_different_versions(self, tmp_path: Path) -> None:
        old = InputShard(number=2, count=2, version="0.0.9")
        paths = [write(tmp_path / "1", "a", shard="1/2"), write(tmp_path / "2", "b", shard=old)]
        assert "by 0.0.9" in refusal(paths, tmp_path / "all")

    def test_stores_of_different_settings(self, tmp_path: Path) -> None:
        other = {**IDENTITY, "settings": {"fps": 2.0}}
        paths = [write(tmp_path / "1", "a"), write(tmp_path / "2", "b", identity=other)]
        text = refusal(paths, tmp_path / "all")
        assert "settings ({'fps': 1.0} in" in text
        assert "role" not in text

    @pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float16")])
    def test_stores_of_different_dtypes(self, tmp_path: Path, dtypes: tuple[StoreDtype, StoreDtype]) -> None:
        paths = [
            write(tmp_path / dtype, name, shard=f"{place}/2", dtype=dtype)
            for place, (name, dtype) in enumerate(zip("ab", dtypes, strict=True), start=1)
        ]
        text = refusal(paths, tmp_path / "all")
        assert f"{paths[0]} keeps descriptors as {dtypes[0]}, {paths[1]} as {dtypes[1]}, which are never mixed" in text
        assert not (tmp_path / "all").exists()

    def test_an_output_of_another_dtype(self, tmp_path: Path) -> None:
        write(tmp_path / "all", "z")
        before = bytes_of(tmp_path / "all")
        text = refusal([write(tmp_path / "1", "a", dtype="float16")], tmp_path / "all")
        assert "keeps descriptors as float32, float16 was asked for" in text
        assert bytes_of(tmp_path / "all") == before

    def test_an_output_of_other_settings(self, tmp_path: Path) -> None:
        write(tmp_path / "all", "z", identity={**IDENTITY, "role": "query"})
        assert "another origin" in refusal([write(tmp_path / "1", "a")], tmp_path / "all")

    def test_an_output_that_is_merged(self, tmp_path: Path) -> None:
        path = write(tmp_path / "1", "a")
        assert "is one of the stores" in refusal([path], tmp_path / "." / "1")

    def test_what_is_no_store_or_not_complete(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "is not a descriptor store" in refusal([tmp_path / "empty"], tmp_path / "all")
        with StoreWriter(tmp_path / "running", identity=IDENTITY) as writer:
            writer.add(video("a"), Fingerprint(1, 1))
            assert "is not complete" in refusal([tmp_path / "running"], tmp_path / "all")

    def test_a_damaged_store(self, tmp_path: Path) -> None:
        path = write(tmp_path / "1", "a", "b")
        shard = path / "shard-00000.parquet"
        content = bytearray(shard.read_bytes())
        content[len(content) // 3] ^= 1
        shard.write_bytes(content)
        assert "damaged" in refusal([path], tmp_path / "all")
        assert not (tmp_path / "all").exists() or not read_manifest(tmp_path / "all").complete


class TestTheWriterOfAShard:
    @pytest.mark.parametrize(
        ("first", "second"), [("1/8", "1/4"), ("1/8", "2/8"), ("1/8", None), (None, "1/8"), ("1/8", "version")]
    )
    def test_another_share_in_the_same_store_is_refused(
        self, tmp_path: Path, first: str | None, second: str | None
    ) -> None:
        write(tmp_path / "out", "a", shard=first)
        before = bytes_of(tmp_path / "out")
        newer = InputShard(number=1, count=8, version="99.0") if second == "version" else second
        with pytest.raises(StoreError, match="they are never mixed; choose another folder") as error:
            write(tmp_path / "out", "b", shard=newer)
        assert "\n" not in str(error.value)
        assert bytes_of(tmp_path / "out") == before

    def test_the_same_share_is_gone_on_with(self, tmp_path: Path) -> None:
        write(tmp_path, "a", shard="1/8")
        write(tmp_path, "b", shard="1/8")
        assert_holds(tmp_path, "a", "b")

    def test_a_store_of_all_inputs_is_written_as_before(self, tmp_path: Path) -> None:
        """Versions that know no shares of inputs read it."""
        write(tmp_path, "a")
        assert '"shard"' not in (tmp_path / "manifest.json").read_text()


def test_copies_need_no_journal_and_are_taken_once(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, identity=IDENTITY) as writer:
        writer.add_copies(StoredVideo(video(name), Fingerprint(1, 1)) for name in "ab")
        assert not (tmp_path / "journal").exists()
        with pytest.raises(StoreError, match="holds 'b' already"):
            writer.add_copies([StoredVideo(video("b"), Fingerprint(1, 1))])
        writer.finish()
    assert_holds(tmp_path, "a", "b")


def test_damage_that_adding_to_a_store_does_not_see_is_found_and_mended(tmp_path: Path) -> None:
    """As `docs/files.md` says: whoever adds reads the ids alone, whoever merges reads all."""
    store = write(tmp_path / "store", "a")
    shard = store / "shard-00000.parquet"
    content = bytearray(shard.read_bytes())
    start = pq.ParquetFile(shard).metadata.row_group(0).column(3).data_page_offset
    content[start + 40] ^= 1
    shard.write_bytes(content)
    write(store, "b")
    with pytest.raises(StoreError, match=r"shard-00000\.parquet .*delete it and extract again"):
        merge_stores([store], tmp_path / "copy")
    shard.unlink()
    write(store, "a")
    merge_stores([store], tmp_path / "copy")
    assert_holds(tmp_path / "copy", "a", "b")
