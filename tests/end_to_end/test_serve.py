"""A service as its clients meet it: every address, every limit, and what no client may bring about."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from engine.build.engines import build_engines
from engine.catalog.catalog import Catalog
from tests.catalogs import contents
from tests.conftest import MakeOnce
from tests.end_to_end.conftest import FPS, Catalogue, RunCli, footage, montage
from tests.packaged import tiny_preset, write_packaged
from tests.services import Server, forked_service, reply_on, serving, without_time
from tests.videos import write_video
from tests.workers import children, is_alive, wait_until

KEY = "0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {KEY}"}
EVIL = "<img src=x onerror=alert(1)>'.mp4"


def uploads_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.uploads")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def prepared(catalogue: Catalogue, tiny_engines: Path, make_once: MakeOnce) -> Path:
    """A catalogue of six videos, and uploads: ``copy.mp4`` of N3, ``other.mp4``, and files that are no videos."""

    def make(root: Path) -> None:
        (root / "files").mkdir(parents=True)
        with Catalog.create(root / "catalogue", engines=tiny_engines) as made:
            made.add([catalogue.norm_set])
        write_video(root / "files" / "copy.mp4", montage(203)[2 * FPS :], fps=FPS)
        write_video(root / "files" / "other.mp4", footage(17), fps=FPS)
        (root / "files" / "text.mp4").write_bytes(b"this is no video\n" * 500)
        (root / "files" / "empty.mp4").touch()
        whole = (root / "files" / "copy.mp4").read_bytes()
        (root / "files" / "cut.mp4").write_bytes(whole[: len(whole) // 3])

    return make_once("served", make)


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the catalogue that a test may change."""
    shutil.copytree(prepared / "catalogue", tmp_path / "catalogue")
    return tmp_path / "catalogue"


