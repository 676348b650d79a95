from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, StoreError
from engine.records import CandidatePair, Failure, Match
from engine.store.tables import (
    TABLE_SUFFIXES,
    check_ids,
    read_candidates,
    read_ground_truth,
    read_matches,
    write_candidates,
    write_failures,
    write_matches,
)

MATCH_HEADER = "query_id,ref_id,query_start,query_end,ref_start,ref_end,score\n"
CANDIDATES = [
    CandidatePair("Q1", "R2", 0.1 + 0.2),
    CandidatePair('a "b", c', "ü\nx", -1e-30),
    CandidatePair("7", "8", -100),
]
MATCHES = [Match("Q1", "R2", 0.0, 8.1, 3.3, 7.0, 1 / 3), Match("Q1", "R3", 1, 2, 3, 4, -5)]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


class TestRoundTrips:
    def test_candidates(self, tmp_path: Path) -> None:
        write_candidates(tmp_path / "c.csv", CANDIDATES)
        assert read_candidates(tmp_path / "c.csv") == CANDIDATES
        assert (tmp_path / "c.csv").read_bytes().startswith(b"query_id,ref_id,score\nQ1,R2,0.30000000000000004\n")

    def test_matches(self, tmp_path: Path) -> None:
        write_matches(tmp_path / "m.csv", MATCHES)
        assert read_matches(tmp_path / "m.csv") == MATCHES
        header = MATCH_HEADER.replace("\n", ",speed,mirrored,num_inliers\n")
        assert (tmp_path / "m.csv").read_text().startswith(header + "Q1,R2,0.0,8.1,3.3,7.0,0.333")

    def test_speed_and_mirror_flag(self, tmp_path: Path) -> None:
        traits = [(True, 40), (False, 0), (None, None)]
        matches = [replace(MATCHES[0], speed=-0.5, mirrored=flag, num_inliers=count) for flag, count in traits]
        write_matches(tmp_path / "m.csv", matches)
        assert read_matches(tmp_path / "m.csv") == matches
        ends = [line.split(",")[-2:] for line in (tmp_path / "m.csv").read_text().splitlines()[1:]]
        assert ends == [["true", "40"], ["false", "0"], ["", ""]]
        assert read_ground_truth(tmp_path / "m.csv").matches == (replace(MATCHES[0], score=1.0),) * 3

    def test_a_table_of_an_older_version(self, tmp_path: Path) -> None:
        text = MATCH_HEADER.replace("\n", ",speed,mirrored\n") + "Q1,R1,0,1,0,1,1,2.0,true\n"
        path = written(tmp_path, text)
        assert read_matches(path) == [Match("Q1", "R1", 0, 1, 0, 1, 1, speed=2.0, mirrored=True)]

    @pytest.mark.parametrize(
        ("traits", "named"),
        [("x,true,", "speed"), ("1,yes,", "mirrored"), ("inf,,", "speed"), (",,-1", "num_inliers"), (",,٣", "num_inl")],
    )
    def test_bad_traits_fail(self, tmp_path: Path, traits: str, named: str) -> None:
        text = MATCH_HEADER.replace("\n", ",speed,mirrored,num_inliers\n") + f"Q1,R1,0,1,0,1,1,{traits}\n"
        with pytest.raises(StoreError, match=f"line 2: column {named}.* holds"):
            read_matches(written(tmp_path, text))

    @pytest.mark.parametrize("query_id", ["a\rb", "a\r\nb", "a\nb", "\r", "\x1b[2J", "a,b", '"', " a ", "#a", "a\x00b"])
    def test_any_id(self, tmp_path: Path, query_id: str) -> None:
        pairs = [CandidatePair("Q1", "R1", 1.0), CandidatePair(query_id, f"R{query_id}", 0.5)]
        write_candidates(tmp_path / "c.csv", pairs)
        assert read_candidates(tmp_path / "c.csv") == pairs

    def test_empty_tables(self, tmp_path: Path) -> None:
        write_candidates(tmp_path / "c.csv", [])
        write_matches(tmp_path / "m.csv", [])
        assert read_candidates(tmp_path / "c.csv") == read_matches(tmp_path / "m.csv") == []

    def test_failures(self, tmp_path: Path) -> None:
        failures = [
            Failure("a", Path("videos/a.mp4"), "decode", "no frame, at all"),
            Failure("b", Path("videos") / b"caf\xe9.mp4".decode(errors="surrogateescape"), "open", "denied"),
        ]
        write_failures(tmp_path / "f.csv", failures)
        assert (tmp_path / "f.csv").read_text() == (
            'video_id,path,stage,reason\na,videos/a.mp4,decode,"no frame, at all"\nb,videos/caf\\xe9.mp4,open,denied\n'
        )


