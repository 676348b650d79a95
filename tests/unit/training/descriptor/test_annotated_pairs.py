from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.records import Match
from training.descriptor.annotated_pairs import AnnotatedPairSource

NAMES = [f"q/Q1/{slot:06d}" for slot in range(6)] + [f"r/R1/{slot:06d}" for slot in range(9)] + ["photos/x.png"]


def match(**changes: object) -> Match:
    times = {"query_start_s": 1.0, "query_end_s": 5.0, "ref_start_s": 2.0, "ref_end_s": 4.0, "score": 1.0}
    return Match(**({"query_id": "Q1", "ref_id": "R1"} | times | changes))


def test_pairs_show_the_same_part_of_the_segment() -> None:
    source = AnnotatedPairSource.of([match()], NAMES, fps=1.0)
    rng = np.random.default_rng(0)
    drawn = {source.draw(rng) for _ in range(200)}
    # Query slots 1 to 4 show reference slots 2 and 3 at half the speed.
    assert drawn == {(1, 8), (2, 8), (3, 9), (4, 9)}


def test_a_video_that_the_store_does_not_hold_is_an_error() -> None:
    with pytest.raises(ConfigError, match="1 videos that the store does not hold, for example R9"):
        AnnotatedPairSource.of([match(ref_id="R9")], NAMES, fps=1.0)


def test_segments_shorter_than_a_picture_are_left_out() -> None:
    with pytest.raises(ConfigError, match="no annotated segment"):
        AnnotatedPairSource.of([match(query_end_s=1.5)], NAMES, fps=1.0)
