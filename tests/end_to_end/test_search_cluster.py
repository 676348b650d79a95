"""Searches on a Ray cluster of two nodes on this machine: the same as those of one process, also if actors die."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from engine.catalog.catalog import Catalog
from engine.errors import EngineError, StoreError
from engine.run import ray_actors
from engine.run.cluster_search import ClusterSearch
from engine.run.ray_actors import RayActors
from engine.search.candidates import find_candidates
from engine.search.exact import global_top_k
from engine.search.rows import Rows
from engine.store.tables import read_candidates
from tests.catalogs import copy_of, npz, video
from tests.end_to_end.conftest import RunCli
from tests.ray_clusters import kill_node, ray_cluster
from tests.ray_objects import Counting
from tests.videos import moving_frames, write_video
from tests.workers import wait_until

REFERENCES = [video(f"r{n:02d}", 20 + n) for n in range(14)]
QUERIES = [copy_of(item, f"q{n}", start=n) for n, item in enumerate(REFERENCES[:4])]
QUERIES += [replace(QUERIES[0], gate="stopped_rows_kept"), video("unrelated", 30)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with ray_cluster() as cluster:
        yield cluster
        ray.shutdown()


@pytest.fixture(scope="module")
def actors(nodes: Any) -> RayActors:
    return RayActors(nodes.address)


@pytest.fixture
def folder(tiny_engines: Path, tmp_path: Path) -> Path:
    catalog = Catalog.create(tmp_path / "catalogue", engines=tiny_engines, num_shares=2)
    catalog.add([npz(tmp_path / "r.npz", *REFERENCES)])
    return catalog.folder


def count(folder: Path, what: str) -> int:
    return len((folder / what).read_text())


@pytest.mark.long
def test_an_actor_that_dies_is_made_anew_and_the_call_repeated_once(
    actors: RayActors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    actor = actors.host(Counting, tmp_path, actors.share("hello"), what="a test", num_actors=1)
    assert actor.call("greet", "once", times=2) == "hello oncehello once"
    assert (count(tmp_path, "made"), count(tmp_path, "asked")) == (2, 2)
    with pytest.raises(EngineError, match=r"^a test on the Ray cluster \S+ was lost, and lost again .*") as error:
        actor.call("greet", "death")
    assert "\n" not in str(error.value)
    assert (count(tmp_path, "made"), count(tmp_path, "asked")) == (3, 4)
    assert actor.call("greet", "world") == "hello world"
    time.sleep(1)  # Ray speaks of it from another thread, some time later
    assert capfd.readouterr().out == ""


@pytest.mark.long
def test_errors_are_those_of_the_call(actors: RayActors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = actors.host(Counting, tmp_path, "hello", what="a test", num_actors=1)
    with pytest.raises(EngineError, match=r"^a test on the Ray cluster \S+ failed: KeyError: 'bug'$"):
        actor.call("greet", "bug")
    (tmp_path / "gone").touch()
    with pytest.raises(StoreError, match=r"^the share is gone$"):
        actors.host(Counting, tmp_path, "hello", what="another", num_actors=1).call("greet", "x")
    hasty = actors.host(Counting, tmp_path, "hello", what="a test", num_actors=1, timeout_s=0)
    with pytest.raises(EngineError, match=r"^a test on the Ray cluster \S+ did not answer in 0 s; `ray status`[^\n]*$"):
        hasty.call("greet", "x")
    monkeypatch.setattr(ray_actors, "__version__", "0.0.0")
    other = actors.host(Counting, tmp_path, "hello", what="a test", num_actors=1)
    with pytest.raises(
        EngineError, match=r"^the node \S+ has vsc-engine \S+, the command is of 0\.0\.0; install [^\n]*$"
    ):
        other.call("greet", "x")


@pytest.mark.parametrize("k", [37, 10**6])
def test_the_search_of_rows_is_that_of_one_process_also_where_scores_are_equal(actors: RayActors, k: int) -> None:
    rng = np.random.default_rng(k)
    queries = rng.standard_normal((40, 16), dtype=np.float32)
    references = rng.standard_normal((101, 16), dtype=np.float32)
    references[60:90] = references[:30]  # equal rows on two nodes
    queries[::3] = np.round(queries[::3])
    references[::2] = np.round(references[::2])
    found = ClusterSearch(actors)(Rows([queries]), Rows([references[:70], references[70:]]), k=k)
    expected = global_top_k(queries, references, k=k)
    for column, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(column, wanted)
        assert column.dtype == wanted.dtype


def test_fewer_references_than_nodes_and_what_does_not_fit(actors: RayActors) -> None:
    search, rows = ClusterSearch(actors), np.eye(3, dtype=np.float32)
    assert search(Rows([rows]), Rows([rows[:1]]), k=2).ref_rows.tolist() == [0, 0]
    with pytest.raises(StoreError, match="queries have 3 dimensions and references 2"):
        search(Rows([rows]), Rows([rows[:, :2]]), k=2)


def test_shares_on_nodes_answer_as_this_process_does_and_see_what_is_added(
    nodes: Any, actors: RayActors, folder: Path, tmp_path: Path
) -> None:
    here, remote = Catalog.open(folder), Catalog.open(folder, cluster=nodes.address)
    assert [remote.match_descriptors(query) for query in QUERIES] == [
        here.match_descriptors(query) for query in QUERIES
    ]
    late = video("late", 30)
    here.add([npz(tmp_path / "late.npz", late)])
    answer = remote.match_descriptors(copy_of(late, "q"))
    assert answer.candidates[0].ref_id == "late"
    assert answer == here.match_descriptors(copy_of(late, "q"))
    for share in folder.glob("share-*"):
        (share / "rows.lance").rename(share / "elsewhere")
    reason = r"^the table \S*/share-\S+/rows.lance is damaged: [^\n]*$"
    with pytest.raises(StoreError, match=reason):
        remote.match_descriptors(replace(QUERIES[0], gate="stopped_rows_kept"))


@pytest.mark.long
def test_match_gives_what_it_gives_without_a_cluster(nodes: Any, folder: Path, run_cli: RunCli, tmp_path: Path) -> None:
    write_video(tmp_path / "upload.mp4", moving_frames(20, seed=1), fps=5)
    with Catalog.open(folder) as here:
        expected = here.match(tmp_path / "upload.mp4")
    arguments = ["catalog", "match", folder, tmp_path / "upload.mp4", "--all", "--cluster", nodes.address]
    found = run_cli(*arguments, process=True)
    answer, total = (json.loads(line) for line in found.stdout.splitlines())
    assert [pair["ref_id"] for pair in answer["candidates"]] == [pair.ref_id for pair in expected.candidates]
    assert [pair["score"] for pair in answer["candidates"]] == [pair.score for pair in expected.candidates]
    assert total["num_failures"] == 0


@pytest.mark.long
def test_a_match_that_is_stopped_ends_as_without_a_cluster_and_leaves_nothing(
    nodes: Any, folder: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / "uploads").mkdir()
    write_video(tmp_path / "upload.mp4", moving_frames(20, seed=1), fps=5)
    for number in range(30):  # it is still at them when it has told of the first
        shutil.copy(tmp_path / "upload.mp4", tmp_path / "uploads" / f"{number}.mp4")
    pages = tmp_path / "pages"
    pages.mkdir()
    wait_until(lambda: hosts_of_shares(nodes) == set(), limit_s=120)  # those of the test before may still be ending
    report = ("--report", pages / "page.html")
    for number in (signal.SIGTERM, signal.SIGINT):
        statuses = []
        for where in ((), ("--cluster", nodes.address)):
            arguments = ["catalog", "match", folder, tmp_path / "uploads", *report, *where]
            command = [sys.executable, "-m", "engine", *map(str, arguments)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                first = process.stdout.readline()
                hosts = hosts_of_shares(nodes)
                process.send_signal(number)
                stdout, stderr = process.communicate(timeout=120)
            statuses.append(process.returncode)
            assert 0 < len([json.loads(line) for line in (first + stdout).splitlines()]) < 30, stderr
            assert "Traceback" not in stderr
            assert "received at" not in stderr, "Ray aborts"
            assert [*pages.iterdir()] == []
        assert len(hosts) == 2
        wait_until(lambda: hosts_of_shares(nodes) == set(), limit_s=120)
        assert statuses == [{signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 130}[number]] * 2
    arguments = ["catalog", "match", folder, tmp_path / "upload.mp4", *report, "--cluster", nodes.address]
    assert json.loads(run_cli(*arguments, process=True).stdout.splitlines()[-1])["num_failures"] == 0
    assert [*pages.iterdir()] == [pages / "page.html"]


def hosts_of_shares(nodes: Any) -> set[int]:
    """The processes of actors on all nodes."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()}
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in raylets and (folder / "cmdline").read_bytes().startswith(b"ray::_Host"):
                found.add(int(folder.name))
    return found


