from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.errors import ConfigError, RemoteError, RemoteMissingError
from engine.storage import web
from engine.storage.location import RemotePath, WebAccess
from engine.storage.ranged import held

CONTENT = bytes(range(256)) * 3000


@dataclass
class Site:
    """A web server on loopback that serves `CONTENT` as ``mode`` says."""

    port: int = 0
    mode: str = "ranges"
    etag: str = '"one"'
    content: bytes = CONTENT
    redirects_to: str = ""
    num_failures: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)

    def path(self, name: str = "a%20b.mp4?sign=secret", *, host: str = "127.0.0.1", **access: object) -> RemotePath:
        return RemotePath(f"http://{host}:{self.port}/{name}", WebAccess(**{"allow_private": True, **access}))  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, asked = self.server.site, self.headers.get("Range")
        site.requests.append((self.path, asked))
        if site.num_failures:
            site.num_failures -= 1
            self._answer(503, b"busy")
        elif self.path.startswith("/redirect"):
            self._answer(302, b"", Location=site.redirects_to)
        elif site.mode.isdigit():
            self._answer(int(site.mode), b"no")
        elif site.mode == "silent":
            site.end.wait(20)
        elif self.headers.get("If-Match") not in (None, site.etag):
            self._answer(412, b"")
        elif site.mode in ("ranges", "drip") and asked:
            start, stop = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            part = site.content[start : stop + 1]
            where = f"bytes {start}-{start + len(part) - 1}/{len(site.content)}"
            self._answer(206, part, **{"Content-Range": where})
        else:
            self._answer(200, site.content)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        site = self.server.site
        self.send_response(status)
        for name, value in {"ETag": site.etag, **headers}.items():
            self.send_header(name, value)
        has_size = site.mode != "unsized"
        self.send_header(*("Content-Length", str(len(body))) if has_size else ("Connection", "close"))
        self.end_headers()
        if site.mode == "drip" and len(body) > 1:
            for byte in body:
                self.wfile.write(bytes([byte]))
                if site.end.wait(0.1):
                    return
        self.wfile.write(body[: len(body) // 2] if site.mode == "cut" else body)
        self.close_connection = self.close_connection or site.mode in ("unsized", "cut")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are none."""


@pytest.fixture
def site() -> Iterator[Site]:
    server = Server(("127.0.0.1", 0), Handler)
    server.site = Site(server.server_port)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.site
    server.site.end.set()
    server.shutdown()
    server.server_close()


def read(path: RemotePath) -> bytes:
    with held(path) as opened:
        return opened.read_bytes()


def refused(path: RemotePath) -> str:
    with pytest.raises(RemoteError) as error:
        read(path)
    text = str(error.value)
    assert "\n" not in text
    assert "secret" not in text
    return text


def test_ranges_are_read_of_a_server_that_has_them(site: Site) -> None:
    with held(site.path()) as opened:
        reader = opened.file.reader()
        reader.seek(700_000)
        assert reader.read(500) == CONTENT[700_000:700_500]
        assert opened.file.traffic.size_bytes == len(CONTENT)
        assert opened.file.traffic.read_bytes < 100_000
        assert opened.read_bytes() == CONTENT
    assert {path for path, _ in site.requests} == {"/a%20b.mp4?sign=secret"}


@pytest.mark.parametrize("mode", ["whole", "unsized"])
def test_a_server_without_ranges_is_read_once(site: Site, mode: str) -> None:
    site.mode = mode
    with held(site.path()) as opened:
        reader = opened.file.reader()
        reader.seek(-10, 2)
        assert reader.read(10) == CONTENT[-10:]
        assert opened.read_bytes() == CONTENT
        assert opened.file.traffic.read_bytes == len(CONTENT)
    assert len(site.requests) == 1


def test_without_being_asked_for_the_web_is_not_read(site: Site) -> None:
    assert "--allow-http" in refused(RemotePath(site.path().url))
    assert site.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"])  # noqa: S104
def test_addresses_that_are_not_public_are_not_connected_to(site: Site, host: str) -> None:
    said = refused(site.path(host=host, allow_private=False))
    assert "which is no public address; --allow-private-addresses" in said or "cannot be reached" in said
    assert site.requests == []


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        *[(text, False) for text in (
            "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "100.64.0.1", "0.0.0.0",  # noqa: S104
            "224.0.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
            "ff02::1", "::",
        )],
        *[(text, True) for text in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808")],
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, is_public: bool) -> None:
    assert web.is_public(address) == is_public


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers with a public address first, and then with loopback, gains nothing."""
    asked = []

    def resolve(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        address = "192.0.2.1" if host == "rebinding.example" and len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(web, "is_public", lambda address: address == "192.0.2.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    said = refused(site.path(host="rebinding.example", allow_private=False))
    assert connected == ["192.0.2.1"]
    assert "127.0.0.1, which is no public address" in said  # the second try, checked anew


def test_redirects_are_followed_by_the_same_rules(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.redirects_to = f"http://127.0.0.1:{site.port}/there.mp4"
    assert read(site.path("redirect")) == CONTENT
    assert [path for path, _ in site.requests][:2] == ["/redirect", "/there.mp4"]
    assert all(path == "/there.mp4" for path, _ in site.requests[1:])
    # The first host counts as public here, the one that it leads to does not.
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    site.redirects_to = f"http://127.0.0.2:{site.port}/inside"
    site.requests.clear()
    assert "127.0.0.2, which is no public address" in refused(site.path("redirect", allow_private=False))
    assert [path for path, _ in site.requests] == ["/redirect"]
    for target, said in (("file:///etc/passwd", "leads to file URL"), ("/redirect", "redirected more than 5 times")):
        site.redirects_to = target
        assert said in refused(site.path("redirect"))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("403", "access is denied, or the signed URL has expired (the server answered 403"),
        ("404", "no such file"),
        ("500", "the server answered 500"),
        ("418", "the server answered 418"),
        ("416", "the file is empty"),
        ("cut", "bytes"),
    ],
)
def test_what_a_server_refuses_is_one_line(site: Site, monkeypatch: pytest.MonkeyPatch, mode: str, said: str) -> None:
    monkeypatch.setattr(web, "_FIRST_PAUSE_S", 0.0)
    site.mode = mode
    assert said in refused(site.path())
    if mode == "404":
        with pytest.raises(RemoteMissingError):
            read(site.path())


def test_a_server_that_is_busy_is_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_FIRST_PAUSE_S", 0.0)
    site.num_failures = 3
    assert read(site.path()) == CONTENT


@pytest.mark.parametrize("mode", ["ranges", "whole", "unsized"])
def test_a_file_that_is_too_large_is_not_read(site: Site, mode: str) -> None:
    site.mode = mode
    said = refused(site.path(max_bytes=400_000))
    assert "more than the 400000 that are read from the web" in said


@pytest.mark.parametrize("mode", ["silent", "drip"])
def test_a_server_that_is_too_slow_is_left(site: Site, mode: str) -> None:
    site.mode = mode
    start_s = time.monotonic()
    said = refused(site.path(timeout_s=0.5, min_bytes_per_s=10_000_000))
    assert "did not answer within" in said or "too slow" in said
    assert time.monotonic() - start_s < 15  # it would take hours


@pytest.mark.parametrize(
    "change", [{"etag": '"two"'}, {"etag": 'W/"weak"'}, {"content": CONTENT[:-1]}, {"mode": "whole"}]
)
def test_a_file_that_changes_while_it_is_read_is_refused(site: Site, change: dict[str, object]) -> None:
    with held(site.path()) as opened:
        reader = opened.file.reader()
        assert reader.read(10) == CONTENT[:10]
        before = {name: getattr(site, name) for name in change}
        vars(site).update(change)
        reader.seek(600_000)
        with pytest.raises(RemoteError, match="changed while it was read"):
            reader.read(10)
        vars(site).update(before)


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1/x", "http:///x", "http://127.0.0.1:x/"])
def test_urls_that_are_none_are_refused(url: str) -> None:
    assert "hunter2" not in refused(RemotePath(url, WebAccess(allow_private=True)))


def test_nothing_is_written_or_listed(site: Site) -> None:
    path = site.path()
    for act in (lambda: list(path.below()), path.unlink, lambda: path.create(b"")):
        with pytest.raises(ConfigError, match=r"^http://127.0.0.1:\d+/a%20b.mp4: "):
            act()  # type: ignore[no-untyped-call]
