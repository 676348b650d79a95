from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.build.engines import build_engines
from engine.catalog.catalog import Catalog
from engine.catalog.records import AddReport
from engine.config import load_preset
from engine.describe.engine import Engine
from engine.errors import ConfigError, EngineError, MediaError, StoreError
from engine.files import exclusive
from engine.records import Descriptors, Failure
from engine.store.shards import Fingerprint, StoreDtype
from engine.store.store import StoreWriter
from tests.catalogs import contents, copy_of, delete_row, npz, video
from tests.packaged import norm_rows, tiny_preset, write_packaged
from tests.videos import moving_frames, write_video

FPS = 5


IN_FOLDER = pytest.mark.parametrize("catalog", ["folder"], indirect=True)
"""For what is about the files of rows."""


@pytest.fixture(params=["folder", pytest.param("milvus", marks=pytest.mark.long)])
def catalog(request: pytest.FixtureRequest, tiny_engines: Path, tmp_path: Path) -> Catalog:
    milvus = request.getfixturevalue("milvus") if request.param == "milvus" else None
    return Catalog.create(tmp_path / "catalogue", engines=tiny_engines, milvus=milvus)


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for seed, name in enumerate(("a", "b")):
        write_video(folder / f"{name}.mp4", moving_frames(4 * FPS, seed=seed), fps=FPS)
    return folder


@pytest.fixture
def upload(footage: Path, tmp_path: Path) -> Path:
    """A copy of ``a``, elsewhere."""
    return Path(shutil.copyfile(footage / "a.mp4", tmp_path / "q.mp4"))


def write_store(
    folder: Path,
    engines: Path,
    *videos: Descriptors,
    role: str = "reference",
    dtype: StoreDtype | None = None,
) -> Path:
    identity = Engine.open(engines).identity(role=role)  # type: ignore[arg-type]
    with StoreWriter(folder, identity=identity, dtype=dtype) as writer:
        for item in videos:
            writer.add(item, Fingerprint(1, 2))
        writer.finish()
    return folder


