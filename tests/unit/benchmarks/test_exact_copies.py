"""Exact copies: which pairs are byte for byte equal, and when one counts as found."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data_sets import DataSet
from benchmarks.exact_copies import copies_of, exact_pairs, link_copies, table
from engine.errors import ConfigError
from engine.records import CandidatePair, Match

PAIRS = [("XA", "A"), ("XB", "B"), ("XC", "C"), ("XD", "D"), ("XE", "E")]
TRUE_PAIRS = {*PAIRS, ("XA", "Z")}
CANDIDATES = [
    CandidatePair("XA", "Z", 0.95),  # true as well, so that it may be above
    CandidatePair("XA", "A", 0.9),
    CandidatePair("XA", "B", 0.5),
    CandidatePair("XB", "B", 0.7),
    CandidatePair("XB", "A", 0.7),
    CandidatePair("XC", "C", 0.8),
    CandidatePair("XE", "E", -0.1),
    CandidatePair("Q", "E", 0.99),  # another query's
]
MATCHES = [Match(query_id, query_id[1:], 0, 3, 0, 3, 1.0) for query_id in ("XA", "XB", "XD", "XE")]


def test_pairs_are_equal_byte_for_byte(tmp_path: Path) -> None:
    for name, content in {"q/a.mp4": b"one", "q/b.mp4": b"two", "r/A.mp4": b"one", "r/C.mp4": b"three"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    data = DataSet("set", tmp_path / "q", tmp_path / "r", tmp_path / "truth.csv")
    assert exact_pairs(data) == [("a", "A")]
    (tmp_path / "links").mkdir()
    link_copies(data, exact_pairs(data), tmp_path / "links")
    assert {path.name: path.read_bytes() for path in (tmp_path / "links").iterdir()} == {"a.mp4": b"one"}
    (tmp_path / "q" / "a.mp4").write_bytes(b"One")
    with pytest.raises(ConfigError, match="byte for byte"):
        exact_pairs(data)


def test_a_copy_is_found_above_all_false_pairs_and_with_a_match() -> None:
    copies = copies_of(PAIRS, CANDIDATES, MATCHES, true_pairs=TRUE_PAIRS, build="now")
    assert {copy.query_id: copy.is_found for copy in copies} == {
        "XA": True,
        "XB": False,  # a false pair scores as much
        "XC": False,  # no match
        "XD": False,  # no candidate
        "XE": True,  # alone, whatever its score
    }
    assert [copy.best_false_score for copy in copies] == [0.5, 0.7, None, None, None]


def test_the_table_counts_each_build() -> None:
    copies = [
        copy
        for build in ("before", "now")
        for copy in copies_of(PAIRS, CANDIDATES, MATCHES, true_pairs=TRUE_PAIRS, build=build)
    ]
    lines = table(copies)
    assert lines[1].split() == ["before", "XA", "A", "0.9000", "0.5000", "yes", "yes"]
    assert lines[4].split() == ["before", "XD", "D", "-", "-", "yes", "NO"]
    assert lines[-2:] == ["before: 2 of 5 exact copies found", "now: 2 of 5 exact copies found"]
