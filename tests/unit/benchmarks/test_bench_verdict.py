"""Verdicts counted by hand."""

from __future__ import annotations

from benchmarks.bench_verdict import Figures, Told, count, lines

TRUE = frozenset({("a", "x"), ("a", "y"), ("b", "x")})
TOLD = [
    Told("a", "x", "copy"),
    Told("a", "y", "review"),
    Told("b", "y", "copy"),
    Told("c", "x", "review"),
    Told("d", "x", "no match"),
]


def test_pairs_and_uploads_are_counted() -> None:
    queries = ["a", "b", "c", "d"]
    copies = count(TOLD, TRUE, query_ids=queries, name="copy")
    assert copies == Figures("copy", 2, 1, 3, num_uploads_wrong=0, num_uploads_without=2)
    both = count(TOLD, TRUE, query_ids=queries, name="copy or review")
    assert both == Figures("copy or review", 4, 2, 3, num_uploads_wrong=1, num_uploads_without=2)
    table = lines([copies, both], [1.0, 2.0, 3.0], 0.5)
    assert table[1].split() == ["copy", "2", "0.500", "0.333", "0", "of", "2"]
    assert table[-2] == "seconds to a verdict: 2.00 (p50), 2.90 (p95)"
    assert table[-1].endswith(" 0.50")


def test_no_verdict_has_no_precision() -> None:
    nothing = count([], TRUE, query_ids=["a"], name="copy")
    assert lines([nothing], [1.0], 1.0)[1].split() == ["copy", "0", "-", "0.000", "0", "of", "0"]
