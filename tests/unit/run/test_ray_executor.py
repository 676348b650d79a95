from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, EngineError
from engine.records import Failure
from engine.run import ray_connection
from engine.run.messages import Job, Result
from engine.run.plan import ClusterWorkers
from engine.run.ray_executor import RayExecutor
from tests.ray_clusters import add_node, kill_node, ray_cluster
from tests.ray_workers import ScriptWorker
from tests.workers import failures, is_alive, job, wait_until, whole


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


def executor(cluster: Any, folder: Path, **options: Any) -> RayExecutor[Path]:
    workers = ClusterWorkers(cluster.address, per_node=1, on_gpus=False)
    return RayExecutor(ScriptWorker, lambda _: folder, workers=workers, **options)


def run(cluster: Any, folder: Path, *jobs: str | Job) -> dict[str, Result]:
    """The results by id; each came once, and those of described videos are whole."""
    with executor(cluster, folder) as actors:
        given = [job(item) if isinstance(item, str) else item for item in jobs]
        return whole([(item.media.video_id, result) for item, result in actors.run(given)])


def begun(folder: Path) -> Counter[str]:
    path = folder / "begun.txt"
    return Counter(path.read_text().split() if path.exists() else [])


def test_every_job_is_done_once_by_one_actor_of_each_node(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ["wait1", "wait2", *(f"v{number}" for number in range(9))]

    def go_when_both_are_busy() -> None:
        wait_until(lambda: {"wait1", "wait2"} <= begun(tmp_path).keys(), limit_s=180)
        (tmp_path / "go").touch()

    threading.Thread(target=go_when_both_are_busy, daemon=True).start()
    with caplog.at_level(logging.INFO, logger="engine"), executor(cluster, tmp_path) as actors:
        found = whole([(item.media.video_id, result) for item, result in actors.run(map(job, [*ids, "fail"]))])
        again = whole([(item.media.video_id, result) for item, result in actors.run([job("fail"), job("w")])])
        assert actors.stages_s["ensemble"] > 0
        started = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert set(found) == {*ids, "fail"}
    assert failures(found) == {"fail": Failure("fail", Path("fail.mp4"), "decode", "no frame")}
    assert set(again) == {"fail", "w"}
    assert len(started) == 2
    assert [record.message for record in caplog.records].count("hello from an actor") == 1
    wait_until(lambda: not any(map(is_alive, started)), limit_s=180)


def test_jobs_are_drawn_as_they_are_begun(cluster: Any, tmp_path: Path) -> None:
    """Two actors with one thread each; of a million paths no more than these and the next one are in memory."""
    drawn = 0

    def jobs() -> Iterator[Job]:
        nonlocal drawn
        for number in range(1_000_000):
            drawn += 1
            yield job(f"v{number}")

    with executor(cluster, tmp_path) as actors:
        for done, _ in enumerate(actors.run(jobs()), start=1):
            assert drawn - done <= 3
            if done == 200:
                break


class TestActorsThatDie:
    def test_a_video_that_ends_two_is_recorded_and_costs_no_other_its_result(
        self, cluster: Any, tmp_path: Path
    ) -> None:
        ids = ["a", "kill", "b", "once", "c", "d"]
        results = run(cluster, tmp_path, *ids)
        assert set(results) == set(ids)
        (failure,) = failures(results).values()
        assert (failure.video_id, failure.path, failure.stage) == ("kill", Path("kill.mp4"), "worker")
        assert "tried twice, the second time alone" in failure.reason
        assert (begun(tmp_path)["kill"], begun(tmp_path)["once"]) == (2, 2)

    def test_one_that_takes_too_long_is_ended(self, cluster: Any, tmp_path: Path) -> None:
        results = run(cluster, tmp_path, job("slow", limit_s=1.0), "a", "b")
        (failure,) = failures(results).values()
        assert (failure.video_id, failure.stage) == ("slow", "timeout")
        assert "took longer than the limit of 1 s" in failure.reason

    def test_what_stops_every_actor_is_raised(self, cluster: Any, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="the disk is full"):
            run(cluster, tmp_path, "break")
        with pytest.raises(EngineError, match=r"KeyError: 'error'$"):
            run(cluster, tmp_path, "error")
        (tmp_path / "refuse").touch()
        with pytest.raises(ConfigError, match="engines for another processor"):
            run(cluster, tmp_path, "a")

    def test_actors_that_cannot_start_are_not_started_for_ever(self, cluster: Any, tmp_path: Path) -> None:
        (tmp_path / "die").touch()
        with pytest.raises(EngineError, match="ended unexpectedly while it loaded the engines, 3 times in a row"):
            run(cluster, tmp_path, "a")


class TestNodes:
    def test_a_lost_one_costs_nothing_and_a_new_one_is_taken_in(self, cluster: Any, tmp_path: Path) -> None:
        jobs = [job(video_id) for video_id in ("wait1", "wait2", *(f"v{number}" for number in range(20)))]
        found: list[tuple[str, Result]] = []

        def use() -> None:
            with executor(cluster, tmp_path) as actors:
                found.extend((item.media.video_id, result) for item, result in actors.run(jobs))

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        wait_until(lambda: {"wait1", "wait2"} <= begun(tmp_path).keys(), limit_s=180)
        kill_node(cluster, next(iter(cluster.worker_nodes)))
        add_node(cluster)
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 3, limit_s=180)
        (tmp_path / "go").touch()
        thread.join(180)
        assert not thread.is_alive()
        results = whole(found)
        assert set(results) == {item.media.video_id for item in jobs}
        assert not failures(results), "a video is not to blame for its node"
        assert sorted(begun(tmp_path)[video_id] for video_id in ("wait1", "wait2")) == [1, 2]

    def test_cores_that_others_have_are_named_in_time(self, cluster: Any, tmp_path: Path) -> None:
        with executor(cluster, tmp_path) as first:
            list(first.run(map(job, "ab")))
            second = executor(cluster, tmp_path, start_timeout_s=1.5)
            with second, pytest.raises(EngineError, match=r"of the [23] CPUs of its nodes 0 are free"):
                list(second.run([job("c")]))


