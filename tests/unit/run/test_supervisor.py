from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ConfigError, EngineError
from engine.records import Failure
from engine.run.messages import HEARTBEAT_S, Job, Result
from engine.run.supervisor import MAX_SILENCE_S, Supervisor
from tests.workers import (
    children,
    failures,
    is_alive,
    job,
    serve_nothing,
    serve_refusal,
    serve_script,
    serve_silence,
    whole,
)

SILENCE_S = 2 * HEARTBEAT_S


def supervisor(
    folder: Path,
    *,
    num_workers: int = 2,
    jobs_at_once: int = 2,
    serve: Callable[..., None] = serve_script,
    max_silence_s: float = MAX_SILENCE_S,
) -> Supervisor[Path]:
    return Supervisor(serve, [folder] * num_workers, jobs_at_once=jobs_at_once, max_silence_s=max_silence_s)


def run(folder: Path, *video_ids: str, num_workers: int = 2, jobs_at_once: int = 2) -> dict[str, Result]:
    """The results by id; each came once, and those of described videos are whole."""
    with supervisor(folder, num_workers=num_workers, jobs_at_once=jobs_at_once) as workers:
        return whole([(item.media.video_id, result) for item, result in workers.run(map(job, video_ids))])


@pytest.mark.parametrize(("num_workers", "jobs_at_once"), [(1, 1), (3, 2)])
def test_every_job_is_done_once(tmp_path: Path, num_workers: int, jobs_at_once: int) -> None:
    ids = [f"v{number}" for number in range(9)]
    results = run(tmp_path, *ids, "fail", num_workers=num_workers, jobs_at_once=jobs_at_once)
    assert set(results) == {*ids, "fail"}
    assert failures(results) == {"fail": Failure("fail", Path("fail.mp4"), "decode", "no frame")}


def test_jobs_are_begun_in_their_order(tmp_path: Path) -> None:
    run(tmp_path, "c", "a", "d", "b", num_workers=1)
    assert (tmp_path / "begun.txt").read_text().split() == ["c", "a", "d", "b"]


def test_one_set_of_workers_runs_several_lists(tmp_path: Path) -> None:
    with supervisor(tmp_path, num_workers=1) as workers:
        first = list(workers.run([job("a")]))
        second = list(workers.run([job("b"), job("fail")]))
        assert [item.media.video_id for item, _ in first + second] == ["a", "b", "fail"]
        assert workers.stages_s == {"decode": 1.0}


class TestWorkersThatDie:
    def test_a_video_whose_worker_died_once_is_described(self, tmp_path: Path) -> None:
        results = run(tmp_path, "a", "once", "b", num_workers=1, jobs_at_once=1)
        assert not failures(results)
        assert set(results) == {"a", "once", "b"}

    @pytest.mark.parametrize(("num_workers", "jobs_at_once"), [(1, 1), (1, 4), (2, 3)])
    def test_a_video_that_ends_two_workers_is_recorded_and_costs_no_other_its_result(
        self, tmp_path: Path, num_workers: int, jobs_at_once: int
    ) -> None:
        ids = ["a", "kill1", "b", "c", "kill2", "d", "e", "f"]
        results = run(tmp_path, *ids, num_workers=num_workers, jobs_at_once=jobs_at_once)
        assert set(results) == set(ids)
        assert set(failures(results)) == {"kill1", "kill2"}
        for failure in failures(results).values():
            assert failure.stage == "worker"
            assert "SIGKILL" in failure.reason
        begun = (tmp_path / "begun.txt").read_text().split()
        assert begun.count("kill1") == 2

    def test_what_a_worker_sent_before_it_died_is_not_done_again(self, tmp_path: Path) -> None:
        results = run(tmp_path, "a", "late", "b", num_workers=1, jobs_at_once=1)
        assert not failures(results)
        assert sorted((tmp_path / "begun.txt").read_text().split()) == ["a", "b", "late"]

    def test_workers_killed_from_outside_are_replaced(self, tmp_path: Path) -> None:
        others = set(children(os.getpid()))  # servers of other tests
        with supervisor(tmp_path, num_workers=2, jobs_at_once=1) as workers:
            results = {}
            for item, result in workers.run(job(f"v{number}") for number in range(12)):
                results[item.media.video_id] = result
                if len(results) in (2, 5):
                    worker = next(child for child in children(os.getpid()) if child not in others)
                    os.kill(worker, signal.SIGKILL)
        assert not failures(results)
        assert len(results) == 12

    def test_workers_that_cannot_start_are_not_started_for_ever(self, tmp_path: Path) -> None:
        with (
            supervisor(tmp_path, serve=serve_nothing, num_workers=1) as workers,
            pytest.raises(EngineError, match="ended by SIGKILL while it loaded the engines, 3 times in a row"),
        ):
            list(workers.run([job("a")]))