@pytest.mark.long
def test_search_gives_what_it_gives_without_a_cluster(nodes: Any, run_cli: RunCli, tmp_path: Path) -> None:
    queries, references = npz(tmp_path / "q.npz", *QUERIES[:4]), npz(tmp_path / "s.npz", *REFERENCES)
    output = tmp_path / "found.jsonl"
    sides = ("--queries", queries, "--references", references)
    run_cli("search", *sides, "--output", output, "--cluster", nodes.address, process=True)
    assert read_candidates(output) == find_candidates(QUERIES[:4], REFERENCES)
    refused = run_cli("search", *sides, "--output", output, "--cluster", "127.0.0.1:1", expect=1, process=True)
    assert refused.stdout == ""
    assert "no Ray cluster answers at" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.long
def test_the_shares_of_a_node_that_dies_are_opened_by_the_other(nodes: Any, actors: RayActors, folder: Path) -> None:
    expected = [Catalog.open(folder).match_descriptors(query) for query in QUERIES]
    remote = Catalog.open(folder, cluster=nodes.address)
    assert [remote.match_descriptors(query) for query in QUERIES] == expected
    kill_node(nodes, next(node for node in nodes.list_all_nodes() if node is not nodes.head_node))
    assert [remote.match_descriptors(query) for query in QUERIES] == expected
