from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pytest

from engine.catalog.lance_rows import num_probes
from engine.catalog.manifest import MilvusRowsAt
from engine.catalog.records import CatalogVideo
from engine.catalog.rows import ALL_REVISIONS
from engine.catalog.tables import Entry, Tables
from engine.catalog.tables import described as with_rows
from engine.errors import StoreError
from engine.records import Descriptors
from engine.store.shards import Fingerprint
from tests import catalogs
from tests.catalogs import copy_of

NUM_DIMS = 8


def video(video_id: str, num_rows: int = 9, *, seed: int = 0) -> Descriptors:
    return catalogs.video(video_id, num_rows, seed=seed, num_dims=NUM_DIMS)


def entry(tables: Tables, described: Descriptors, *, warnings: tuple[str, ...] = ()) -> Entry:
    fingerprint = Fingerprint(3, 2**62)
    path = Path("/v") / described.video_id
    known = CatalogVideo(
        described.video_id, path, "00", 9.0, len(described), warnings, fingerprint, described.shot_ends_s
    )
    return Entry(known, tables.new_revision(), "11")


def commit(tables: Tables, *videos: Descriptors) -> list[Entry]:
    entries = [entry(tables, item) for item in videos]
    tables.commit(list(zip(entries, videos, strict=True)))
    return entries


IN_FOLDER = pytest.mark.parametrize("rows_at", ["folder"], indirect=True)
"""For what is about LanceDB's index and files."""


@pytest.fixture(params=["folder", "milvus"])
def rows_at(request: pytest.FixtureRequest, tmp_path: Path) -> MilvusRowsAt | None:
    if request.param == "folder":
        return None
    from engine.catalog.milvus_rows import new_place

    return new_place(request.getfixturevalue("milvus"), tmp_path)


@pytest.fixture
def tables(tmp_path: Path, rows_at: MilvusRowsAt | None) -> Tables:
    return Tables.create(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)


def test_what_is_committed_is_read_again(tables: Tables, tmp_path: Path, rows_at: MilvusRowsAt | None) -> None:
    videos = [video("it's", 4), video('a"b; --', 1), video("été", 7)]
    entries = [entry(tables, item, warnings=("lost 3 frames", "")) for item in videos]
    tables.commit(list(zip(entries, videos, strict=True)))
    found = Tables.open(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)
    assert found.entries() == {item.video.video_id: item for item in entries}
    assert list(found.entries()) == sorted(item.video_id for item in videos)
    rows = found.read_rows()
    for item, described in zip(entries, videos, strict=True):
        np.testing.assert_array_equal(rows[item.revision].descriptors, described.descriptors)
        np.testing.assert_array_equal(rows[item.revision].timestamps, described.timestamps)
    only = found.read_rows([entries[1].revision])
    assert list(only) == [entries[1].revision]


@IN_FOLDER
def test_a_table_of_videos_of_an_older_version(tables: Tables, tmp_path: Path) -> None:
    """It has no ends of shots, and gets none."""
    (old,) = commit(tables, video("old"))
    lancedb.connect(tmp_path).open_table("videos").drop_columns(["shot_ends_s"])
    found = Tables.open(tmp_path, num_dims=NUM_DIMS)
    assert found.entries() == {"old": old}
    assert found.damaged_entries() == set()
    commit(found, replace(video("new"), shot_ends_s=(1 / 3, 9.0)))
    for opened in (found, Tables.open(tmp_path, num_dims=NUM_DIMS)):
        opened.refresh()
        assert {video_id: it.video.shot_ends_s for video_id, it in opened.entries().items()} == {
            "new": None,
            "old": None,
        }
        assert opened.damaged_entries() == set()


def test_a_video_keeps_the_ends_of_its_shots(tables: Tables, tmp_path: Path, rows_at: MilvusRowsAt | None) -> None:
    (known,) = commit(tables, replace(video("a"), shot_ends_s=(1 / 3, 9.0)))
    found = Tables.open(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)
    assert found.entries() == {"a": known}
    assert found.damaged_entries() == set()
    assert with_rows(known, found.read_rows()[known.revision]).shot_ends_s == (1 / 3, 9.0)


@IN_FOLDER
def test_ends_of_shots_that_were_changed_are_damage(tables: Tables, tmp_path: Path) -> None:
    commit(tables, replace(video("a"), shot_ends_s=(1.0, 9.0)), video("b"))
    lancedb.connect(tmp_path).open_table("videos").update(values={"shot_ends_s": [2.0, 9.0]})
    tables.refresh()
    assert tables.damaged_entries() == {"a", "b"}


def test_a_new_revision_takes_the_place_of_the_old_one_in_one_commit(tables: Tables) -> None:
    (old, other) = commit(tables, video("a"), video("b"))
    before = tables.refresh()
    (new,) = commit(tables, video("a", 5, seed=1))
    assert tables.refresh().videos > before.videos
    assert tables.entries() == {"a": new, "b": other}
    assert tables.orphans() == {old.revision: 9}
    tables.remove_orphans()
    assert tables.orphans() == {}
    assert sum(len(rows.descriptors) for rows in tables.read_rows().values()) == 14
    assert tables.read_rows([old.revision, new.revision]).keys() == {new.revision}


