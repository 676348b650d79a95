"""A service over a catalogue with its rows in Milvus: answers as over a folder, and what it says without Milvus."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.catalog.catalog import Catalog
from tests.catalogs import contents
from tests.end_to_end.conftest import FPS, Catalogue, RunCli, montage
from tests.milvus_servers import running_milvus
from tests.services import serving, without_time
from tests.videos import write_video

pytestmark = pytest.mark.long


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An upload that shows most of N3."""
    write_video(tmp_path / "copy.mp4", montage(203)[2 * FPS :], fps=FPS)
    return tmp_path / "copy.mp4"


def test_answers_are_those_of_a_folder_while_videos_come_and_go(
    copy: Path, catalogue: Catalogue, tiny_engines: Path, milvus: str, run_cli: RunCli, tmp_path: Path
) -> None:
    with Catalog.create(tmp_path / "local", engines=tiny_engines) as local:
        local.add([catalogue.norm_set])
    folder = tmp_path / "in_milvus"
    Catalog.create(folder, engines=tiny_engines, milvus=milvus).add([local.folder])
    expected = json.loads(run_cli("catalog", "match", local.folder, copy, "--all").stdout.splitlines()[0])
    with serving(folder) as server:
        assert server.ask("GET", "/readyz").status == 200
        assert server.ask("GET", "/v1/status").body["num_videos"] == 6
        with ThreadPoolExecutor(3) as pool:
            replies = list(pool.map(lambda _: server.post_file("/v1/match?all=true", copy), range(3)))
        assert [without_time(reply.body) for reply in replies] == [without_time(expected)] * 3
        added = server.post_file("/v1/videos?id=late", copy)
        assert (added.status, added.body["outcome"]) == (201, "added")
        assert server.post_file("/v1/videos?id=late", copy).body["outcome"] == "kept"
        answer = server.post_file("/v1/match", copy).body
        assert [found["ref_id"] for found in answer["duplicates"]] == ["late"]
        assert server.ask("DELETE", "/v1/videos/late").status == 200
        assert server.ask("DELETE", "/v1/videos/late").status == 404
        assert without_time(server.post_file("/v1/match?all=true", copy).body) == without_time(expected)
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text(encoding="utf-8")
    assert Catalog.open(folder).verify().problems == ()
    assert contents(Catalog.open(folder)) == contents(local)


def test_a_server_that_goes_and_comes_back(
    tmp_path: Path, tiny_engines: Path, catalogue: Catalogue, copy: Path
) -> None:
    folder = tmp_path / "catalogue"
    with ExitStack() as stack:
        with running_milvus(tmp_path / "server") as uri:
            with Catalog.create(folder, engines=tiny_engines, milvus=uri) as made:
                made.add([catalogue.norm_set / "N3.mp4"])
            server = stack.enter_context(serving(folder))
        for reply in (
            server.ask("GET", "/readyz"),
            server.post_file("/v1/match", copy),
            server.post_file("/v1/videos", copy),
        ):
            assert reply.status == 503, reply
            assert reply.body["error"] == f"Milvus at {uri} does not answer; is it running, and is that its address?"
        assert server.ask("GET", "/healthz").status == 200
        with running_milvus(tmp_path / "server", port=int(uri.rpartition(":")[2])):
            assert server.ask("GET", "/readyz").status == 200
            answer = server.post_file("/v1/match?all=true", copy)
            assert answer.status == 200, answer
            assert answer.body["matches"][0]["ref_id"] == "N3"
            assert server.post_file("/v1/videos", copy).status == 201