def assert_one_line(error: pytest.ExceptionInfo[EngineError], pattern: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert re.search(pattern, text), text


def test_videos_are_described_and_kept_with_hash_and_times(catalog: Catalog, footage: Path) -> None:
    with catalog:
        report = catalog.add([footage])
    assert report == AddReport(added=("a", "b"), replaced=(), kept=(), failures=())
    first, second = catalog.list()
    assert (first.video_id, first.path, first.num_rows, first.duration_s) == ("a", footage / "a.mp4", 4, 4.0)
    assert first.sha256 != second.sha256
    with Engine.open(catalog.manifest.engines_folder) as engine:
        expected = list(engine.extract([footage], role="reference"))
    found = contents(catalog)
    for item in expected:
        assert found[item.video_id][2] == item.descriptors.tobytes()


def test_what_is_there_is_kept_and_what_changed_is_replaced(catalog: Catalog, footage: Path) -> None:
    with catalog:
        catalog.add([footage])
        before = contents(catalog)
        os.utime(footage / "a.mp4", ns=(1, 1))  # another time, the same bytes
        write_video(footage / "b.mp4", moving_frames(6 * FPS, seed=5), fps=FPS)
        write_video(footage / "c.mp4", moving_frames(4 * FPS, seed=6), fps=FPS)
        report = catalog.add([footage])
        assert report == AddReport(added=("c",), replaced=("b",), kept=("a",), failures=())
        after = contents(catalog)
        assert after["a"] == before["a"]
        assert after["b"][1] == 6
        assert catalog.add([footage]) == AddReport((), (), ("a", "b", "c"), ())
    assert catalog._shares.orphans() == {}


def test_a_moved_file_keeps_its_rows_and_another_of_its_name_is_refused(
    catalog: Catalog, footage: Path, tmp_path: Path
) -> None:
    with catalog:
        catalog.add([footage])
        before = contents(catalog)
        moved = tmp_path / "moved"
        moved.mkdir()
        (footage / "a.mp4").rename(moved / "a.mp4")
        write_video(moved / "b.mp4", moving_frames(4 * FPS, seed=9), fps=FPS)
        report = catalog.add([moved])
    assert report.kept == ("a",)
    (failure,) = report.failures
    assert (failure.video_id, failure.path, failure.stage) == ("b", moved / "b.mp4", "add")
    assert str(footage / "b.mp4") in failure.reason
    assert "\n" not in failure.reason
    assert contents(catalog) == before
    assert [item.path.parent for item in catalog.list()] == [moved, footage]


def test_a_bad_video_is_reported_and_what_was_there_stays(catalog: Catalog, footage: Path) -> None:
    with catalog:
        catalog.add([footage])
        before = contents(catalog)
        (footage / "a.mp4").write_bytes(b"")
        (footage / "z.mp4").write_bytes(b"no video")
        report = catalog.add([footage])
    assert [failure.video_id for failure in report.failures] == ["a", "z"]
    assert report.kept == ("b",)
    assert contents(catalog) == before


def test_workers_add_the_same(catalog: Catalog, footage: Path, tiny_engines: Path, tmp_path: Path) -> None:
    from engine.run.plan import Workers

    (footage / "bad.mp4").write_bytes(b"")
    with catalog:
        expected = catalog.add([footage])
    other = Catalog.create(tmp_path / "other", engines=tiny_engines)
    found = other.add([footage], workers=Workers.share_cores(1))
    assert found == expected
    assert contents(other) == contents(catalog)


def test_stores_and_challenge_files_are_taken(catalog: Catalog, tiny_engines: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", tiny_engines, replace(video("a"), warnings=("lost 1 frame",)))
    report = catalog.add([store, npz(tmp_path / "b.npz", video("b"), video("c"))])
    assert report.added == ("a", "b", "c")
    first, second, _ = catalog.list()
    assert (first.path, first.warnings) == (store, ("lost 1 frame",))
    assert second.path == tmp_path / "b.npz"
    npz(tmp_path / "b.npz", video("b"), video("c", seed=1))
    report = catalog.add([store, tmp_path / "b.npz"])
    assert (report.kept, report.replaced) == (("a", "b"), ("c",))


def test_stores_of_float16_and_float32_are_taken(catalog: Catalog, tiny_engines: Path, tmp_path: Path) -> None:
    stores = [
        write_store(tmp_path / dtype, tiny_engines, video(name), dtype=dtype)
        for name, dtype in (("a", "float16"), ("b", "float32"))
    ]
    with catalog:
        assert catalog.add(stores).added == ("a", "b")
        assert catalog.add(stores).kept == ("a", "b")
        found = contents(catalog)
        assert found["a"][2] == video("a").descriptors.astype(np.float16).astype(np.float32).tobytes()
        assert found["b"][2] == video("b").descriptors.tobytes()
        assert catalog.verify().problems == ()
        for name in "ab":
            answer = catalog.match(copy_of(video(name), "q"))
            assert answer.candidates[0].ref_id == name


def test_a_query_that_a_gate_stopped_is_no_reference(catalog: Catalog, tmp_path: Path) -> None:
    stopped = replace(video("a", 1), gate="stopped")
    report = catalog.add([npz(tmp_path / "q.npz", stopped, video("b"))])
    assert report.added == ("b",)
    (failure,) = report.failures
    assert failure == Failure("a", tmp_path / "q.npz", "read", failure.reason)


def test_descriptors_of_other_engines_are_refused(catalog: Catalog, tiny_engines: Path, tmp_path: Path) -> None:
    queries = write_store(tmp_path / "queries", tiny_engines, video("a"), role="query")
    with pytest.raises(StoreError) as error:
        catalog.add([queries])
    assert_one_line(error, r"different are .*role \(stored 'reference', now 'query'\)")
    with pytest.raises(StoreError) as error:
        catalog.add([npz(tmp_path / "wide.npz", video("b", num_dims=7))])
    assert_one_line(error, r"'b' has descriptors of 7 dimensions, the catalogue of 8")
    assert catalog.list() == []


def test_an_id_twice_among_the_inputs_is_refused(catalog: Catalog, footage: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        catalog.add([footage, npz(tmp_path / "b.npz", video("b"))])
    assert_one_line(error, r"both hold the video id 'b'")


def test_other_engines_are_refused_in_one_line(catalog: Catalog, tmp_path: Path) -> None:
    build_engines(tiny_preset(), tmp_path / "others", packaged=write_packaged(tmp_path / "tiny", seed=1))
    with pytest.raises(StoreError) as error:
        Catalog.open(catalog.folder, engines=tmp_path / "others")
    assert_one_line(
        error, r"cannot be compared with those of the catalogue: different are engines \(stored '[0-9a-f]{16}', now"
    )


def test_engines_that_changed_since_are_refused(tmp_path: Path) -> None:
    packaged = write_packaged(tmp_path / "tiny")
    build_engines(tiny_preset(), tmp_path / "engines", packaged=packaged)
    folder = Catalog.create(tmp_path / "catalogue", engines=tmp_path / "engines").folder
    (tmp_path / "engines").rename(tmp_path / "before")
    build_engines(tiny_preset(), tmp_path / "engines", packaged=write_packaged(tmp_path / "new", seed=1))
    with pytest.raises(StoreError, match="different are engines"):
        Catalog.open(folder).match(packaged / "manifest.json")


def test_remove_takes_all_named_or_none(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "r.npz", *(video(name) for name in ("a", "b'", "c")))])
    with pytest.raises(StoreError) as error:
        catalog.remove(["a", "x"])
    assert_one_line(error, r"has no video 'x' \(1 of 2 unknown\)")
    assert len(catalog.list()) == 3
    catalog.remove(["a", "b'"])
    assert [item.video_id for item in catalog.list()] == ["c"]
    assert catalog._shares.orphans() == {}


def test_one_writer_at_a_time_and_readers_go_on(catalog: Catalog, tmp_path: Path) -> None:
    source = npz(tmp_path / "r.npz", video("a"))
    catalog.add([source])
    with exclusive(catalog.folder / ".lock"):
        for write in (lambda: catalog.add([source]), lambda: catalog.remove(["a"]), catalog.verify):
            with pytest.raises(StoreError) as error:
                write()
            assert_one_line(error, "another process is writing to the catalogue")
        assert [item.video_id for item in Catalog.open(catalog.folder).list()] == ["a"]
        assert catalog.match_descriptors(copy_of(video("a"), "q")).candidates[0].ref_id == "a"


def test_folders_that_are_no_catalogue(tmp_path: Path, tiny_engines: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", tiny_engines):
        with pytest.raises(StoreError) as error:
            Catalog.open(folder)
        assert_one_line(error, r"is not a catalogue: it has no catalog\.json")
    assert not (tmp_path / "nowhere").exists()


def test_a_newer_version_is_refused(catalog: Catalog) -> None:
    path = catalog.folder / "catalog.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99, "shards": []}))
    with pytest.raises(StoreError) as error:
        Catalog.open(catalog.folder)
    assert_one_line(error, r"written by a newer version of vsc-engine \(format 99, this one reads 5\)")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format_version": 1, "x": 0}', '{"format_version": "1"}'])
def test_a_damaged_manifest_is_one_line(catalog: Catalog, content: str) -> None:
    (catalog.folder / "catalog.json").write_text(content)
    with pytest.raises(StoreError) as error:
        Catalog.open(catalog.folder)
    assert_one_line(error, r"catalog\.json")


def test_another_norm_set_is_refused(catalog: Catalog) -> None:
    path = catalog.folder / "norm_set.npz"
    np.savez(path, descriptors=norm_rows()[:-1])
    with pytest.raises(StoreError) as error:
        Catalog.open(catalog.folder)
    assert_one_line(error, "is not the norm set that the catalogue was made with")
    path.unlink()
    with pytest.raises(StoreError) as error:
        Catalog.open(catalog.folder)
    assert_one_line(error, "does not exist")


def test_create_never_writes_over_anything(catalog: Catalog, tiny_engines: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        Catalog.create(catalog.folder, engines=tiny_engines)
    assert_one_line(error, "is a catalogue already")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(StoreError) as error:
        Catalog.create(tmp_path / "full", engines=tiny_engines)
    assert_one_line(error, r"holds other files \(mine\.txt\)")
    (catalog.folder / "catalog.json").unlink()
    Catalog.create(catalog.folder, engines=tiny_engines)  # as after a kill: nothing was in it


def test_a_norm_set_of_ones_own_is_kept_and_one_of_other_engines_refused(tiny_engines: Path, tmp_path: Path) -> None:
    own = write_store(tmp_path / "own", tiny_engines, video("n0", 30), video("n1", 40))
    catalog = Catalog.create(tmp_path / "c", engines=tiny_engines, norm_set=own)
    assert catalog.info().norm_rows == 70
    build_engines(tiny_preset(), tmp_path / "others", packaged=write_packaged(tmp_path / "tiny", seed=1))
    other = write_store(tmp_path / "other", tmp_path / "others", video("n0", 30))
    with pytest.raises(StoreError) as error:
        Catalog.create(tmp_path / "d", engines=tiny_engines, norm_set=other)
    assert_one_line(error, "was described by engines [0-9a-f]{16}, these are [0-9a-f]{16}")
    with pytest.raises(ConfigError) as error:
        Catalog.create(tmp_path / "d", engines=tiny_engines, norm_set=npz(tmp_path / "n.npz", video("n", num_dims=7)))
    assert_one_line(error, r"the norm set has rows of shape \(9, 7\)")


@pytest.mark.torch
def test_engines_without_pca_are_refused(lite_engines: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Catalog.create(tmp_path / "c", engines=lite_engines)
    assert_one_line(error, "has no PCA yet")


@IN_FOLDER
def test_verify_finds_rows_that_are_not_those_that_were_added(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "r.npz", video("a"), video("b"))])
    assert catalog.verify().problems == ()
    wanted = video("b").descriptors.tobytes()[:16]
    for path in (catalog.folder / "rows.lance" / "data").iterdir():
        content = bytearray(path.read_bytes())
        if wanted in content:
            content[content.index(wanted)] ^= 1
            path.write_bytes(content)
    found = Catalog.open(catalog.folder).verify()
    assert found.problems == ("'b': its rows are not those that were added; remove it and add it again",)
    assert (found.num_videos, found.num_rows, found.num_orphan_rows) == (2, 18, 0)


def test_verify_finds_what_the_table_of_videos_says_wrongly(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "r.npz", video("a"), video("b"))])
    wanted = next(item.sha256 for item in catalog.list() if item.video_id == "b").encode()
    flipped = 0
    for path in (catalog.folder / "videos.lance" / "data").iterdir():
        content = bytearray(path.read_bytes())
        if wanted in content:
            flipped += 1
            content[content.index(wanted)] ^= 1
            path.write_bytes(content)
    assert flipped
    found = Catalog.open(catalog.folder).verify()
    assert found.problems == ("'b': what the table says of it is not what was written; remove it and add it again",)