def test_revisions_without_rows_are_left_out(tables: Tables) -> None:
    assert tables.read_rows() == {}
    (entry,) = commit(tables, video("a"))
    assert tables.read_rows([entry.revision + 1]) == {}


def test_entries_that_did_not_change_are_not_made_again(tables: Tables) -> None:
    _, kept = commit(tables, video("a"), video("b"))
    before = tables.entries()
    (new,) = commit(tables, video("a", 5, seed=1))
    tables.refresh()
    after = tables.entries()
    assert after == {"a": new, "b": kept}
    assert after["b"] is before["b"]
    tables.remove([new.revision, kept.revision])
    tables.refresh()
    assert tables.entries() == {}
    assert tables.orphans().keys() >= {new.revision, kept.revision}


def test_removed_videos_leave_orphans_until_they_are_removed(tables: Tables) -> None:
    a, b = commit(tables, video("a"), video("b"))
    tables.remove([a.revision])
    assert list(tables.entries()) == ["b"]
    assert tables.orphans() == {a.revision: 9}
    tables.remove_orphans()
    assert tables.read_rows().keys() == {b.revision}


def test_an_open_reader_stays_on_its_version_until_it_is_refreshed(
    tables: Tables, tmp_path: Path, rows_at: MilvusRowsAt | None
) -> None:
    reader = Tables.open(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)
    before = reader.refresh()
    commit(tables, video("a"))
    assert reader.entries() == {}
    assert reader.refresh().videos > before.videos
    assert list(reader.entries()) == ["a"]


def test_revisions_rise(tables: Tables, tmp_path: Path, rows_at: MilvusRowsAt | None) -> None:
    entries = commit(tables, *(video(f"v{n}") for n in range(5)))
    other = Tables.open(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)
    other.entries()
    revisions = [*(item.revision for item in entries), other.new_revision(), other.new_revision()]
    assert revisions == sorted(set(revisions))


def test_nearest_are_those_of_highest_cosine(tables: Tables, rows_at: MilvusRowsAt | None) -> None:
    videos = [video(f"v{n}", 40) for n in range(20)]
    scale = np.float32([[0.2], [5.0]])  # lengths must not count
    described = [
        Descriptors(item.video_id, item.timestamps, item.descriptors * scale[n % 2]) for n, item in enumerate(videos)
    ]
    entries = commit(tables, *described)
    assert tables.refresh().indexed_through == (None if rows_at is None else ALL_REVISIONS)
    tables.tend(index_above=100)
    assert tables.num_indexed_rows() == 800
    assert tables.refresh().indexed_through == (entries[-1].revision if rows_at is None else ALL_REVISIONS)
    query = copy_of(videos[3], "q", noise=0.01).descriptors
    cosines = query @ np.concatenate([item.descriptors for item in videos]).T
    best = {int(row) // 40 for row in cosines.argmax(axis=1)}
    found = tables.nearest(query, k=10, known={item.revision for item in entries})  # a few more, as it is approximate
    assert found >= {entries[place].revision for place in best}


def test_orphans_do_not_take_the_places_of_neighbours(tables: Tables) -> None:
    source = video("a", 40)
    commit(tables, *(video(f"v{n}", 40) for n in range(10)))
    commit(tables, *(copy_of(source, f"copy{n}", noise=0.01) for n in range(5)))
    tables.tend(index_above=100)
    entries = tables.entries()
    gone = [item.revision for video_id, item in entries.items() if video_id.startswith("copy")]
    known = {item.revision for item in entries.values()}
    assert tables.nearest(source.descriptors, k=2, known=known) <= set(gone)
    tables.remove(gone)
    found = tables.nearest(source.descriptors, k=2, known=known.difference(gone))
    assert found
    assert found <= known.difference(gone)


@IN_FOLDER
def test_rows_added_after_the_index_was_made_are_recent_until_it_is_brought_up_to_date(tables: Tables) -> None:
    commit(tables, *(video(f"v{n}", 40) for n in range(20)))
    tables.tend(index_above=100)
    late = video("late", 40)
    (entry_of_late,) = commit(tables, late)
    tables.tend(index_above=100)
    through = tables.refresh().indexed_through
    assert through is not None
    assert through < entry_of_late.revision
    assert tables.num_indexed_rows() == 800
    known = {item.revision for item in tables.entries().values()}
    assert entry_of_late.revision not in tables.nearest(late.descriptors, k=10, known=known)
    tables.tend(index_above=100, merge=True)
    assert tables.refresh().indexed_through == entry_of_late.revision
    assert entry_of_late.revision in tables.nearest(late.descriptors, k=10, known=known)


@IN_FOLDER
def test_without_the_index_all_rows_are_recent(tables: Tables, tmp_path: Path) -> None:
    commit(tables, video("a", 300))
    tables.tend(index_above=100)
    tables._rows._table.drop_index("descriptor_idx")
    assert Tables.open(tmp_path, num_dims=NUM_DIMS).refresh().indexed_through is None


@IN_FOLDER
@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_note_on_the_index_is_one_line(tables: Tables, tmp_path: Path, content: str) -> None:
    (tmp_path / "indexed.json").write_text(content)
    expected = re.escape(f"{tmp_path / 'indexed.json'} is damaged: ") + r"[^\n]*; delete it, and [^\n]*$"
    with pytest.raises(StoreError, match=f"^{expected}"):
        tables.refresh()


@IN_FOLDER
@pytest.mark.parametrize("table", ["videos", "rows"])
def test_a_damaged_table_is_one_line(tables: Tables, tmp_path: Path, table: str) -> None:
    commit(tables, video("a"))
    for path in (tmp_path / f"{table}.lance" / "data").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    damaged = Tables.open(tmp_path, num_dims=NUM_DIMS)
    expected = re.escape(f"the table {tmp_path / table}.lance is damaged: ") + r"[^\n]*"
    advice = re.escape(f"; restore the folder {tmp_path} from a copy, or make a new catalogue")
    with pytest.raises(StoreError, match=f"^{expected}{advice}$"):
        damaged.entries() if table == "videos" else damaged.read_rows()


@IN_FOLDER
def test_a_missing_table_is_one_line(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "rows.lance").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"rows\.lance is damaged: Table 'rows' was not found; restore"):
        Tables.open(tmp_path, num_dims=NUM_DIMS)


