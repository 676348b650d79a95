from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.catalog.catalog import Catalog
from engine.catalog.matching import Matcher
from engine.catalog.records import AddReport
from engine.catalog.share_search import ShareSearch
from engine.catalog.shares import share_of
from engine.config import Preset, load_preset
from engine.errors import ConfigError, StoreError
from tests.catalogs import contents, copy_of, npz, video
from tests.packaged import tiny_preset

NUM_SHARES = 3
REFERENCES = [video(f"r{n:02d}", 20 + n) for n in range(14)]
# The same rows under other ids, on other shares: all their scores are equal.
TWINS = [replace(REFERENCES[n], video_id=f"twin{n:02d}") for n in range(0, 14, 2)]
QUERIES = [
    *(copy_of(item, f"q{n}", start=n) for n, item in enumerate(REFERENCES[:6])),
    copy_of(REFERENCES[5], "exact", noise=0.0),
    video("unrelated", 30),
]


def made(
    folder: Path, engines: Path, *, num_shares: int, use_score_norm: bool = True, index_above: int = 10_000
) -> Catalog:
    """The last reference is added after the indexes were made, if any are."""
    Catalog.create(
        folder, engines=engines, num_shares=num_shares, preset=narrow_preset(), use_score_norm=use_score_norm
    )
    catalog = Catalog.open(folder, index_above=index_above)
    catalog.add([npz(folder.with_suffix(".r.npz"), *REFERENCES[1:], *TWINS)])
    catalog.add([npz(folder.with_suffix(".r0.npz"), REFERENCES[0])])
    return catalog


def narrow_preset() -> Preset:
    """Limits that cut: fewer pairs of rows than a share could give, fewer candidates than there are videos."""
    preset = tiny_preset()
    search = preset.search.model_copy(update={"retrieve_per_query": 60, "candidates_per_query": 7})
    localization = preset.localization.model_copy(update={"candidates_per_query": 4})
    return preset.model_copy(update={"search": search, "localization": localization})


@pytest.mark.parametrize("index_above", [10_000, 0])
@pytest.mark.parametrize("use_score_norm", [True, False])
def test_answers_are_those_of_one_folder(
    tiny_engines: Path, tmp_path: Path, use_score_norm: bool, index_above: int
) -> None:
    one, shared = (
        made(tmp_path / f"of{n}", tiny_engines, num_shares=n, use_score_norm=use_score_norm, index_above=index_above)
        for n in (1, NUM_SHARES)
    )
    assert all(tables.entries() for tables in shared._shares.tables)
    assert contents(one) == contents(shared)
    num_matches = 0
    for query in QUERIES:
        expected, found = one.match_descriptors(query), shared.match_descriptors(query)
        assert (found.candidates, found.matches) == (expected.candidates, expected.matches)
        assert (found.thresholds, found.verdict) == (expected.thresholds, expected.verdict)
        assert found.paths.keys() == expected.paths.keys()
        num_matches += len(found.matches)
    assert num_matches > len(QUERIES)


def test_a_stopped_upload_counts_if_an_exact_copy_lies_on_any_share(tiny_engines: Path, tmp_path: Path) -> None:
    gate = load_preset("lite").gate.model_dump() | {"mode": "vsc", "model": "tiny_4", "near_identical_cosine": 0.99}
    preset = Preset.model_validate(narrow_preset().model_dump() | {"gate": gate})
    answers = []
    for num_shares in (1, NUM_SHARES):
        catalog = made(tmp_path / f"of{num_shares}", tiny_engines, num_shares=num_shares)
        shares = [
            ShareSearch(tables, preset=preset, normalizer=catalog._normalizer()) for tables in catalog._shares.tables
        ]
        matcher = Matcher(shares, preset=preset, normalizer=catalog._normalizer())
        stopped = [replace(query, gate="stopped_rows_kept") for query in QUERIES]
        answers.append([(answer.candidates, answer.matches) for answer in map(matcher.answer, stopped)])
    assert answers[0] == answers[1]
    assert [candidates[0].score > 0 for candidates, _ in answers[0][-2:]] == [True, False]


def test_videos_are_added_replaced_kept_removed_and_listed(tiny_engines: Path, tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "c", engines=tiny_engines, num_shares=NUM_SHARES)
    source = npz(tmp_path / "r.npz", *REFERENCES)
    assert catalog.add([source]).added == tuple(item.video_id for item in REFERENCES)
    npz(source, *REFERENCES[:-1], video("r13", 5, seed=1))
    reader = Catalog.open(catalog.folder)
    assert catalog.add([source]) == AddReport((), ("r13",), tuple(item.video_id for item in REFERENCES[:-1]), ())
    assert [item.video_id for item in reader.list()] == [item.video_id for item in REFERENCES]
    catalog.remove(["r00", "r01", "r02", "r03"])
    assert [item.video_id for item in reader.list()] == [item.video_id for item in REFERENCES[4:]]
    assert list(reader.snapshot().videos.values()) == reader.list()
    info, found = reader.info(), catalog.verify()
    assert (info.num_videos, info.num_rows) == (10, sum(map(len, REFERENCES[4:13])) + 5)
    assert (found.num_videos, found.num_rows, found.num_orphan_rows) == (10, info.num_rows, 0)
    assert found.problems == ()
    with pytest.raises(StoreError, match="has no video 'r00'"):
        catalog.remove(["r00", "r05"])


