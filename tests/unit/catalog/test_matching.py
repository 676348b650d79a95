from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from engine.catalog.catalog import Catalog
from engine.catalog.found import ShareAnswer
from engine.catalog.matching import Matcher
from engine.catalog.records import CatalogVideo
from engine.catalog.share_search import ShareSearch
from engine.catalog.tables import Entry, Tables
from engine.config import Preset, load_preset
from engine.records import CandidatePair, Descriptors, Match
from engine.search.candidates import find_candidates
from engine.search.exact_copies import resolve_stopped
from engine.search.localization import localize_candidates, rescore
from engine.search.score_norm import ScoreNormalizer, unit_length
from tests.catalogs import copy_of, npz, video
from tests.packaged import norm_rows, tiny_preset

NO_ROWS = 0
REFERENCES = [video(f"r{n}", 60 + n) for n in range(6)]
BY_ID = sorted(REFERENCES, key=lambda item: item.video_id)
QUERIES = [
    *(copy_of(item, f"q{n}", start=n) for n, item in enumerate(REFERENCES[:3])),
    copy_of(REFERENCES[5], "exact", noise=0.0),
    video("unrelated"),
]


def run(
    queries: list[Descriptors], references: list[Descriptors], *, preset: Preset, use_score_norm: bool = True
) -> tuple[list[CandidatePair], list[Match]]:
    """What `run`, or `normalize`, `search` and `localize`, do with the same descriptors."""
    if use_score_norm:
        normalizer = ScoreNormalizer.fit(norm_rows(), beta=preset.score_norm.beta, nk=preset.score_norm.nk)
        queries, references = normalizer.queries(queries), normalizer.references(references)
    else:
        queries, references = unit_length(queries), unit_length(references)
    candidates = find_candidates(queries, references, config=preset.search)
    matches = localize_candidates(
        queries, references, candidates, config=preset.localization, use_score_norm=use_score_norm
    )
    candidates = rescore(candidates, matches, segment_weight=preset.search.segment_weight)
    return candidates, sorted(matches, key=lambda match: match.score, reverse=True)