def test_a_path_that_is_not_utf8_costs_no_other_video_its_place(catalog: Catalog, footage: Path) -> None:
    (footage / "a.mp4").rename(footage / os.fsdecode(b"caf\xe9.mp4"))
    report = catalog.add([footage])
    assert report.added == ("b",)
    (failure,) = report.failures
    reason = f"the path {footage}/caf\\xe9.mp4 is not UTF-8, which a catalogue cannot keep; rename it"
    assert (failure.stage, failure.reason) == ("add", reason)


def test_a_place_that_is_not_utf8_is_refused(tiny_engines: Path, catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(tiny_engines, folder)
    for call in (
        lambda: Catalog.create(folder / "new", engines=tiny_engines),
        lambda: Catalog.create(tmp_path / "new", engines=folder),
        lambda: catalog.backup(folder / "copy"),
    ):
        with pytest.raises(ConfigError, match=r"caf\\xe9.* is not UTF-8"):
            call()
    assert not (tmp_path / "new").exists()


def test_verify_names_missing_rows_and_counts_orphans(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "r.npz", video("a"), video("b"))])
    entries = catalog._shares.entries()
    delete_row(catalog, entries["a"].revision, 3)
    catalog._shares.remove([entries["b"].revision])
    found = catalog.verify()
    assert found.problems == ("'a': rows are missing; remove it and add it again",)
    assert found.num_orphan_rows == 9
    with pytest.raises(StoreError, match="rows of 'a' are missing"):
        catalog.match_descriptors(video("q"))


