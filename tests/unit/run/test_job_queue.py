from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.records import Failure
from engine.run.job_queue import JobQueue
from engine.run.messages import Job
from tests.workers import job


def ids(jobs: list[Job]) -> list[str]:
    return [item.media.video_id for item in jobs]


def test_no_more_is_drawn_than_is_given_out_and_one() -> None:
    drawn: list[str] = []

    def jobs() -> Iterator[Job]:
        for name in "abcdef":
            drawn.append(name)
            yield job(name)

    queue = JobQueue(jobs())
    assert queue
    assert drawn == ["a"]
    assert ids(queue.take([], at_once=2)) == ["a", "b"]
    assert drawn == ["a", "b"]


def test_what_is_put_back_comes_first() -> None:
    queue = JobQueue(map(job, "abc"))
    taken = queue.take([], at_once=2)
    queue.put_back(taken[1:])
    assert ids(queue.take([], at_once=3)) == ["b", "c"]
    assert not queue


def test_a_suspect_that_is_put_back_is_still_alone() -> None:
    queue = JobQueue(map(job, "ab"))
    assert list(queue.blame(queue.take([], at_once=1), death="died", stage="worker")) == []
    queue.put_back(queue.take([], at_once=2))
    assert ids(queue.take([job("x")], at_once=3)) == ["b"]
    assert [item.is_alone for item in queue.take([], at_once=3)] == [True]


def test_a_suspect_is_alone_and_then_given_up() -> None:
    queue = JobQueue(map(job, "abc"))
    taken = queue.take([], at_once=2)
    assert list(queue.blame(taken, death="died", stage="worker")) == []
    others = [job("x")]
    assert ids(queue.take(others, at_once=2)) == ["c"], "one that is busy takes no suspect"
    (first,) = queue.take([], at_once=2)
    assert (first.media.video_id, first.is_alone) == ("a", True)
    assert queue.take([first], at_once=2) == []
    ((given_up, failure),) = queue.blame([first], death="died again", stage="worker")
    assert given_up is first
    assert failure == Failure(
        "a", Path("a.mp4"), "worker", "its worker process died again; it was tried twice, the second time alone"
    )
    assert ids(queue.take([], at_once=2)) == ["b"]
    assert not queue