class TestTheAddress:
    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("nonsense", "Invalid address format: nonsense"),
            ("127.0.0.1:port", "expected auto or HOST:PORT"),
            ("127.0.0.1:99999", "no Ray cluster answers at"),
            ("ray://127.0.0.1:10001", "run the command on a node of the cluster"),
        ],
    )
    def test_one_that_is_none_is_said_in_one_line(self, tmp_path: Path, address: str, said: str) -> None:
        assert said in self.refusal(address, tmp_path)

    def test_no_cluster_on_this_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
        monkeypatch.setenv("RAY_ADDRESS", f"{host}:{port}")
        assert f":{port} (" in self.refusal("auto", tmp_path)

    @pytest.mark.parametrize("reply", [b"HTTP/1.0 400 Bad request\r\n\r\n", b"", None])
    def test_something_else_that_listens(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes | None
    ) -> None:
        """None: it accepts a connection and says nothing, as a machine that hangs does."""
        monkeypatch.setattr(ray_connection, "CONNECT_TIMEOUT_S", 0.5)
        with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - Ray asks for 127.0.0.1 under another name

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    if reply is None:
                        connection.recv(100)
                    elif reply:
                        connection.sendall(reply)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            text = self.refusal(f"127.0.0.1:{server.getsockname()[1]}", tmp_path)
            thread.join()
        assert "no Ray cluster answers at" in text

    def refusal(self, address: str, folder: Path) -> str:
        workers = ClusterWorkers(address, per_node=None, on_gpus=False)
        with pytest.raises(EngineError) as error, RayExecutor(ScriptWorker, lambda _: folder, workers=workers):
            pass
        assert "\n" not in str(error.value)
        return str(error.value)


def test_sigterm_ends_the_run_as_ctrl_c_does(cluster: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def use() -> None:
        with executor(cluster, tmp_path) as actors:
            for _ in actors.run(map(job, "abc")):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        use()
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