class TestReading:
    def test_columns_in_any_order_a_byte_order_mark_and_blank_lines(self, tmp_path: Path) -> None:
        path = written(tmp_path, "\ufeffscore,query_id,ref_id\r\n0.5,Q1,R1\r\n\r\n-2,Q2,R2\r\n")
        assert read_candidates(path) == [CandidatePair("Q1", "R1", 0.5), CandidatePair("Q2", "R2", -2.0)]

    def test_ground_truth_of_pairs(self, tmp_path: Path) -> None:
        truth = read_ground_truth(written(tmp_path, "query_id,ref_id\nQ1,R1\nQ1,R2\nQ1,R1\n"))
        assert truth.pairs == {("Q1", "R1"), ("Q1", "R2")}
        assert truth.matches is None

    @pytest.mark.parametrize(("header_end", "line_end"), [("", ""), (",score", ",0.25")])
    def test_ground_truth_of_segments(self, tmp_path: Path, header_end: str, line_end: str) -> None:
        header = f"query_id,ref_id,query_start,query_end,ref_start,ref_end{header_end}\n"
        lines = [f"Q1,R1,0,5,10,15{line_end}\n", f"Q1,R1,7,9,30,32{line_end}\n"]
        truth = read_ground_truth(written(tmp_path, header + "".join(lines)))
        assert truth.pairs == {("Q1", "R1")}
        assert truth.matches == (Match("Q1", "R1", 0, 5, 10, 15, 1.0), Match("Q1", "R1", 7, 9, 30, 32, 1.0))
        assert read_ground_truth(written(tmp_path, header)).matches == ()

    def test_recorded_tables(self, golden: Path) -> None:
        folder = golden / "postprocess"
        assert read_candidates(folder / "candidates.csv")[0] == CandidatePair("Q200035", "R200030", 0.6283541)
        assert read_matches(folder / "matches.csv")[0] == Match("Q200035", "R200030", 0, 11, 1, 14, 0.6283541)
        truth = read_ground_truth(folder / "ground_truth.csv")
        assert truth.matches is not None
        assert len(truth.matches) == 33
        assert truth.matches[0] == Match("Q200000", "R200031", 8, 14, 0, 6, 1.0)