@IN_FOLDER
def test_a_damaged_index_is_one_line_and_can_be_made_anew(catalog: Catalog, tmp_path: Path) -> None:
    source = npz(tmp_path / "r.npz", *(video(f"v{n}", 50) for n in range(5)))
    Catalog.open(catalog.folder, index_above=100).add([source])
    query = copy_of(video("v0", 50), "q")
    expected = catalog.match_descriptors(query).candidates[0]
    for path in (catalog.folder / "rows.lance" / "_indices").rglob("auxiliary.idx"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    damaged = Catalog.open(catalog.folder, index_above=100)
    with pytest.raises(StoreError) as error:
        damaged.match_descriptors(query)
    assert_one_line(error, r"the table .*rows\.lance is damaged")
    (problem,) = damaged.verify().problems
    assert problem.startswith("the index: ")
    (catalog.folder / "indexed.json").unlink()
    assert damaged.match_descriptors(query).candidates[0] == expected
    damaged.add([source])
    assert damaged.verify().problems == ()
    assert damaged.match_descriptors(query).candidates[0] == expected
    assert damaged.info().num_indexed_rows == 250


def test_info_counts(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "r.npz", video("a"), video("b", 4))])
    info = catalog.info()
    assert (info.num_videos, info.num_rows, info.num_dims, info.duration_s) == (2, 13, 8, 13.0)
    assert (info.preset, info.fps, info.norm_rows) == ("tiny", 1.0, len(norm_rows()))
    at = catalog.manifest.milvus
    assert (info.num_indexed_rows, info.milvus) == ((0, None) if at is None else (13, f"{at.uri} {at.collection}"))
    assert info.engines == catalog.manifest.identity["engines"]
    assert info.size_bytes > (13 * 5 * 4 if at is None else 0)


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [("empty.mp4", b"", "empty.mp4: the file is empty"), ("text.mp4", b"text", "text.mp4: FFmpeg cannot read it")],
)
def test_an_upload_that_is_no_video_is_one_line(
    catalog: Catalog, tmp_path: Path, name: str, content: bytes, pattern: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with catalog, pytest.raises(MediaError) as error:
        catalog.match(tmp_path / name)
    assert_one_line(error, pattern)


def test_an_upload_may_be_a_path_bytes_an_open_file_or_descriptors(
    catalog: Catalog, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    path = footage / "a.mp4"
    with catalog:
        catalog.add([footage])
        expected = catalog.match(str(path))
        with path.open("rb") as file:
            answers = [catalog.match(path.read_bytes()), catalog.match(file), catalog.match(BytesIO(path.read_bytes()))]
        (query,) = catalog.engine().extract(path, role="query")
        answers.append(catalog.match(query))
    assert [answer.query_id for answer in answers] == ["upload", "a", "upload", "a"]
    assert [answer.duplicates for answer in answers] == [("a",)] * 3 + [()]
    for answer in answers:
        assert [pair.ref_id for pair in answer.candidates] == [pair.ref_id for pair in expected.candidates]
        assert [pair.score for pair in answer.candidates] == [pair.score for pair in expected.candidates]
    assert not list((tmp_path / "temporary").iterdir())


def test_what_is_no_upload_is_one_line_and_leaves_nothing(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "text").write_text("no video")
    cases: list[tuple[Any, type[EngineError], str]] = [
        (b"", MediaError, "^upload: the file is empty"),
        (b"no video", MediaError, "^upload: "),
        ((tmp_path / "text").open("rb"), MediaError, "^text: "),
        ((tmp_path / "text").open(encoding="utf-8"), ConfigError, "cannot be read as bytes .* mode 'rb'"),
        ((tmp_path / "new").open("wb"), ConfigError, "cannot be read as bytes"),
        (np.zeros((1, 8, 8, 3), np.uint8), ConfigError, "type ndarray; expected .*describe_frames"),
        (None, ConfigError, "type NoneType"),
    ]
    with catalog:
        for upload, kind, pattern in cases:
            with pytest.raises(kind) as error:
                catalog.match(upload)
            assert_one_line(error, pattern)
    assert not list((tmp_path / "temporary").iterdir())


def test_an_upload_that_is_no_file_is_one_line(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        catalog.match(tmp_path)
    assert_one_line(error, "is a folder; name one file")
    with pytest.raises(ConfigError) as error:
        catalog.match(tmp_path / "nowhere.mp4")
    assert_one_line(error, "no such file")


def test_an_open_catalogue_answers_while_another_writes(catalog: Catalog, tiny_engines: Path, tmp_path: Path) -> None:
    """Videos are replaced, indexed and removed: every answer is of a state that there was, and none fails."""
    kept, query = video("kept"), copy_of(video("kept"), "q")
    catalog.add([npz(tmp_path / "kept.npz", kept)])
    (expected,) = catalog.match_descriptors(query).candidates
    source = tmp_path / "r.npz"
    errors: list[Exception] = []

    def write() -> None:
        try:
            writer = Catalog.open(catalog.folder, engines=tiny_engines, index_above=600)
            for seed in range(12):
                writer.add([npz(source, *(video(f"v{n}", 200 + seed, seed=seed) for n in range(3)))])
        except Exception as error:  # noqa: BLE001 - the assertion below shows it
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    num_answers = 0
    while thread.is_alive() or num_answers == 0:
        for reader in (catalog, Catalog.open(catalog.folder)):
            candidates = reader.match_descriptors(query).candidates
            assert expected in candidates
            assert {pair.ref_id for pair in candidates} in ({"kept"}, {"kept", "v0", "v1", "v2"})
        num_answers += 1
    thread.join()
    assert errors == []
    assert {item.num_rows for item in catalog.list()} == {9, 211}


def test_a_copy_is_a_catalogue_and_never_written_over_anything(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "a.npz", video("a"), video("b"))])
    catalog.backup(tmp_path / "backups" / "first")
    with pytest.raises(StoreError, match="exists already"):
        catalog.backup(tmp_path / "backups" / "first")
    catalog.remove(["a"])
    copy = Catalog.open(tmp_path / "backups" / "first")
    assert sorted(contents(copy)) == ["a", "b"]
    assert copy.verify().problems == ()
    copy.remove(["b"])
    assert sorted(contents(catalog)) == ["b"]
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["first"]


def test_no_copy_is_made_while_another_process_writes(catalog: Catalog, tmp_path: Path) -> None:
    with exclusive(catalog.folder / ".lock"), pytest.raises(StoreError, match="another process is writing"):
        catalog.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_fails_leaves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "a.npz", video("a"))])
    (catalog.folder / "videos.lance" / "broken").symlink_to(tmp_path / "nowhere")
    folder = tmp_path / "backups"
    with pytest.raises(StoreError, match=r"^the catalogue [^\n]* was not copied to [^\n]*No such file[^\n]*$"):
        catalog.backup(folder / "first")
    assert list(folder.iterdir()) == []


