"""A service as a process of its own on a free port, and requests to it as clients send them."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.forked import Forked, run_command_line

_START_S = 120
_BOUNDARY = "a-boundary-that-no-video-holds"


@dataclass(frozen=True)
class Reply:
    """``body``: JSON where it is JSON, else the bytes."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Server:
    """A running service."""

    process: subprocess.Popen[bytes] | Forked
    url: str
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection(*self.address, timeout=120)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return Reply(response.status, dict(response.headers), json.loads(content) if is_json else content)
        finally:
            connection.close()

    def post_file(self, path: str, file: Path, *, name: str | None = None, **options: Any) -> Reply:
        """Send a file as a form does."""
        shown = quote(name or file.name, safe=" <>'&;=()/.")
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}", **options.pop("headers", {})}
        return self.ask("POST", path, body=body, headers=headers, **options)

    def post_json(self, path: str, document: object, **options: Any) -> Reply:
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return self.ask("POST", path, body=json.dumps(document).encode(), headers=headers, **options)

    def begin_upload(self, path: str, content: bytes, *, num_sent: int) -> socket.socket:
        """Send the head of a request and a part of its body; who holds the socket sends the rest, or does not."""
        connection = socket.create_connection(self.address, timeout=120)
        head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:num_sent])
        return connection

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextmanager
def serving(folder: Path, *options: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a service of a catalogue and wait until it is ready; it is killed when the block ends."""
    arguments = _arguments(folder, options)
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "log"
        with (
            log.open("wb") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", "engine", *arguments], stdout=subprocess.PIPE, stderr=stderr, env=env
            ) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, log.read_text(encoding="utf-8")
                yield Server(process, json.loads(line)["url"], log)
            finally:
                process.kill()


@contextmanager
def forked_service(folder: Path, *options: str | Path) -> Iterator[Server]:
    """The same for a process that need not load the libraries."""
    with tempfile.TemporaryDirectory() as temporary:
        stdout, log = Path(temporary) / "stdout", Path(temporary) / "log"
        process = Forked(run_command_line, _arguments(folder, options), stdout, log)
        try:
            end_s = time.monotonic() + _START_S
            while not (stdout.exists() and stdout.read_bytes().endswith(b"\n")):
                assert time.monotonic() < end_s, log.read_text(encoding="utf-8")
                assert process.is_alive(), log.read_text(encoding="utf-8")
                time.sleep(0.02)
            yield Server(process, json.loads(stdout.read_bytes())["url"], log)
        finally:
            process.kill()
            process.wait()


def _arguments(folder: Path, options: Sequence[str | Path]) -> list[str]:
    return ["--log-format", "json", "serve", str(folder), "--port", "0", *map(str, options)]


def reply_on(connection: socket.socket) -> Reply:
    """The answer to a request that was sent by hand."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Reply(response.status, dict(response.headers), json.loads(response.read()))


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer to an upload without what differs from one time to the next."""
    return {key: value for key, value in answer.items() if key not in {"seconds", "report", "path"}}
