"""Records as tables, with rows and without."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import engine
from engine.errors import BackendUnavailable, ConfigError, StoreError
from engine.records import CandidatePair, Descriptors, Match
from engine.store.arrow import to_arrow, to_pandas

MATCH = Match("q", "r", 0.5, 2.5, 10.0, 12.0, 0.75)


def described(video_id: str, num_rows: int, *, num_dims: int = 4, edit_score: float | None = None) -> Descriptors:
    start_s = np.arange(num_rows, dtype=np.float32)
    rows = np.random.default_rng(num_rows).normal(size=(num_rows, num_dims)).astype(np.float32)
    return Descriptors(video_id, np.stack([start_s, start_s + 1], axis=1), rows, edit_score)


def test_candidates_and_matches_have_their_fields_as_columns() -> None:
    pairs = [CandidatePair("a", "b", 0.5), CandidatePair("été", "b", -1.0)]
    table = to_arrow(pairs, CandidatePair)
    assert table.schema == pa.schema({"query_id": pa.string(), "ref_id": pa.string(), "score": pa.float64()})
    assert table.to_pylist() == [vars(pair) for pair in pairs]
    matches = [MATCH, Match("q", "r", 0, 1, 2, 3, 0.5, speed=-2.0, mirrored=True, num_inliers=3)]
    assert to_arrow(matches, Match).to_pylist() == [vars(match) for match in matches]


def test_descriptors_have_a_row_for_each_descriptor() -> None:
    videos = [replace(described("a", 2, edit_score=0.25), blank=np.array([True, False])), described("b", 3)]
    table = to_arrow(videos, Descriptors)
    assert table["blank"].to_pylist() == [True, False, None, None, None]
    assert table.schema.field("descriptor").type == pa.list_(pa.float32(), 4)
    assert table["video_id"].to_pylist() == ["a", "a", "b", "b", "b"]
    assert table["start_s"].to_pylist() == [0, 1, 0, 1, 2]
    assert table["end_s"].to_pylist() == [1, 2, 1, 2, 3]
    assert table["edit_score"].to_pylist() == [0.25, 0.25, None, None, None]
    np.testing.assert_array_equal(
        np.array(table["descriptor"].to_pylist(), np.float32), np.concatenate([video.descriptors for video in videos])
    )


@pytest.mark.parametrize("kind", [CandidatePair, Match, Descriptors])
def test_a_table_without_rows_has_the_columns(kind: type) -> None:
    record: dict[type, Any] = {
        CandidatePair: CandidatePair("a", "b", 1.0), Match: MATCH, Descriptors: described("a", 1)
    }  # fmt: skip
    table = to_arrow([], kind)
    assert table.num_rows == 0
    assert table.column_names == to_arrow([record[kind]], kind).column_names


@pytest.mark.parametrize(
    ("records", "kind", "reason"),
    [
        ([MATCH], CandidatePair, "a record of Match among those of CandidatePair"),
        ([MATCH], dict, "expected CandidatePair, Match or Descriptors"),
        ([described("a", 1), MATCH], Descriptors, "a record of Match"),
    ],
)
def test_other_records_are_refused(records: Sequence[Any], kind: type, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        to_arrow(records, kind)


def test_descriptors_of_two_presets_are_refused() -> None:
    with pytest.raises(StoreError, match=r"of \[4, 5\] dimensions"):
        to_arrow([described("a", 1), described("b", 1, num_dims=5)], Descriptors)


def test_pandas_gets_the_same_table() -> None:
    match = Match("q", "r", 0.0, 1.0, 2.0, 3.0, 0.5, speed=-2.0, mirrored=True, num_inliers=3)
    assert to_pandas([match], Match).to_dict("records") == [vars(match)]


def test_without_pandas_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BackendUnavailable, match=r"pandas is not installed; install it .*, or use to_arrow"):
        to_pandas([MATCH], Match)


def test_they_are_among_the_public_names() -> None:
    assert engine.to_arrow is to_arrow
    assert engine.to_pandas is to_pandas
