"""Files of the web, such as signed URLs: read in ranges where the server can, else at once; within limits.

A name is resolved once for each connection, its addresses are checked, and the connection goes to one of them, so that
no later answer of a name server leads elsewhere. Redirects are followed by the same rules. No proxy is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

from engine.errors import ConfigError, RemoteError, RemoteMissingError
from engine.storage.location import ObjectInfo, RemotePath, WebAccess

_MAX_REDIRECTS = 5
_MAX_TRIES = 4
_FIRST_PAUSE_S = 0.2
_CHUNK_BYTES = 256 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (429, 500, 502, 503, 504)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CHANGED = "it changed while it was read; read it again when it is complete"


class _TryAgainError(Exception):
    """A failure that may be gone at once."""


def stat(path: RemotePath) -> ObjectInfo:
    """Size and version of a file. Raises ``RemoteError``."""
    source = WebSource(path)
    source.close()
    return source.info


def read_bytes(path: RemotePath) -> bytes:
    """The whole file. Raises ``RemoteError``."""
    source = WebSource(path)
    try:
        return source.read(0, source.info.size_bytes)
    finally:
        source.close()


def below(path: RemotePath) -> NoReturn:
    """There are no listings in the web. Raises ``ConfigError``."""
    raise ConfigError(f"{path}: a URL of the web is one file; name each")


def upload(local: Path, path: RemotePath) -> NoReturn:  # noqa: ARG001
    """Nothing is written to the web. Raises ``ConfigError``."""
    _refuse_writing(path)


def download(path: RemotePath, local: Path) -> None:
    """See `RemotePath.download`. Raises ``RemoteError``."""
    local.write_bytes(read_bytes(path))


def create(path: RemotePath, content: bytes) -> NoReturn:  # noqa: ARG001
    """Nothing is written to the web. Raises ``ConfigError``."""
    _refuse_writing(path)


def replace(path: RemotePath, content: bytes, *, expected: bytes | None) -> NoReturn:  # noqa: ARG001
    """Nothing is written to the web. Raises ``ConfigError``."""
    _refuse_writing(path)


def remove(path: RemotePath, *, missing_ok: bool = False) -> NoReturn:  # noqa: ARG001
    """Nothing is written to the web. Raises ``ConfigError``."""
    _refuse_writing(path)


def _refuse_writing(path: RemotePath) -> NoReturn:
    raise ConfigError(f"{path}: files of the web are only read; write to an object store or a folder")


class WebSource:
    """Reads ranges of a file, all of one version; a server that has none is read to the end when this is made.

    Raises ``RemoteError`` where it cannot be read, is larger than allowed, or too slow.
    """

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._access = path.web or _refuse(path)
        self._url = path.url
        self._connection: http.client.HTTPConnection | None = None
        self._whole = tempfile.TemporaryFile(prefix="vsc-engine-")  # noqa: SIM115 - closed by `close`
        self._is_whole = False
        self.num_read_bytes = 0
        self.info = ObjectInfo(0, "")
        try:
            self.info = self._first_answer()
            self._check_version(path.info or self.info)
        except BaseException:
            self.close()
            raise

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of a range that lies inside the file."""
        if self._is_whole:
            return os.pread(self._whole.fileno(), stop - start, start)
        with self._answer(start, stop) as answer:
            if answer.status != HTTPStatus.PARTIAL_CONTENT or self._told(answer) != self.info:
                raise RemoteError(f"{self._path}: {_CHANGED}")
            content = b"".join(self._body(answer, stop - start))
        if len(content) != stop - start:
            raise RemoteError(f"{self._path}: got {len(content)} bytes of a range of {stop - start}; try again")
        return content

    def check_unchanged(self) -> None:
        """Raise ``RemoteError`` if the file has another version now."""
        if not self._is_whole:
            self.read(0, 1)

    def _check_version(self, expected: ObjectInfo) -> None:
        if self.info != expected:
            raise RemoteError(f"{self._path}: {_CHANGED}")

    def close(self) -> None:
        """End reading."""
        self._whole.close()
        self._hang_up()

    def _first_answer(self) -> ObjectInfo:
        with self._answer(0, 1) as answer:
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise RemoteError(f"{self._path}: the file is empty")
            info = self._told(answer)
            if info.size_bytes > self._access.max_bytes:
                raise RemoteError(self._too_large(info.size_bytes))
            if answer.status == HTTPStatus.PARTIAL_CONTENT:
                for _ in self._body(answer, 1):
                    pass
                return info
            for chunk in self._body(answer, info.size_bytes or self._access.max_bytes + 1):
                self._whole.write(chunk)
                if self.num_read_bytes > self._access.max_bytes:
                    raise RemoteError(self._too_large(self.num_read_bytes))
            self._whole.flush()
            self._is_whole = True
            if info.size_bytes not in (0, self.num_read_bytes):
                raise RemoteError(
                    f"{self._path}: the answer ended after {self.num_read_bytes} of {info.size_bytes} bytes; try again"
                )
            return ObjectInfo(self.num_read_bytes, info.version)

    def _told(self, answer: http.client.HTTPResponse) -> ObjectInfo:
        """Size (0 where it is not told) and version as the head of an answer has them."""
        version = answer.getheader("ETag") or answer.getheader("Last-Modified") or ""
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            total = (answer.getheader("Content-Range") or "").rpartition("/")[2]
            if not total.isdigit():
                raise RemoteError(f"{self._path}: the server does not say how large the file is, which ranges need")
            return ObjectInfo(int(total), version)
        length = answer.getheader("Content-Length") or "0"
        return ObjectInfo(int(length) if length.isdigit() else 0, version)

    def _body(self, answer: http.client.HTTPResponse, num_bytes: int) -> Iterator[bytes]:
        while num_bytes > 0 and (chunk := answer.read(min(num_bytes, _CHUNK_BYTES))):
            self.num_read_bytes += len(chunk)
            num_bytes -= len(chunk)
            yield chunk

    @contextmanager
    def _answer(self, start: int, stop: int) -> Iterator[http.client.HTTPResponse]:
        """A good answer, whose body may be read inside the block within the time that its size is given."""
        pause_s = _FIRST_PAUSE_S
        for number in range(1, _MAX_TRIES + 1):
            try:
                answer = self._ask(start, stop)
                break
            except _TryAgainError as error:
                self._hang_up()
                if number == _MAX_TRIES:
                    raise RemoteError(f"{self._path}: {error}, {_MAX_TRIES} times in a row; try later") from error
            time.sleep(pause_s)
            pause_s *= 2
        limit_s = self._access.timeout_s + (answer.length or stop - start) / self._access.min_bytes_per_s
        with _time_limit(self._connection, limit_s) as is_over:
            try:
                yield answer
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if isinstance(error, RemoteError):
                    raise
                if is_over() or isinstance(error, TimeoutError):
                    raise RemoteError(self._too_slow(limit_s)) from error
                raise RemoteError(f"{self._path}: the connection broke ({_said(error)}); try again") from error
        if is_over():  # what was read may be cut short
            raise RemoteError(self._too_slow(limit_s))
        if not answer.isclosed():
            self._hang_up()

    def _ask(self, start: int, stop: int) -> http.client.HTTPResponse:
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._request(url, start, stop)
            if answer.status not in _REDIRECTS:
                self._url = url
                return self._taken(answer)
            target = urljoin(url, answer.getheader("Location") or "")
            self._hang_up()
            if urlsplit(url).scheme == "https" != urlsplit(target).scheme:
                raise RemoteError(f"{self._path}: is redirected from https to {urlsplit(target).scheme or 'nowhere'}")
            url = target
        raise RemoteError(f"{self._path}: is redirected more than {_MAX_REDIRECTS} times")

    def _request(self, url: str, start: int, stop: int) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity", "User-Agent": "vsc-engine"}
        if self.info.version.startswith('"'):
            headers["If-Match"] = self.info.version
        target = re.sub(r"[^!-~]", _escaped, f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
        is_over: Callable[[], bool] = bool
        try:
            if self._connection is None:
                self._connection = _connect(self._path, url, self._access)
            with _time_limit(self._connection, self._access.timeout_s) as is_over:
                self._connection.request("GET", target, headers=headers)
                return self._connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message
            raise RemoteError(f"{self._path}: the server's certificate is not valid ({reason})") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, RemoteError):
                raise
            if is_over() or isinstance(error, TimeoutError):
                reason = f"the server did not answer within {self._access.timeout_s:.0f} s; try later"
                raise RemoteError(f"{self._path}: {reason}") from error
            if isinstance(error, ConnectionError | http.client.HTTPException | ssl.SSLError):
                raise _TryAgainError(f"no connection, or it broke ({_said(error)})") from error
            raise RemoteError(f"{self._path}: cannot be reached ({_said(error)})") from error

    def _taken(self, answer: http.client.HTTPResponse) -> http.client.HTTPResponse:
        """The answer, if it is one to go on with."""
        status = answer.status
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            return answer
        self._hang_up()
        said = f"the server answered {status} {answer.reason}"
        if status in _TRY_AGAIN:
            raise _TryAgainError(said)
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise RemoteMissingError(f"{self._path}: no such file ({said})")
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise RemoteError(f"{self._path}: {_CHANGED}")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise RemoteError(f"{self._path}: access is denied, or the signed URL has expired ({said})")
        raise RemoteError(f"{self._path}: {said}")

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _too_slow(self, limit_s: float) -> str:
        return f"{self._path}: the server is too slow (more than {limit_s:.0f} s); try later"

    def _too_large(self, size_bytes: int) -> str:
        return f"{self._path}: {size_bytes} bytes, more than the {self._access.max_bytes} that are read from the web"


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also where it holds an IPv4 address that does."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _connect(path: RemotePath, url: str, access: WebAccess) -> http.client.HTTPConnection:
    """A connection to the host of a URL, at an address that was checked."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RemoteError(f"{path}: leads to a URL that is none ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise RemoteError(f"{path}: leads to {parts.scheme or 'no'} URL; expected http or https with a host")
    if parts.username is not None:
        raise RemoteError(f"{path}: a URL with a user name or password is not read; use a signed URL")
    port = port or (443 if parts.scheme == "https" else 80)
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    private = [address for address in addresses if not is_public(address)]
    if private and not access.allow_private:
        raise RemoteError(
            f"{path}: leads to {private[0]}, which is no public address; --allow-private-addresses reads from there too"
        )
    connection = http.client.HTTPConnection(host, port, timeout=access.timeout_s)
    connection.sock = _first_that_answers(addresses, port, timeout_s=access.timeout_s)
    if parts.scheme == "https":
        with _time_limit(connection, access.timeout_s):
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
    return connection


def _first_that_answers(addresses: Sequence[str], port: int, *, timeout_s: float) -> socket.socket:
    """A connection to one of these IP addresses. Raises ``OSError``: that of the last one."""
    last = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=timeout_s)
        except OSError as error:
            last = error
    raise last


@contextmanager
def _time_limit(connection: http.client.HTTPConnection | None, limit_s: float) -> Iterator[Callable[[], bool]]:
    """Shut the socket down after ``limit_s``: a timeout of its own counts each packet, however small.

    Yields what tells whether that happened.
    """
    over = threading.Event()
    sock = connection.sock if connection is not None else None

    def end() -> None:
        over.set()
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                return

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield over.is_set
    finally:
        timer.cancel()


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _said(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _refuse(path: RemotePath) -> NoReturn:
    raise RemoteError(f"{path}: the web is not read unless that is asked for; --allow-http does")