def test_the_rows_of_a_catalogue_of_the_same_identity_are_taken(
    catalog: Catalog, footage: Path, tiny_engines: Path, tmp_path: Path
) -> None:
    catalog.add([footage, npz(tmp_path / "n.npz", video("n"))])
    expected, known = contents(catalog), catalog.list()
    for path in footage.iterdir():
        path.unlink()  # nothing is described
    other = Catalog.create(tmp_path / "other", engines=tiny_engines)
    other.add([npz(tmp_path / "m.npz", video("m"))])
    assert other.add([catalog.folder]) == AddReport(("a", "b", "n"), (), (), ())
    assert other.add([catalog.folder]) == AddReport((), (), ("a", "b", "n"), ())
    found = contents(other)
    del found["m"]
    assert found == expected
    assert [item for item in other.list() if item.video_id != "m"] == known
    assert other.verify().problems == ()


def test_damaged_rows_of_another_catalogue_are_a_failure(catalog: Catalog, tiny_engines: Path, tmp_path: Path) -> None:
    catalog.add([npz(tmp_path / "a.npz", video("a"), video("b"))])
    entries = catalog._shares.entries()
    catalog._shares.tables[0]._rows.delete([entries["a"].revision])
    other = Catalog.create(tmp_path / "other", engines=tiny_engines)
    report = other.add([catalog.folder])
    assert report.added == ("b",)
    (failure,) = report.failures
    assert (failure.video_id, failure.stage) == ("a", "read")