class TestBadTables:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"line 1: expected the columns query_id, ref_id, score; got none"),
            ("query\vid,\x1b[2Jscore\nQ1,1\n", r"line 1: expected .*; got query\\x0bid, \\x1b\[2Jscore$"),
            ("query_id,ref_id\nQ1,R1\n", r"line 1: expected .* got query_id, ref_id$"),
            ("query_id,ref_id,score,rank\nQ1,R1,1,1\n", r"line 1: expected .* got query_id, ref_id, score, rank"),
            ("query_id,query_id,ref_id,score\n", r"line 1: expected the columns query_id, ref_id, score"),
            ("query_id,ref_id,score\nQ1,R1,1\nQ1,R1\n", r"table\.csv: line 3: expected 3 values, got 2"),
            ("query_id,ref_id,score\nQ1,R1,1,2\n", r"line 2: expected 3 values, got 4"),
            ("query_id,ref_id,score\nQ1,R1,high\n", r"line 2: column score holds 'high', expected a finite number"),
            ("query_id,ref_id,score\nQ1,R1,1\nQ1,R1,nan\n", r"line 3: column score holds 'nan'"),
            ("query_id,ref_id,score\nQ1,R1,-inf\n", r"line 2: column score holds '-inf'"),
            ("query_id,ref_id,score\nQ1,R1,\n", r"line 2: column score holds ''"),
            ("query_id,ref_id,score\n,R1,1\n", r"line 2: column query_id is empty"),
            ('query_id,ref_id,score\n"Q1"x,R1,1\n', r"cannot read .*table\.csv as a CSV table"),
        ],
    )
    def test_bad_candidates_fail(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(StoreError, match=message):
            read_candidates(written(tmp_path, text))

    def test_bad_matches_fail(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"line 2: column ref_end holds 'x'"):
            read_matches(written(tmp_path, MATCH_HEADER + "Q1,R1,0,1,0,x,1\n"))
        with pytest.raises(
            StoreError, match=r"expected the columns query_id, .* score or .*, mirrored, num_inliers; got"
        ):
            read_matches(written(tmp_path, MATCH_HEADER.replace(",score", "")))

    def test_bad_ground_truth_fails(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"ref_end or query_id, ref_id or query_id.* got query_id, score"):
            read_ground_truth(written(tmp_path, "query_id,score\n"))

    def test_files_that_cannot_be_read_fail(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"cannot read .*none\.csv.*No such file"):
            read_candidates(tmp_path / "none.csv")
        with pytest.raises(StoreError, match="Is a directory"):
            read_candidates(tmp_path)
        (tmp_path / "latin.csv").write_bytes("query_id,ref_id,score\nü,R1,1\n".encode("latin-1"))
        with pytest.raises(StoreError, match="utf-8"):
            read_candidates(tmp_path / "latin.csv")


class TestCheckIds:
    def test_known_ids_pass(self) -> None:
        check_ids(MATCHES, query_ids={"Q1", "Q9"}, ref_ids=["R2", "R3"], source=Path("m.csv"))

    def test_unknown_ids_are_counted_and_a_few_named(self) -> None:
        rows = [CandidatePair(f"Q{number}", "R1", 0.0) for number in range(6)]
        with pytest.raises(StoreError, match=r"c\.csv names 5 of 6 queries .* descriptors: Q1, Q2, Q3, \.\.\.; use"):
            check_ids(rows, query_ids={"Q0"}, ref_ids={"R1"}, source=Path("c.csv"))
        with pytest.raises(StoreError, match=r"names 1 of 1 references .* descriptors: R1; use"):
            check_ids(rows, query_ids={row.query_id for row in rows}, ref_ids=set(), source=Path("c.csv"))


class TestForms:
    """A table says the same in each of its forms."""

    PAIRS = (CandidatePair("Q,1", "été", 0.1), CandidatePair('"q"\r\n', "17", -1e-300))
    MATCHES = (
        Match("q", "r", 0.1, 2.5, 10.0, 12.0, 0.75, speed=-0.5, mirrored=True, num_inliers=17),
        Match("q", "r", 0.0, 1.0, 2.0, 3.0, 0.5, speed=1.0, mirrored=False, num_inliers=0),
        Match("q", "r", 0.0, 1.0, 2.0, 3.0, 0.25),
    )

    @pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
    def test_what_is_written_is_read(self, tmp_path: Path, suffix: str) -> None:
        pairs, matches = tmp_path / f"pairs{suffix}", tmp_path / f"matches{suffix}"
        write_candidates(pairs, self.PAIRS)
        write_matches(matches, self.MATCHES)
        assert tuple(read_candidates(pairs)) == self.PAIRS
        assert tuple(read_matches(matches)) == self.MATCHES
        write_candidates(pairs, ())
        assert read_candidates(pairs) == []

    def test_columns_are_those_of_the_challenge_in_all_of_them(self, tmp_path: Path) -> None:
        for suffix in TABLE_SUFFIXES:
            write_matches(tmp_path / f"m{suffix}", self.MATCHES)
        columns = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
        rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()]
        assert list(rows[0]) == columns == pq.read_table(tmp_path / "m.parquet").column_names
        assert rows == pq.read_table(tmp_path / "m.parquet").to_pylist()
        assert rows[0]["mirrored"] is True
        assert [row["num_inliers"] for row in rows] == [17, 0, None]
        assert rows[2]["speed"] is None

    @pytest.mark.parametrize("name", ["t.xlsx", "t.json", "t.parquet.gz", "t", "t.CSV"])
    def test_another_suffix_is_refused_and_nothing_written(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match=r"a table is written as \.csv, \.jsonl, \.parquet"):
            write_candidates(tmp_path / name, self.PAIRS)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("{", "JSON lines table"),
            ("[1, 2, 3]", "line 1: expected an object"),
            ('{"query_id": "a", "ref_id": "b"}', "expected the columns query_id, ref_id, score; got query_id, ref_id"),
            ('{"query_id": "a", "ref_id": "b", "score": 1}\n{"query_id": "a"}', "line 2: expected an object with the"),
            ('{"query_id": "a", "ref_id": "b", "score": NaN}', "column score holds 'nan'"),
            ('{"query_id": "a", "ref_id": ["b"], "score": 1}', "expected text, numbers, true, false or null, got list"),
            ('{"query_id": null, "ref_id": "b", "score": 1}', "column query_id is empty"),
        ],
    )
    def test_other_json_lines_are_refused(self, tmp_path: Path, text: str, reason: str) -> None:
        (tmp_path / "t.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(StoreError, match=reason) as error:
            read_candidates(tmp_path / "t.jsonl")
        assert "\n" not in str(error.value)

    def test_a_damaged_parquet_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        write_candidates(path, self.PAIRS)
        whole = path.read_bytes()
        for content in (b"", b"no table", whole[:-20], whole[:40] + bytes(40) + whole[80:]):
            path.write_bytes(content)
            with pytest.raises(StoreError, match=r"cannot read .*t\.parquet as a Parquet table") as error:
                read_candidates(path)
            assert "\n" not in str(error.value)
        with pytest.raises(StoreError, match=r"gone\.parquet"):
            read_candidates(tmp_path / "gone.parquet")
