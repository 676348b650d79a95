from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from training.ground_truth import read_segments


def test_segments_are_read_and_pairs_without_them_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text("query_id,ref_id,query_start,query_end,ref_start,ref_end\nQ1,R1,0,3,1,4\n", encoding="utf-8")
    [match] = read_segments(table)
    assert (match.query_id, match.ref_start_s, match.ref_end_s) == ("Q1", 1, 4)
    table.write_text("query_id,ref_id\nQ1,R1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="names no segments; the matching ground truth is needed"):
        read_segments(table)
