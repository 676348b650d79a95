from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import ConfigError, StoreError
from engine.records import Descriptors, FloatArray, GateState
from engine.search.score_norm import ScoreNormalizer, unit_length
from engine.store.challenge_npz import read_npz


def rows(num_rows: int, num_dims: int = 24, *, seed: int) -> FloatArray:
    scale = np.linspace(1, 2, num_dims)
    scale[5] = 0.01
    return (np.random.default_rng(seed).standard_normal((num_rows, num_dims)) * scale + 0.3).astype(np.float32)


def videos(*lengths: int, gated: Sequence[int] = (), num_dims: int = 24, seed: int = 0) -> list[Descriptors]:
    found = []
    for number, length in enumerate(lengths):
        times = np.stack([np.arange(length), np.arange(1, length + 1)], axis=1).astype(np.float32)
        values = rows(length, num_dims, seed=seed + number)
        gate: GateState = "stopped" if number in gated else "passed"
        found.append(Descriptors(f"V{number}", times, values, edit_score=0.5, gate=gate))
    return found


def unit_without(values: FloatArray, dimension: int) -> NDArray[np.float64]:
    exact = np.delete(values.astype(np.float64), dimension, axis=1)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


@pytest.mark.parametrize("nk", [1, 3, 50])
def test_inner_products_are_normalized_scores(nk: int) -> None:
    norm_rows = rows(50, seed=100)
    normalizer = ScoreNormalizer.fit(norm_rows, beta=0.7, nk=nk)
    assert normalizer.dropped_dim == 5
    queries, references = videos(4, 1, 9), videos(6, 2, seed=50)
    for query, adapted_query in zip(queries, normalizer.queries(queries), strict=True):
        unit = unit_without(query.descriptors, 5)
        closeness = np.sort(unit @ unit_without(norm_rows, 5).T, axis=1)[:, -nk:].mean(axis=1)
        for reference, adapted in zip(references, normalizer.references(references), strict=True):
            expected = unit @ unit_without(reference.descriptors, 5).T - 0.7 * closeness[:, None]
            np.testing.assert_allclose(adapted_query.descriptors @ adapted.descriptors.T, expected, atol=2e-6)


def test_everything_but_the_descriptors_is_kept() -> None:
    normalizer = ScoreNormalizer.fit(rows(9, seed=1))
    for adapt in (normalizer.queries, normalizer.references):
        for video, adapted in zip(videos(3, 1, gated=[1]), adapt(videos(3, 1, gated=[1])), strict=True):
            assert replace(adapted, descriptors=video.descriptors).__repr__() == repr(video)
            assert adapted.gate == video.gate
            assert adapted.descriptors.shape == video.descriptors.shape
            np.testing.assert_array_equal(adapted.timestamps, video.timestamps)


def test_gated_videos_can_match_nothing() -> None:
    normalizer = ScoreNormalizer.fit(rows(9, seed=1))
    for lengths, gated in (((3, 1, 4, 1), [1, 3]), ((1, 1), [0, 1])):
        adapted = normalizer.queries(videos(*lengths, gated=gated))
        for number, video in enumerate(adapted):
            assert (video.descriptors[:, -1] == -100).all() == (number in gated)
            np.testing.assert_allclose(np.linalg.norm(video.descriptors[:, :-1], axis=1), 1, rtol=1e-6)


def test_a_result_does_not_depend_on_other_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    normalizer = ScoreNormalizer.fit(rows(300, seed=1), nk=2)
    queries = videos(5, 40, 1, 7, 1, 30, gated=[2])
    together = normalizer.queries(queries)
    alone = [normalizer.queries([query])[0] for query in reversed(queries)]
    monkeypatch.setattr("engine.search.faiss_backend._QUERY_BLOCK", 16)
    in_blocks = normalizer.queries(queries)
    for number, video in enumerate(together):
        np.testing.assert_array_equal(alone[-1 - number].descriptors, video.descriptors)
        np.testing.assert_array_equal(in_blocks[number].descriptors, video.descriptors)


def test_the_first_of_equal_variances_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.search.score_norm._BLOCK_ROWS", 4)
    norm_rows = rows(50, seed=2)
    norm_rows[:, [3, 9]] = 1000
    assert ScoreNormalizer.fit(norm_rows).dropped_dim == 3


def test_equals_the_reference(golden: Path) -> None:
    folder = golden / "postprocess"
    facts = json.loads((folder / "golden.json").read_text())
    norm_rows = np.concatenate([video.descriptors for video in read_npz(folder / "train_refs_pca.npz")])
    normalizer = ScoreNormalizer.fit(norm_rows, beta=facts["beta"], nk=facts["nk"])
    assert normalizer.dropped_dim == facts["low_variance_dim"]
    queries = [
        replace(query, gate="stopped" if facts["queries"][query.video_id]["gated"] else "passed")
        for query in read_npz(folder / "query_pre_score_norm.npz")
    ]
    assert {query.is_stopped for query in queries} == {True, False}
    expected = {query.video_id: query for query in read_npz(folder / "query_sn.npz")}
    for query in normalizer.queries(queries):
        # Unit rows and inner products of 511 terms in float32 on the recording's side: a few units in the last place.
        np.testing.assert_allclose(query.descriptors, expected[query.video_id].descriptors, atol=5e-7)


def test_without_normalization_blank_rows_resemble_nothing() -> None:
    (video,) = videos(3)
    blank = replace(video, blank=np.array([False, True, False]))
    found, as_before = unit_length([blank, video])
    np.testing.assert_array_equal(found.descriptors[[0, 2]], as_before.descriptors[[0, 2]])
    assert not found.descriptors[1].any()


class TestBadInput:
    @pytest.mark.parametrize(("num_rows", "nk"), [(3, 4), (3, 0), (0, 1)])
    def test_a_norm_set_smaller_than_nk_fails(self, num_rows: int, nk: int) -> None:
        with pytest.raises(ConfigError, match=rf"nk = {nk} and a norm set of shape \({num_rows}, 24\)"):
            ScoreNormalizer.fit(rows(num_rows, seed=0), nk=nk)

    def test_one_dimension_fails(self) -> None:
        with pytest.raises(ConfigError, match="two dimensions"):
            ScoreNormalizer.fit(np.ones((3, 1), dtype=np.float32))

    @pytest.mark.parametrize("beta", [np.nan, np.inf])
    def test_a_beta_that_is_not_finite_fails(self, beta: float) -> None:
        with pytest.raises(ConfigError, match="finite beta"):
            ScoreNormalizer.fit(rows(3, seed=0), beta=beta)

    def test_a_norm_set_with_nan_fails(self) -> None:
        norm_rows = rows(3, seed=0)
        norm_rows[1, 1] = np.nan
        with pytest.raises(StoreError, match="NaN or infinity"):
            ScoreNormalizer.fit(norm_rows)

    def test_other_dimensions_fail(self) -> None:
        normalizer = ScoreNormalizer.fit(rows(9, seed=1))
        for adapt in (normalizer.queries, normalizer.references):
            with pytest.raises(StoreError, match="'V0' has descriptors of 23 dimensions, the norm set of 24"):
                adapt(videos(3, num_dims=23))