def test_the_videos_of_a_catalogue_of_other_engines_are_described_again_under_their_ids(
    catalog: Catalog, footage: Path, tiny_engines: Path, tmp_path: Path
) -> None:
    (footage / "below").mkdir()
    (footage / "b.mp4").rename(footage / "below" / "b.mp4")
    catalog.add([footage, npz(tmp_path / "n.npz", video("n"))])
    preset = catalog.manifest.preset
    faster = preset.model_copy(update={"sampling": preset.sampling.model_copy(update={"fps": 2.0})})
    with Catalog.create(tmp_path / "next", engines=tiny_engines, preset=faster) as successor:
        report = successor.add([catalog.folder])
        assert report.added == ("a", "below/b")
        (failure,) = report.failures
        assert (failure.video_id, failure.stage) == ("n", "add")
        assert {item.num_rows for item in successor.list()} == {8}
        (footage / "below" / "b.mp4").unlink()
        assert successor.add([catalog.folder]).kept == ("a",)  # and what is gone is a failure, not a removal
        assert len(successor.list()) == 2


def test_an_id_of_two_sources_is_refused(catalog: Catalog, footage: Path, tiny_engines: Path, tmp_path: Path) -> None:
    catalog.add([footage])
    other = Catalog.create(tmp_path / "other", engines=tiny_engines)
    with pytest.raises(ConfigError, match="both hold the video id 'a'"):
        other.add([catalog.folder, footage])