@pytest.fixture(scope="module")
def server(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For tests that change nothing that others look at."""
    folder = tmp_path_factory.mktemp("shared") / "catalogue"
    shutil.copytree(prepared / "catalogue", folder)
    with serving(folder, "--root", prepared / "files", "--max-upload-mb", "2", "--workers", "1") as found:
        yield found


@pytest.mark.parametrize("name", ["copy.mp4", "other.mp4"])
def test_an_answer_is_that_of_the_command_line_however_the_video_comes(
    name: str, server: Server, prepared: Path, run_cli: RunCli
) -> None:
    file = prepared / "files" / name
    printed = json.loads(run_cli("catalog", "match", prepared / "catalogue", file, "--all").stdout.splitlines()[0])
    by_form = server.post_file("/v1/match?all=true", file)
    by_path = server.post_json("/v1/match?all=true", {"path": str(file)})
    by_name = server.post_json("/v1/match?all=true", {"path": name})
    raw = server.ask("POST", f"/v1/match?all=true&id={file.stem}", body=file.read_bytes())
    for reply in (by_form, by_path, by_name, raw):
        assert reply.status == 200, reply
        assert without_time(reply.body) == without_time(printed)
        assert reply.body["seconds"] > 0
        assert reply.body["report"] is None
    assert [reply.body["path"] for reply in (by_form, by_path, raw)] == [name, str(file), file.stem]
    assert printed["candidates"]
    assert list(printed) == [key for key in by_form.body if key != "report"]


def test_the_same_bytes_are_named(server: Server, catalogue: Catalogue) -> None:
    reply = server.post_file("/v1/match", catalogue.norm_set / "N3.mp4", name="another name.mp4")
    assert reply.body["verdict"] == "copy"
    assert reply.body["query_id"] == "another name"
    assert [found["ref_id"] for found in reply.body["duplicates"]] == ["N3"]


def test_a_report_is_a_page_behind_an_address_that_cannot_be_guessed(server: Server, catalogue: Catalogue) -> None:
    file = catalogue.norm_set / "N3.mp4"
    address = server.post_file("/v1/match?report=true", file, name=EVIL).body["report"]
    page = server.ask("GET", address)
    assert page.status == 200
    assert "sandbox" in page.headers["content-security-policy"]
    text = page.body.decode()
    assert text.count('<img src="data:image/jpeg') >= 8
    assert "<img src=x" not in text
    assert "incoming" not in text, "it tells where uploads lie"
    assert server.ask("GET", "/v1/reports/" + "A" * 22).status == 404
    assert server.ask("GET", "/v1/reports/..%2f.lock").status == 404


@pytest.mark.long
def test_videos_come_and_go(folder: Path, prepared: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name in ("copy.mp4", "other.mp4"):
        shutil.copy(prepared / "files" / name, tmp_path)
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    with forked_service(folder, "--root", tmp_path) as server:
        assert [video["video_id"] for video in server.ask("GET", "/v1/videos").body["videos"]] == [
            f"N{number}" for number in range(6)
        ]
        first = server.ask("GET", "/v1/videos?limit=4").body
        rest = server.ask("GET", f"/v1/videos?limit=4&after={first['next']}").body
        assert (len(first["videos"]), len(rest["videos"]), rest["next"]) == (4, 2, None)
        added = server.post_file(f"/v1/videos?id={quote('clips/ünïcode')}", copy)
        assert (added.status, added.body["outcome"]) == (201, "added")
        kept_path = Path(added.body["video"]["path"])
        assert kept_path.read_bytes() == copy.read_bytes()
        address = f"/v1/videos/{quote('clips/ünïcode', safe='')}"
        assert server.ask("GET", address).body == added.body["video"]
        duplicates = server.post_file("/v1/match", copy).body["duplicates"]
        assert [found["ref_id"] for found in duplicates] == ["clips/ünïcode"]
        again = server.post_file(f"/v1/videos?id={quote('clips/ünïcode')}", copy)
        assert (again.status, again.body["outcome"], again.body["video"]) == (200, "kept", added.body["video"])
        conflict = server.post_file(f"/v1/videos?id={quote('clips/ünïcode')}", other)
        assert conflict.status == 409
        assert "has other contents" in conflict.body["error"]
        assert server.post_file("/v1/videos?id=N3", other).status == 409
        by_path = server.post_json("/v1/videos", {"path": str(other)})
        assert (by_path.status, by_path.body["video"]["video_id"]) == (201, "other")
        assert by_path.body["video"]["path"] == str(other)
        assert server.post_json("/v1/videos", {"path": str(other)}).body["outcome"] == "kept"
        shutil.copy(copy, other)
        replaced = server.post_json("/v1/videos", {"path": str(other)})
        assert (replaced.status, replaced.body["outcome"]) == (200, "replaced")
        assert server.ask("DELETE", address).body["video_id"] == "clips/ünïcode"
        assert not kept_path.exists(), "the file of a video that was sent goes with it"
        assert server.ask("DELETE", "/v1/videos/other").status == 200
        assert other.exists(), "a file that was named is the user's"
        for method in ("GET", "DELETE"):
            unknown = server.ask(method, address)
            assert unknown.status == 404
            assert "has no video 'clips/ünïcode'" in unknown.body["error"]
        assert server.post_file("/v1/match", copy).body["duplicates"] == []
        assert server.stop() == 0
    run_cli("catalog", "verify", folder)
    assert sorted(contents(Catalog.open(folder))) == [f"N{number}" for number in range(6)]
    assert files_below(uploads_of(folder)) == [uploads_of(folder) / ".lock"]


def test_bad_files_cost_one_line_and_no_other_upload(server: Server, prepared: Path) -> None:
    before = server.post_file("/v1/match?all=true", prepared / "files" / "copy.mp4").body
    replies: dict[str, Any] = {}

    def send(name: str) -> None:
        replies[name] = server.post_file("/v1/match?all=true", prepared / "files" / name)

    names = ["text.mp4", "copy.mp4", "empty.mp4", "cut.mp4", "other.mp4"]
    threads = [threading.Thread(target=send, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("text.mp4", "empty.mp4", "cut.mp4"):
        assert replies[name].status == 422, replies[name]
        assert list(replies[name].body) == ["error"]
        assert "\n" not in replies[name].body["error"]
        assert "incoming" not in replies[name].body["error"]
    assert "text.mp4" in replies["text.mp4"].body["error"]
    assert "0 bytes" in replies["empty.mp4"].body["error"]
    assert without_time(replies["copy.mp4"].body) == without_time(before)
    assert replies["other.mp4"].status == 200
    for name in ("text.mp4", "cut.mp4", "empty.mp4"):
        assert server.post_file("/v1/videos", prepared / "files" / name).status == 422
    assert server.ask("GET", "/v1/videos").body["num_videos"] == 6


REFUSED = {
    "no such address": ("GET", "/v2/match", None, {}, 404, "Not Found"),
    "wrong method": ("PUT", "/v1/match", None, {}, 405, "Method Not Allowed"),
    "no JSON": ("POST", "/v1/match", b"{", {"Content-Type": "application/json"}, 400, "Invalid JSON"),
    "other JSON": ("POST", "/v1/match", b'{"file": 1}', {"Content-Type": "application/json"}, 400, "Field required"),
    "a form without a boundary": ("POST", "/v1/match", b"x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
    "a form without a file": (
        "POST", "/v1/match", b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "no file in"
    ),
    "no body": ("POST", "/v1/match", None, {}, 422, "0 bytes"),
    "an empty id": ("POST", "/v1/videos?id=", b"x", {}, 400, "id: "),
    "an id that is no text": ("POST", "/v1/videos?id=caf%E9", b"x", {}, 400, "not UTF-8"),
    "an address that is no text": ("DELETE", "/v1/videos/caf%E9", None, {}, 400, "not UTF-8"),
    "no number": ("GET", "/v1/videos?limit=many", None, {}, 400, "limit: "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_every_error_is_json_with_one_line(case: str, server: Server) -> None:
    method, path, body, headers, status, words = REFUSED[case]
    reply = server.ask(method, path, body=body, headers=headers)
    assert (reply.status, list(reply.body)) == (status, ["error"]), reply
    assert words in reply.body["error"]
    assert "\n" not in reply.body["error"]


OUTSIDE = ["../catalogue/catalog.json", "/etc/passwd", "/etc/no such file", "link.mp4", "sub/../../x", "folder/x.mp4"]


@pytest.mark.parametrize("named", OUTSIDE)
def test_no_path_leads_out_of_the_roots(named: str, server: Server, prepared: Path) -> None:
    for link, target in (("link.mp4", "/etc/passwd"), ("folder", "/etc")):
        if not (prepared / "files" / link).is_symlink():
            (prepared / "files" / link).symlink_to(target)
    for path in ("/v1/match", "/v1/videos"):
        reply = server.post_json(path, {"path": named})
        assert reply.status == 403, reply
        assert "outside the folders" in reply.body["error"]


@pytest.mark.parametrize(
    ("named", "status"),
    [("missing.mp4", 404), (".", 400), ("pipe", 400), ("a\0b", 400), ("\ud800", 400), ("x" * 5000, 400)],
)
def test_what_is_no_file_below_a_root_is_refused(named: str, status: int, server: Server, prepared: Path) -> None:
    if not (prepared / "files" / "pipe").exists():
        os.mkfifo(prepared / "files" / "pipe")
    assert server.post_json("/v1/match", {"path": named}).status == status


def test_without_roots_no_path_is_opened(folder: Path, prepared: Path) -> None:
    with forked_service(folder) as server:
        reply = server.post_json("/v1/match", {"path": str(prepared / "files" / "copy.mp4")})
    assert reply.status == 403
    assert "without --root" in reply.body["error"]


def test_a_large_upload_is_refused_before_it_is_read(server: Server) -> None:
    connection = server.begin_upload("/v1/match", b"", num_sent=0)
    connection.close()
    with socket.create_connection(server.address, timeout=60) as connection:
        size = 5 * 1000**3
        connection.sendall(f"POST /v1/match HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        reply = reply_on(connection)
    assert reply.status == 413
    assert "larger than 2 MB" in reply.body["error"]


def test_a_large_upload_without_a_length_is_cut_off(server: Server) -> None:
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(b"POST /v1/match HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n" % 100_000 + b"\0" * 100_000 + b"\r\n"
        for _ in range(21):
            connection.sendall(chunk)
        assert reply_on(connection).status == 413


def test_a_client_that_goes_away_leaves_nothing(server: Server, prepared: Path) -> None:
    content = (prepared / "files" / "copy.mp4").read_bytes()
    for path in ("/v1/match", "/v1/videos?id=gone"):
        connection = server.begin_upload(path, content, num_sent=len(content) // 2)
        wait_until(lambda: server.ask("GET", "/v1/status").body["waiting"] == 1)
        connection.close()
        wait_until(lambda: server.ask("GET", "/v1/status").body["waiting"] == 0)
    assert server.ask("GET", "/v1/videos/gone").status == 404
    assert server.post_file("/v1/match", prepared / "files" / "copy.mp4").status == 200


def test_more_than_the_queue_holds_is_told_to_come_back(folder: Path, prepared: Path) -> None:
    content = (prepared / "files" / "copy.mp4").read_bytes()
    with forked_service(folder, "--workers", "1", "--queue", "1") as server:
        begun = [server.begin_upload("/v1/match", content, num_sent=100) for _ in range(2)]
        wait_until(lambda: server.ask("GET", "/v1/status").body["waiting"] == 2)
        refused = server.ask("POST", "/v1/match", body=content)
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert server.ask("GET", "/healthz").status == 200
        assert server.ask("DELETE", "/v1/videos/N5").status == 200, "changes have a queue of their own"
        for connection in begun:
            connection.sendall(content[100:])
            assert reply_on(connection).status == 200
            connection.close()
        assert server.ask("POST", "/v1/match", body=content).status == 200


def test_what_takes_too_long_is_ended(folder: Path, prepared: Path) -> None:
    with forked_service(folder, "--workers", "1", "--timeout", "0.01") as server:
        before = children(server.process.pid)
        for _ in range(2):
            reply = server.post_file("/v1/match", prepared / "files" / "copy.mp4")
            assert reply.status == 504
            assert "time limit" in reply.body["error"]
        wait_until(lambda: not any(is_alive(pid) for pid in before))
        assert server.ask("GET", "/readyz").status == 200
        assert files_below(uploads_of(folder) / "incoming") == []


def long_video(path: Path) -> Path:
    write_video(path, [frame for seed in range(12) for frame in footage(900 + seed)], fps=FPS)
    return path


def test_an_upload_outlives_the_process_that_reads_it(folder: Path, tmp_path: Path) -> None:
    """Whatever ends a process that reads files, the service goes on, and another process tries once more."""
    file = long_video(tmp_path / "long.mp4")
    with forked_service(folder, "--workers", "1") as server:
        expected = server.post_file("/v1/match?all=true", file)
        replies: list[Any] = []
        sender = threading.Thread(target=lambda: replies.append(server.post_file("/v1/match?all=true", file)))
        sender.start()
        wait_until(lambda: server.ask("GET", "/v1/status").body["running"] == 1)
        for pid in children(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        sender.join()
        assert replies[0].status == 200
        assert without_time(replies[0].body) == without_time(expected.body)


def test_sigterm_finishes_what_was_begun_and_refuses_what_comes(folder: Path, prepared: Path) -> None:
    content = (prepared / "files" / "copy.mp4").read_bytes()
    with forked_service(folder, "--workers", "1") as server:
        begun = server.begin_upload("/v1/videos?id=late", content, num_sent=len(content) // 2)
        wait_until(lambda: server.ask("GET", "/v1/status").body["waiting"] == 1)
        server.process.send_signal(signal.SIGTERM)

        def is_closed() -> bool:
            try:
                socket.create_connection(server.address, timeout=10).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(is_closed)
        begun.sendall(content[len(content) // 2 :])
        assert reply_on(begun).status == 201
        assert server.process.wait(60) == 0
        lines = [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["message"] == "stopped"
    assert "late" in contents(Catalog.open(folder))


def test_a_kill_in_the_middle_of_uploads_leaves_the_catalogue_whole(
    folder: Path, prepared: Path, run_cli: RunCli
) -> None:
    content = (prepared / "files" / "copy.mp4").read_bytes()
    with forked_service(folder, "--workers", "1") as server:
        workers = children(server.process.pid)
        paths = ("/v1/match", "/v1/videos?id=half")
        begun = [server.begin_upload(path, content, num_sent=len(content) // 2) for path in paths]
        form = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.mp4"\r\n\r\n' + content + b"\r\n--b--\r\n"
        )
        assert server.ask("POST", "/v1/videos?id=whole", body=content).status == 201
        begun.append(server.begin_upload("/v1/videos?id=form", form, num_sent=len(form) // 2))
        wait_until(lambda: server.ask("GET", "/v1/status").body["waiting"] == 3)
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in workers))
    run_cli("catalog", "verify", folder)
    assert sorted(contents(Catalog.open(folder))) == [*(f"N{number}" for number in range(6)), "whole"]
    with forked_service(folder, "--workers", "1") as server:
        assert files_below(uploads_of(folder) / "incoming") == []
        assert server.ask("POST", "/v1/videos?id=half", body=content).status == 201


def test_only_those_with_a_key_are_answered(folder: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# of the team\n{'f' * 32}\n{KEY}\n")
    with forked_service(folder, "--api-key-file", tmp_path / "keys", "--host", "0.0.0.0") as server:  # noqa: S104
        for headers in ({}, {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": f"Basic {KEY}"}):
            for method, path in (("GET", "/v1/videos"), ("GET", "/metrics"), ("DELETE", "/v1/videos/N0")):
                refused = server.ask(method, path, headers=headers)
                assert refused.status == 401, (path, headers)
                assert "API key" in refused.body["error"]
            assert server.post_file("/v1/match", prepared / "files" / "copy.mp4", headers=headers).status == 401
        for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json"):
            assert server.ask("GET", path).status == 200
        assert server.ask("GET", "/v1/videos", headers=BEARER).body["num_videos"] == 6
        assert server.post_file("/v1/match", prepared / "files" / "copy.mp4", headers=BEARER).status == 200
        assert KEY not in server.log.read_text(encoding="utf-8")


def test_pages_of_others_cannot_use_a_service_without_keys(server: Server) -> None:
    host = server.url.removeprefix("http://")
    assert server.ask("GET", "/v1/videos", headers={"Origin": f"http://{host}"}).status == 200
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}, {"Origin": "null"}):
        assert server.ask("DELETE", "/v1/videos/N0", headers=headers).status == 403


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "without API keys"),  # noqa: S104
        (["--host", "no.such.host.example"], "cannot listen on"),
        (["--root", "missing"], "not a folder"),
        (["--api-key-file", "short"], "fewer than 16 characters"),
        (["--api-key-file", "none"], "holds no API key"),
    ],
)
def test_a_service_that_cannot_begin_says_why(
    options: list[str], words: str, folder: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    (tmp_path / "short").write_text("secret\n")
    (tmp_path / "none").write_text("# to be filled in\n")
    result = run_cli("serve", folder, *options, expect=1, cwd=tmp_path)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_port_or_folder_in_use_is_named(server: Server, folder: Path, tmp_path: Path, run_cli: RunCli) -> None:
    port = str(server.address[1])
    assert f"port {port} of 127.0.0.1 is in use" in run_cli("serve", folder, "--port", port, expect=1).stderr
    with forked_service(folder):
        assert "another service uses" in run_cli("serve", folder, "--port", "0", expect=1).stderr


def test_engines_other_than_those_of_the_catalogue_are_refused(folder: Path, tmp_path: Path, run_cli: RunCli) -> None:
    others = tmp_path / "engines"
    build_engines(tiny_preset(), others, packaged=write_packaged(tmp_path / "packaged", seed=1))
    result = run_cli("serve", folder, "--engines", others, "--port", "0", expect=1)
    assert "cannot be compared with those of the catalogue" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_uploads_are_answered_while_another_process_adds(folder: Path, prepared: Path, catalogue: Catalogue) -> None:
    copy = prepared / "files" / "copy.mp4"
    with forked_service(folder) as server, Catalog.open(folder) as writer:
        writer.remove(["N3"])
        assert "N3" not in [found["ref_id"] for found in server.post_file("/v1/match?all=true", copy).body["matches"]]
        writer.add([catalogue.norm_set])
        assert server.post_file("/v1/match?all=true", copy).body["matches"][0]["ref_id"] == "N3"
        with writer._writing():
            busy = server.post_file("/v1/videos", copy)
            assert (busy.status, "retry-after" in busy.headers) == (503, True)
            assert "another process is writing" in busy.body["error"]
            assert server.post_file("/v1/match", copy).status == 200
        assert files_below(uploads_of(folder) / "videos") == []


def test_counts_for_prometheus(folder: Path, prepared: Path) -> None:
    with forked_service(folder) as server:
        before = server.ask("GET", "/metrics").body.decode()
        assert 'vsc_engine_failures_total{reason="file"} 0.0' in before  # or Prometheus would not see the first
        assert 'vsc_engine_verdicts_total{verdict="copy"} 0.0' in before
        verdict = server.post_file("/v1/match", prepared / "files" / "copy.mp4").body["verdict"]
        server.post_file("/v1/match", prepared / "files" / "text.mp4")
        server.post_file("/v1/videos", prepared / "files" / "copy.mp4")
        text = server.ask("GET", "/metrics").body.decode()
    found = dict(re.findall(r"^vsc_engine_(\S+) (\S+)$", text, flags=re.MULTILINE))
    assert found['uploads_total{kind="match"}'] == "2.0"
    assert found['uploads_total{kind="add"}'] == "1.0"
    assert found['failures_total{reason="file"}'] == "1.0"
    assert found[f'verdicts_total{{verdict="{verdict}"}}'] == "1.0"
    assert found['requests_total{endpoint="/v1/match",status="422"}'] == "1.0"
    assert found["queue_length"] == "0.0"
    assert found["catalog_videos"] == "7.0"
    assert found["answer_seconds_count"] == "1.0"
    assert float(found['stage_seconds_total{stage="decode"}']) > 0


def test_the_addresses_are_described_with_examples(server: Server, prepared: Path) -> None:
    schema = server.ask("GET", "/openapi.json").body
    answer = schema["paths"]["/v1/match"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    real = server.post_file("/v1/match?all=true", prepared / "files" / "copy.mp4").body
    assert answer.keys() == real.keys()
    assert answer["matches"][0].keys() == real["matches"][0].keys()
    assert answer["candidates"][0].keys() == real["candidates"][0].keys()
    assert set(schema["paths"]["/v1/match"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data", "application/octet-stream", "application/json"
    }  # fmt: skip


def test_each_line_of_the_log_is_an_object(server: Server) -> None:
    server.ask("GET", "/v1/videos/not%0athere")
    wait_until(lambda: "not\\nthere" in server.log.read_text(encoding="utf-8"))  # written after the answer is sent
    lines = [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]
    (asked,) = [line for line in lines if line.get("path") == "/v1/videos/not\nthere"]
    assert (asked["status"], asked["method"], asked["level"], asked["client"]) == (404, "GET", "info", "127.0.0.1")
