from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from training.descriptor.data import Item, PlannedBatches, group_names, video_of

pytestmark = pytest.mark.torch


def plan(*, rank: int = 0, world_size: int = 1, pairs: int = 6, first_step: int = 0) -> list[list[Item]]:
    batches = PlannedBatches(
        np.arange(20) * 10,
        pairs_per_rank=pairs,
        rank=rank,
        world_size=world_size,
        num_annotated=1,
        sizes_px=[32] * 5 + [64] * 5,
        seed=7,
        first_step=first_step,
    )
    assert len(list(batches)) == len(batches)
    return list(batches)


def test_an_epoch_shows_each_picture_at_most_once_and_the_next_another_order() -> None:
    batches = plan()
    first, second = ([item.index for batch in batches[start : start + 4] for item in batch] for start in (0, 4))
    assert sorted(index for index in first if index >= 0) == [index * 10 for index in range(20)]
    assert first.count(-1) == 4
    assert first != second
    assert [batch[0].input_px for batch in batches] == [32] * 5 + [64] * 5


def test_two_ranks_share_the_batch_of_one() -> None:
    whole, parts = plan(), [plan(rank=rank, world_size=2, pairs=3) for rank in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_a_later_start_gives_the_same_rest() -> None:
    assert plan(first_step=3) == plan()[3:]


def test_pictures_of_one_video_are_a_group_and_annotated_pairs_join_two() -> None:
    names = ["a/Q1/000000", "a/Q1/000001", "b/R1/000000", "b/R2/000000", "photos/x.png", "photos/y.png"]
    groups = group_names(names, same=[("Q1", "R1")])
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 4


def test_only_names_with_a_slot_are_of_a_video() -> None:
    assert video_of("clips/V1/000003") == "V1"
    assert video_of("V1/000003") == "V1"
    assert video_of("photos/x.png") is None