@IN_FOLDER
def test_tables_of_another_dimension_are_refused(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it has other columns"):
        Tables.open(tmp_path, num_dims=NUM_DIMS + 1)


def test_making_tables_goes_on_after_a_kill_but_never_over_videos(
    tables: Tables, tmp_path: Path, rows_at: MilvusRowsAt | None
) -> None:
    again = Tables.create(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)
    commit(again, video("a"))
    with pytest.raises(StoreError, match=r"without its catalog\.json"):
        Tables.create(tmp_path, num_dims=NUM_DIMS, milvus=rows_at)


@IN_FOLDER
def test_rows_that_are_incomplete_or_there_twice_are_left_out(tables: Tables) -> None:
    described = video("a")
    whole = entry(tables, described)
    tables.commit([(whole, described)])
    half = Descriptors("a", described.timestamps[:4], described.descriptors[:4])
    tables.commit([(whole, half)])
    assert tables.read_rows() == {}


def test_dimensions_that_the_index_cannot_take_have_none(tmp_path: Path) -> None:
    tables = Tables.create(tmp_path, num_dims=5)
    commit(tables, catalogs.video("a", 300, num_dims=5))
    tables.tend(index_above=100)
    assert tables.refresh().indexed_through is None


@IN_FOLDER
def test_an_index_is_trained_anew_for_four_times_its_rows(tables: Tables, tmp_path: Path) -> None:
    commit(tables, *(video(f"v{n}", 40) for n in range(10)))
    tables.tend(index_above=100)
    commit(tables, *(video(f"w{n}", 40) for n in range(30)))
    tables.tend(index_above=100)
    assert tables.num_indexed_rows() == 400  # four times as many, not more
    entries = commit(tables, video("last", 40))
    tables.tend(index_above=100)
    assert tables.num_indexed_rows() == 1640
    assert tables.refresh().indexed_through == entries[-1].revision
    assert json.loads((tmp_path / "indexed.json").read_text())["num_trained"] == 1640


@pytest.mark.parametrize(
    ("num_rows", "num_trained", "expected"),
    [(0, None, 40), (100, 100, 40), (50, 100, 40), (300, 100, 13), (900, 100, 10)],
)
def test_of_an_index_that_has_grown_fewer_partitions_are_searched(
    num_rows: int, num_trained: int | None, expected: int
) -> None:
    assert num_probes(num_rows, num_trained=num_trained) == expected


@IN_FOLDER
@pytest.mark.parametrize("older", [{}, {"num_trained": 400}])
def test_the_index_of_an_older_version_is_read_and_made_anew(
    tables: Tables, tmp_path: Path, older: dict[str, int]
) -> None:
    entries = commit(tables, *(video(f"v{n}", 40) for n in range(10)))
    tables.tend(index_above=100)
    through = entries[-1].revision
    (tmp_path / "indexed.json").write_text(json.dumps({"indexed_through": through, **older}))
    assert tables.refresh().indexed_through == through
    tables.tend(index_above=100)
    noted = json.loads((tmp_path / "indexed.json").read_text())
    assert noted == {"indexed_through": through, "num_trained": 400, "num_bits": 4}
    tables.tend(index_above=100, merge=True)
    assert json.loads((tmp_path / "indexed.json").read_text()) == noted
