"""The videos of a ground truth are found whatever the form in which a table has their ids."""

from __future__ import annotations

import unicodedata

import pytest

from engine.evaluate.ids import in_ids_of, unmatched_lines
from engine.records import Match
from engine.store.tables import GroundTruth

NFC, NFD = (unicodedata.normalize(form, "été 한") for form in ("NFC", "NFD"))
assert NFC != NFD


def truth(*pairs: tuple[str, str]) -> GroundTruth:
    return GroundTruth(frozenset(pairs), tuple(Match(*pair, 0, 1, 2, 3, 1.0) for pair in pairs))


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        ((NFC, "R1"), (NFD, "R1")),
        ((NFD, NFD), (NFC, NFC)),
        (("1", "2"), ("Q000001", "R000002")),
        (("Q000001", "R000002"), ("1", "2")),
        (("Q000001", "2"), ("Q000001", "R000002")),
        (("0012345678", "7"), ("Q12345678", "R000007")),
        (("7", "8"), ("7", "8")),
        (("7", "8"), ("Q7", "R8")),  # not how the challenge writes them
        (("Q9", "R9"), ("Q1", "R1")),
    ],
)
def test_ids_take_the_form_of_those_compared(wanted: tuple[str, str], known: tuple[str, str]) -> None:
    found = in_ids_of(truth(wanted), query_ids={known[0]}, ref_ids={known[1]})
    is_there = wanted not in [("7", "8"), ("Q9", "R9")]
    assert found == truth(known if is_there else wanted)


def test_numbers_are_numbers_only_if_all_are() -> None:
    mixed = truth(("1", "R1"), ("Q000002", "R1"))
    assert in_ids_of(mixed, query_ids={"Q000001", "Q000002"}, ref_ids={"R1"}) == mixed


def test_the_same_id_comes_before_one_of_the_same_form() -> None:
    both = truth((NFC, "R1"), (NFD, "R1"))
    assert in_ids_of(both, query_ids={NFC, NFD}, ref_ids={"R1"}) == both
    assert in_ids_of(truth(("01", "R1")), query_ids={"1", "01"}, ref_ids={"R1"}) == truth(("01", "R1"))


def test_pairs_without_segments_stay_without() -> None:
    assert in_ids_of(GroundTruth(frozenset({("1", "2")}), None), query_ids={"Q000001"}, ref_ids={"R000002"}) == (
        GroundTruth(frozenset({("Q000001", "R000002")}), None)
    )


def test_what_matches_nothing_is_said() -> None:
    pairs = truth(("Q1", "R1"), ("Q2", "R1"), ("Q3", "R2"))
    assert unmatched_lines(pairs, query_ids={"Q1", "Q2", "Q3"}, ref_ids={"R1", "R2"}, among="the videos") == []
    assert unmatched_lines(pairs, query_ids={"Q1"}, ref_ids={"X"}, among="the videos") == [
        "2 of 3 queries of the ground truth are not among the videos, such as 'Q2'",
        "2 of 2 references of the ground truth are not among the videos, such as 'R1'; is this the ground truth of "
        "these videos?",
    ]