@IN_FOLDER
def test_a_reference_whose_file_is_gone_is_compared_without_pictures_and_that_is_said(
    catalog: Catalog, footage: Path, upload: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with catalog:
        catalog.add([footage])
        seen = {match.ref_id: match.num_inliers for match in catalog.match(upload).matches}
        assert seen["a"] is not None
        assert catalog.engine().times.as_dict()["verify"] > 0
        assert "compared" not in caplog.text
        (footage / "a.mp4").rename(tmp_path / "elsewhere.mp4")
        unseen = catalog.match(upload)
    assert {match.num_inliers for match in unseen.matches if match.ref_id == "a"} == {None}
    (warning,) = unseen.warnings
    assert re.fullmatch(r"pictures of 1 of \d+ candidates were not compared: files are gone, such as .*", warning)
    assert str(footage / "a.mp4") in warning
    assert f"q: {warning}" in caplog.text


@IN_FOLDER
def test_a_reference_whose_file_was_replaced_is_compared_without_pictures_until_it_is_added_again(
    catalog: Catalog, footage: Path, upload: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def num_inliers() -> set[int | None]:
        return {match.num_inliers for match in catalog.match(upload).matches if match.ref_id == "a"}

    with catalog:
        catalog.add([footage])
        os.utime(footage / "a.mp4", (0, 0))
        assert None not in num_inliers()  # of the same size: touched, or restored
        (footage / "a.mp4").write_bytes((footage / "b.mp4").read_bytes())
        assert num_inliers() == {None}
        assert "candidates were not compared: files are changed, such as" in caplog.text
        (footage / "a.mp4").write_bytes(upload.read_bytes())
        catalog.add([footage])
        assert None not in num_inliers()


def test_a_catalogue_that_compares_as_an_older_version_did_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    current = load_preset("lite")
    before = current.model_copy(update={"search": current.search.model_copy(update={"inlier_weight": 0.0})})
    upload = tmp_path / "q.mp4"
    write_video(upload, moving_frames(2 * FPS), fps=FPS)
    said = {}
    for name, preset in (("old", before), ("new", current)):
        folder = Catalog.create(tmp_path / name, preset=preset).folder
        caplog.clear()
        with Catalog.open(folder) as catalog:
            for _ in range(2):
                catalog.match(upload)
        said[name] = [record.getMessage() for record in caplog.records if "settings" in record.getMessage()]
    assert said["new"] == []
    (line,) = said["old"]
    assert line.startswith(f"{tmp_path / 'old'} compares with the settings of the version that made it")
    assert f"catalog add NEW {tmp_path / 'old'}" in line