def test_shares_are_added_to_another_number_of_shares(tiny_engines: Path, tmp_path: Path) -> None:
    source = npz(tmp_path / "r.npz", *REFERENCES)
    folders = {}
    for num_shares in (1, 2, 5):
        catalog = Catalog.create(tmp_path / str(num_shares), engines=tiny_engines, num_shares=num_shares)
        assert len(catalog.add([folders[num_shares // 2] if folders else source]).added) == len(REFERENCES)
        folders[num_shares] = catalog.folder
    assert contents(catalog) == contents(Catalog.open(folders[1]))
    assert catalog.verify().problems == ()


def test_an_empty_catalogue_of_shares_has_nothing_to_offer(tiny_engines: Path, tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "c", engines=tiny_engines, num_shares=NUM_SHARES)
    assert catalog.match_descriptors(video("q")).candidates == ()
    stopped = replace(video("q"), gate="stopped_rows_kept")
    assert catalog.match_descriptors(stopped).matches == ()


def test_the_share_of_an_id_never_changes() -> None:
    ids = ("a", "R012345", "été", "", "\udce9")
    assert [share_of(video_id, num_shares=2**32) for video_id in ids] == [
        3390815690,
        3401642206,
        321648074,
        2566659092,
        2300240487,
    ]
    counts = [0] * 8
    for number in range(8000):
        counts[share_of(f"R{number:06d}", num_shares=8)] += 1
    assert min(counts) > 900


def assert_refused(folder: Path, pattern: str) -> None:
    with pytest.raises(StoreError, match=pattern) as error:
        Catalog.open(folder)
    assert "\n" not in str(error.value)


def test_missing_and_foreign_shares_are_refused_in_one_line(tiny_engines: Path, tmp_path: Path) -> None:
    folder = Catalog.create(tmp_path / "c", engines=tiny_engines, num_shares=NUM_SHARES).folder
    other = Catalog.create(tmp_path / "o", engines=tiny_engines, num_shares=NUM_SHARES, use_score_norm=False).folder
    share = folder / "share-1-of-3"
    assert_refused(share, f"^{share} is one share of a catalogue, of no use alone; name that: {folder}$")
    share.rename(tmp_path / "kept")
    assert_refused(folder, f"{folder} has 3 shares, and share-1-of-3 is missing or incomplete: it has no catalog.json")
    shutil.copytree(other / share.name, share)
    assert_refused(folder, f"{share} is a share of another catalogue")
    shutil.rmtree(share)
    (tmp_path / "kept").rename(share)
    path = folder / "catalog.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_shares": 4}))
    assert_refused(folder, "has 4 shares, and share-0-of-4 is missing")


def test_a_video_on_the_wrong_share_is_damage(tiny_engines: Path, tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "c", engines=tiny_engines, num_shares=2)
    catalog.add([npz(tmp_path / "r.npz", *REFERENCES)])
    first, second = (catalog.folder / f"share-{n}-of-2" for n in range(2))
    for source, target in ((first, tmp_path / "aside"), (second, first), (tmp_path / "aside", second)):
        source.rename(target)
    found = Catalog.open(catalog.folder).verify()
    assert len(found.problems) == len(REFERENCES)
    assert "'r00': it lies on share 1, not on share 0; restore both from a copy" in found.problems
    shutil.rmtree(first)
    shutil.copytree(second, first)
    doubled = Catalog.open(catalog.folder)
    for ask in (doubled.list, lambda: doubled.match_descriptors(QUERIES[0])):
        with pytest.raises(StoreError, match=r"^two shares of the catalogue hold the same video"):
            ask()


def test_a_catalogue_of_the_first_format_is_read(tiny_engines: Path, tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "c", engines=tiny_engines)
    catalog.add([npz(tmp_path / "r.npz", *REFERENCES)])
    expected = catalog.match_descriptors(QUERIES[0])
    path = catalog.folder / "catalog.json"
    facts = {**json.loads(path.read_text()), "format_version": 1}
    for key in ("num_shares", "milvus"):
        del facts[key]
    del facts["preset"]["search"]["inlier_weight"], facts["preset"]["localization"]["inlier_weight"]
    path.write_text(json.dumps(facts))
    old = Catalog.open(catalog.folder)
    assert old.match_descriptors(QUERIES[0]) == expected
    assert old.manifest.preset.search.inlier_weight == 0


def test_no_shares_are_refused(tiny_engines: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one share, got 0"):
        Catalog.create(tmp_path / "0", engines=tiny_engines, num_shares=0)


def test_making_shares_goes_on_after_a_kill(tiny_engines: Path, tmp_path: Path) -> None:
    folder = Catalog.create(tmp_path / "c", engines=tiny_engines, num_shares=2).folder
    (folder / "catalog.json").unlink()  # written last
    (folder / "share-1-of-2" / "catalog.json").unlink()
    Catalog.create(folder, engines=tiny_engines, num_shares=2).add([npz(tmp_path / "r.npz", *REFERENCES)])
    assert len(Catalog.open(folder).list()) == len(REFERENCES)