class TestWorkersThatDoNotAnswer:
    def test_one_that_stands_still_is_replaced(self, tmp_path: Path) -> None:
        with supervisor(tmp_path, num_workers=2, jobs_at_once=1, max_silence_s=SILENCE_S) as workers:
            jobs = map(job, ["a", "stop", "b", "pause", "c", "d"])
            results = {item.media.video_id: result for item, result in workers.run(jobs)}
        assert set(results) == {"a", "b", "c", "d", "pause", "stop"}
        (failure,) = failures(results).values()
        assert (failure.video_id, failure.stage) == ("stop", "worker")
        assert "did not answer for" in failure.reason
        assert "tried twice, the second time alone" in failure.reason

    def test_one_that_only_works_long_is_left_alone(self, tmp_path: Path) -> None:
        """Silence is less than a heartbeat here; the video is given up for its own limit."""
        with supervisor(tmp_path, num_workers=1, jobs_at_once=3, max_silence_s=3 * HEARTBEAT_S) as workers:
            jobs = [job("slow", limit_s=1.5), *map(job, "abcd")]
            results = {item.media.video_id: result for item, result in workers.run(jobs)}
        assert set(results) == {"a", "b", "c", "d", "slow"}
        (failure,) = failures(results).values()
        assert (failure.video_id, failure.stage) == ("slow", "timeout")
        assert "took longer than the limit of 2 s" in failure.reason
        begun = (tmp_path / "begun.txt").read_text().split()
        assert begun.count("slow") == 2
        assert all(begun.count(video_id) <= 2 for video_id in "abcd")

    def test_one_that_stands_still_while_it_starts_is_ended(self, tmp_path: Path) -> None:
        with (
            supervisor(tmp_path, serve=serve_silence, num_workers=1, max_silence_s=0.2) as workers,
            pytest.raises(EngineError, match=r"did not answer for .* while it loaded the engines, 3 times in a row"),
        ):
            list(workers.run([job("a")]))


class TestTheEnd:
    @pytest.mark.parametrize("video_id", ["a", "break"])
    def test_no_worker_is_left(self, tmp_path: Path, video_id: str) -> None:
        others = set(children(os.getpid()))
        started: set[int] = set()

        def use() -> None:
            with supervisor(tmp_path) as workers:
                started.update(set(children(os.getpid())) - others)
                for _ in workers.run([job(video_id)]):
                    raise KeyboardInterrupt

        with pytest.raises(ConfigError if video_id == "break" else KeyboardInterrupt):
            use()
        assert len(started) == 2
        assert not any(map(is_alive, started))

    def test_what_stops_every_worker_is_raised(self, tmp_path: Path) -> None:
        with (
            supervisor(tmp_path, serve=serve_refusal) as workers,
            pytest.raises(ConfigError, match="engines for another processor"),
        ):
            list(workers.run([job("a")]))

    def test_sigterm_ends_the_workers_and_then_this_process(self, tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGTERM)
        others = set(children(os.getpid()))
        started: set[int] = set()

        def use() -> None:
            with supervisor(tmp_path) as workers:
                started.update(set(children(os.getpid())) - others)
                for _ in workers.run([job("a"), job("b")]):
                    os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(SystemExit) as ended:
            use()
        assert ended.value.code == 128 + signal.SIGTERM
        assert len(started) == 2
        assert not any(map(is_alive, started))
        assert signal.getsignal(signal.SIGTERM) is before

    def test_it_can_be_used_in_any_thread(self, tmp_path: Path) -> None:
        found: list[tuple[Job, Result]] = []

        def use() -> None:
            with supervisor(tmp_path, num_workers=1) as workers:
                found.extend(workers.run([job("a")]))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert [item.media.video_id for item, _ in found] == ["a"]


def test_log_lines_of_workers_are_logged_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="engine"):
        run(tmp_path, "a", "once", num_workers=1)
    messages = [record.message for record in caplog.records]
    assert len([text for text in messages if text.startswith("hello from process")]) == 2
    assert any("worker 0 was ended by SIGKILL and is replaced; it was working on: " in text for text in messages)
