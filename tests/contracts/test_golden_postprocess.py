"""The whole path from raw model outputs to candidates, as recorded from the reference solution."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import Search
from engine.describe.near_duplicates import keep_distinct
from engine.projection import l2_normalize, load_pca
from engine.records import Descriptors, FloatArray
from engine.search.candidates import find_candidates
from engine.search.score_norm import ScoreNormalizer
from engine.store.challenge_npz import read_npz
from engine.store.tables import read_candidates
from tests.conftest import golden_root

FOLDER = golden_root() / "postprocess"

pytestmark = pytest.mark.skipif(
    not (FOLDER / "ref_inputs.npz").exists(), reason="all raw model outputs are only in the full golden set"
)


@dataclass(frozen=True)
class Results:
    """What our stages make of the recorded model outputs."""

    norm_rows: FloatArray
    pre_score_norm: list[Descriptors]
    normalizer: ScoreNormalizer
    queries: list[Descriptors]
    references: list[Descriptors]


def embeddings(inputs: dict[str, NDArray[Any]], prefix: str = "") -> FloatArray:
    parts = [l2_normalize(inputs[f"{prefix}model{number}"].astype(np.float32)) for number in range(1, 5)]
    return np.concatenate(parts, axis=1)


def describe(video_id: str, rows: FloatArray, facts: dict[str, Any], timestamps: FloatArray) -> Descriptors:
    """A query as the reference treats it; the random row of a gated one comes from its global counter."""
    query = facts["queries"][video_id]
    if query["gated"]:
        counter = 1 + facts["gated_order"].index(video_id)
        placeholder = np.random.RandomState(counter).uniform(-1e-5, 1e-5, (1, 512)).astype(np.float32)
        return Descriptors(video_id, timestamps[:1], placeholder, edit_score=query["score"], gate="stopped")
    kept = keep_distinct(rows, max_cosine=facts["frame_threshold"])
    pca = load_pca(FOLDER / "pca.npz")
    return Descriptors(video_id, timestamps[kept], pca.transform(rows[kept]), edit_score=query["score"])


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "golden.json").read_text()))


@pytest.fixture(scope="module")
def results(facts: dict[str, Any]) -> Results:
    pca = load_pca(FOLDER / "pca.npz")
    query_inputs, ref_inputs = dict(np.load(FOLDER / "query_inputs.npz")), dict(np.load(FOLDER / "ref_inputs.npz"))
    norm_rows = pca.transform(embeddings(ref_inputs, "train_"))
    query_rows, query_ids = embeddings(query_inputs), query_inputs["video_ids"]
    queries = []
    for video_id in dict.fromkeys(query_ids.tolist()):
        seconds = np.tile(np.arange(facts["queries"][video_id]["frames"]), facts["queries"][video_id]["crops"])
        timestamps = np.stack([seconds, seconds + 1], axis=1).astype(np.float32)
        queries.append(describe(video_id, query_rows[query_ids == video_id], facts, timestamps))
    ref_rows, ref_ids = pca.transform(embeddings(ref_inputs, "test_")), ref_inputs["test_video_ids"]
    references = []
    for video_id in dict.fromkeys(ref_ids.tolist()):
        rows = ref_rows[ref_ids == video_id]
        seconds = np.arange(len(rows), dtype=np.float32)
        references.append(Descriptors(video_id, np.stack([seconds, seconds], axis=1), rows))
    normalizer = ScoreNormalizer.fit(norm_rows, beta=facts["beta"], nk=facts["nk"])
    return Results(norm_rows, queries, normalizer, normalizer.queries(queries), normalizer.references(references))


def assert_same_videos(found: list[Descriptors], recorded: Path, *, atol: float) -> None:
    expected = read_npz(recorded)
    assert [video.video_id for video in found] == [video.video_id for video in expected]
    for video, other in zip(found, expected, strict=True):
        # Recorded in float32 with other orders of summation: a few units in the last place of the larger values.
        np.testing.assert_allclose(video.descriptors, other.descriptors, rtol=0, atol=atol, err_msg=video.video_id)


def test_projected_norm_set(results: Results) -> None:
    expected = np.concatenate([video.descriptors for video in read_npz(FOLDER / "train_refs_pca.npz")])
    np.testing.assert_allclose(results.norm_rows, expected, rtol=0, atol=1e-6)


def test_queries_before_score_normalization(results: Results) -> None:
    """Gate, near-duplicate removal and PCA: the same rows in the same order."""
    assert_same_videos(results.pre_score_norm, FOLDER / "query_pre_score_norm.npz", atol=1e-6)


def test_timestamps_are_those_of_kept_frames(results: Results) -> None:
    """Where several frames have equal embeddings the reference keeps any of them, and we the first."""
    for video, expected in zip(results.pre_score_norm, read_npz(FOLDER / "query_pre_score_norm.npz"), strict=True):
        moved = video.timestamps[:, 0] != expected.timestamps[:, 0]
        assert (video.timestamps[moved, 0] < expected.timestamps[moved, 0]).all()


def test_dropped_dimension(results: Results, facts: dict[str, Any]) -> None:
    assert results.normalizer.dropped_dim == facts["low_variance_dim"]


def test_normalized_queries_and_references(results: Results) -> None:
    assert_same_videos(results.queries, FOLDER / "query_sn.npz", atol=1e-6)
    assert_same_videos(results.references, FOLDER / "test_refs_sn.npz", atol=1e-6)


@pytest.mark.parametrize(
    ("recorded", "settings"), [("candidates.csv", "search"), ("candidates_small_k.csv", "small_search")]
)
def test_candidates(results: Results, facts: dict[str, Any], recorded: str, settings: str) -> None:
    expected = read_candidates(FOLDER / recorded)
    found = find_candidates(
        results.queries,
        results.references,
        config=Search(
            retrieve_per_query=facts[settings]["retrieve_per_query"],
            candidates_per_query=facts[settings]["candidates_per_query"],
        ),
    )
    assert len(found) == facts[settings]["n_candidates"]
    scores = {(pair.query_id, pair.ref_id): pair.score for pair in found}
    assert scores.keys() == {(pair.query_id, pair.ref_id) for pair in expected}
    in_recorded_order = np.array([scores[pair.query_id, pair.ref_id] for pair in expected])
    np.testing.assert_allclose(in_recorded_order, [pair.score for pair in expected], rtol=0, atol=2e-6)
    assert (np.diff(in_recorded_order) < 1e-6).all()