@pytest.fixture(params=["memory", "index", pytest.param("milvus", marks=pytest.mark.long)])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How the nearest rows are found, as `made` takes it."""
    if request.param == "milvus":
        return {"milvus": request.getfixturevalue("milvus")}
    return {"index_above": NO_ROWS} if request.param == "index" else {}


def made(
    tmp_path: Path,
    engines: Path,
    *,
    use_score_norm: bool = True,
    index_above: int = 10_000,
    milvus: str | None = None,
) -> Catalog:
    """The last reference is added after the index was made, if one is."""
    Catalog.create(tmp_path / "catalogue", engines=engines, use_score_norm=use_score_norm, milvus=milvus)
    catalog = Catalog.open(tmp_path / "catalogue", index_above=index_above)
    catalog.add([npz(tmp_path / "r.npz", *REFERENCES[:0:-1])])
    catalog.add([npz(tmp_path / "r0.npz", REFERENCES[0])])
    num_rows = [len(item) for item in REFERENCES]
    of_index = sum(num_rows[1:]) if index_above == NO_ROWS else 0
    assert catalog.info().num_indexed_rows == (of_index if milvus is None else sum(num_rows))
    return catalog


@pytest.mark.parametrize("use_score_norm", [True, False])
def test_the_answer_is_that_of_a_run(
    tiny_engines: Path, tmp_path: Path, use_score_norm: bool, where: dict[str, Any]
) -> None:
    catalog = made(tmp_path, tiny_engines, use_score_norm=use_score_norm, **where)
    num_matches = 0
    for query in QUERIES:
        candidates, matches = run([query], BY_ID, preset=tiny_preset(), use_score_norm=use_score_norm)
        answer = catalog.match_descriptors(query)
        assert list(answer.candidates) == candidates
        assert list(answer.matches) == matches
        assert (answer.query_id, answer.num_rows) == (query.video_id, len(query))
        sources = {pair.ref_id: "r0.npz" if pair.ref_id == "r0" else "r.npz" for pair in candidates}
        assert answer.paths == {ref_id: tmp_path / name for ref_id, name in sources.items()}
        num_matches += len(matches)
    assert num_matches > 4


def test_scores_of_different_uploads_are_those_of_one_run_with_all(tiny_engines: Path, tmp_path: Path) -> None:
    """Where no limit, which is an average over the queries of a run, cuts anything."""
    lite = tiny_preset()
    localization = lite.localization.model_copy(update={"candidates_per_query": len(REFERENCES)})
    search = lite.search.model_copy(update={"retrieve_per_query": 100_000})
    preset = lite.model_copy(update={"localization": localization, "search": search})
    catalog = Catalog.create(tmp_path / "catalogue", engines=tiny_engines, preset=preset)
    catalog.add([npz(tmp_path / "r.npz", *REFERENCES)])
    candidates, _ = run(QUERIES, BY_ID, preset=preset)
    found = [pair for query in QUERIES for pair in catalog.match_descriptors(query).candidates]
    assert len(found) == len(QUERIES) * len(REFERENCES)
    assert set(found) == set(candidates)


def test_an_open_catalogue_sees_what_was_added_replaced_and_removed(
    tiny_engines: Path, tmp_path: Path, where: dict[str, Any]
) -> None:
    catalog, writer = made(tmp_path, tiny_engines, **where), Catalog.open(tmp_path / "catalogue")
    query = copy_of(REFERENCES[0], "q")
    assert catalog.match_descriptors(query).candidates[0].ref_id == "r0"
    writer.remove(["r0"])
    writer.add([npz(tmp_path / "r1.npz", video("late"))])
    writer.remove(["r1"])
    npz(tmp_path / "r1.npz", video("late", seed=1))
    writer.add([tmp_path / "r1.npz"])
    now = [*REFERENCES[2:], video("late", seed=1)]
    candidates, matches = run([query], sorted(now, key=lambda item: item.video_id), preset=tiny_preset())
    answer = catalog.match_descriptors(query)
    assert (list(answer.candidates), list(answer.matches)) == (candidates, matches)


@pytest.mark.parametrize("is_in_milvus", [False, True])
def test_an_empty_catalogue_has_nothing_to_offer(
    tiny_engines: Path, tmp_path: Path, milvus: str, is_in_milvus: bool
) -> None:
    rows_at = milvus if is_in_milvus else None
    answer = Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=rows_at).match_descriptors(video("q"))
    assert (answer.candidates, answer.matches, answer.paths) == ((), (), {})


def test_a_stopped_upload_counts_only_as_an_exact_copy(
    tiny_engines: Path, tmp_path: Path, where: dict[str, Any]
) -> None:
    catalog = made(tmp_path, tiny_engines, **where)
    gate = load_preset("lite").gate.model_dump() | {"mode": "vsc", "model": "tiny_4", "near_identical_cosine": 0.99}
    preset = Preset.model_validate(tiny_preset().model_dump() | {"gate": gate})
    normalizer = ScoreNormalizer.fit(norm_rows(), beta=preset.score_norm.beta, nk=preset.score_norm.nk)
    shares = [ShareSearch(tables, preset=preset, normalizer=normalizer) for tables in catalog._shares.tables]
    matcher = Matcher(shares, preset=preset, normalizer=normalizer)
    for query, counts in ((QUERIES[-2], True), (QUERIES[-1], False)):
        stopped = replace(query, gate="stopped_rows_kept")
        (resolved,) = resolve_stopped([stopped], BY_ID, near_identical_cosine=0.99)
        candidates, matches = run([resolved], BY_ID, preset=preset)
        answer = matcher.answer(stopped)
        assert answer.candidates[0] == candidates[0]
        assert list(answer.matches)[: len(matches)] == matches
        assert (answer.candidates[0].score > 0) == counts


class _OnThreads:
    """A share whose matrix products use some number of threads."""

    def __init__(self, share: ShareSearch, num_threads: int) -> None:
        self._share = share
        self._num_threads = num_threads

    def search(self, query: Descriptors, ready: Descriptors, *, sha256: str | None) -> ShareAnswer:
        with threadpool_limits(self._num_threads):
            return self._share.search(query, ready, sha256=sha256)

    def nearest_cosine(self, query: Descriptors) -> np.float32 | None:
        return self._share.nearest_cosine(query)


def test_answers_do_not_depend_on_the_threads_where_the_shares_are(tmp_path: Path) -> None:
    """Products of matrices of this size round differently: seen as other scores of segments on a cluster."""
    references = [video(f"r{n}", 100, num_dims=512) for n in range(4)]
    tables = Tables.create(tmp_path, num_dims=512)
    known = [CatalogVideo(item.video_id, tmp_path, "", 100.0, len(item), ()) for item in references]
    tables.commit([(Entry(entry, n, ""), item) for n, (entry, item) in enumerate(zip(known, references, strict=True))])
    preset = tiny_preset()
    share = ShareSearch(tables, preset=preset, normalizer=None)
    queries = [copy_of(item, f"q{n}", start=50, noise=0.05) for n, item in enumerate(references)]
    answers = [
        [Matcher([_OnThreads(share, count)], preset=preset, normalizer=None).answer(query) for query in queries]
        for count in (1, 2)
    ]
    assert answers[0] == answers[1]
    assert all(answer.matches for answer in answers[0])
