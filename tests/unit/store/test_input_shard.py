from __future__ import annotations

from collections import Counter

import pytest

from engine.errors import ConfigError
from engine.store.input_shard import InputShard, missing_shards

IDS = [f"folder/clip_{number}" for number in range(4000)]


def shards(count: int) -> list[InputShard]:
    return [InputShard(number=number, count=count) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 8, 1000])
def test_every_video_belongs_to_one_shard(count: int) -> None:
    holders = Counter(video_id for shard in shards(count) for video_id in IDS if shard.holds(video_id))
    assert holders == dict.fromkeys(IDS, 1)


def test_shards_are_of_about_one_size() -> None:
    """Within five standard deviations of a binomial distribution."""
    expected, deviation = 4000 / 8, (4000 * 1 / 8 * 7 / 8) ** 0.5
    sizes = [sum(map(shard.holds, IDS)) for shard in shards(8)]
    assert max(abs(size - expected) for size in sizes) < 5 * deviation
    assert len(set(sizes)) > 1


def test_the_split_stays_what_it_was() -> None:
    """Stores of earlier runs rely on it: SHA-256 of the id, its first eight bytes big-endian, modulo the count."""
    assert [number for number in range(1, 9) if InputShard(number=number, count=8).holds("clip_1")] == [7]
    assert [number for number in range(1, 9) if InputShard(number=number, count=8).holds("été/ü")] == [4]


def test_a_shard_is_read_as_it_is_written() -> None:
    shard = InputShard.parse("3/8")
    assert (shard.number, shard.count, str(shard)) == (3, 8, "3/8")


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "3/", "/8", "-1/8", "3/8/1", "a/b", "3 / 8", "1/0", "٣/٨", ""])
def test_what_is_no_shard_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="expected NUMBER/COUNT") as error:
        InputShard.parse(text)
    assert "\n" not in str(error.value)


def test_missing_shards_are_named() -> None:
    assert missing_shards([]) == []
    assert missing_shards(shards(3)) == []
    assert missing_shards([InputShard(number=2, count=4), InputShard(number=4, count=4)]) == ["1/4", "3/4"]
