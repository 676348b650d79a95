"""A place that is read or written: a path of this machine, or a URL. The one type for both; opens nothing itself."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

from engine.console import as_utf8
from engine.errors import ConfigError, RemoteMissingError

if TYPE_CHECKING:
    from types import ModuleType

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MANGLED = re.compile(r"(s3a?|gs|gcs|az|abfss?|https?):/[^/]")
_WEB = ("http", "https")
_SECRETS = re.compile(r"(?<=://)[^/?#]*@|[?#].*", re.DOTALL)


@dataclass(frozen=True)
class WebAccess:
    """What URLs of the web may do: given where reading from the web was asked for.

    ``allow_private``: also addresses that are not public (loopback, private networks, link-local). ``max_bytes``: of
    one file. ``timeout_s``: for an answer, and a second more for each ``min_bytes_per_s`` that it carries.
    """

    allow_private: bool = False
    max_bytes: int = 16 << 30
    timeout_s: float = 30.0
    min_bytes_per_s: int = 64 << 10


@dataclass(frozen=True)
class ObjectInfo:
    """Bytes of an object, and what stands for them: its etag or version."""

    size_bytes: int
    version: str


class RemotePath:
    """An object, or a prefix of objects, as a path: has the methods of ``pathlib.Path`` that are used here.

    Never changed; equal where ``url`` is. As text one of the web has no query, which signs it, and no password.
    ``web``: None where the web is not to be read. ``info``: as a listing told it; what is read later must be of that
    version.

    The methods that read raise ``RemoteError``, and its ``RemoteMissingError``, which is a ``FileNotFoundError``.
    """

    def __init__(self, url: str, web: WebAccess | None = None, info: ObjectInfo | None = None) -> None:
        self.url = url
        self.web = web
        self.info = info

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        return _SECRETS.sub("", self.url) if self.is_web else self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}", self.web)

    @property
    def is_web(self) -> bool:
        """Whether this is a URL of the web, not of an object store."""
        return self.scheme in _WEB

    @property
    def scheme(self) -> str:
        """What stands before ``://``, in lower case."""
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part of the path; of a URL of the web without its escapes."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """`name` without its last suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The last suffix of `name`, with its dot."""
        return self._pure.suffix

    @property
    def parent(self) -> RemotePath:
        """The prefix that this is in."""
        return RemotePath(str(self).rstrip("/").rpartition("/")[0], self.web)

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(unquote(urlsplit(self.url).path) if self.is_web else self.url.partition("://")[2])

    def with_name(self, name: str) -> RemotePath:
        """Another object of the same prefix."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """A URL is absolute."""
        return self

    resolve = absolute

    def stat(self) -> ObjectInfo:
        """Size and version of the object, as the listing told them that this came from, or as they are now."""
        return self.info or self._store.stat(self)

    def pinned(self) -> RemotePath:
        """This object at the version that it has now, if it has none yet."""
        return self if self.info else RemotePath(self.url, self.web, self.stat())

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            return self.stat() is not None
        except RemoteMissingError:
            return False

    def is_dir(self) -> bool:
        """Whether there is no such object, but objects below it."""
        return not self.is_web and self._store.is_prefix(self)

    def exists(self) -> bool:
        """Whether there is such an object, or objects below it."""
        return self.is_file() or self.is_dir()

    def below(self) -> Iterator[RemotePath]:
        """All objects whose names begin with this one and a slash, in order, each with its `info`."""
        return self._store.below(self)  # type: ignore[no-any-return]

    def read_bytes(self) -> bytes:
        """The whole object; for tables and shards, not for videos."""
        return self._store.read_bytes(self)  # type: ignore[no-any-return]

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "r", *, encoding: str = "utf-8", newline: str | None = None) -> IO[Any]:
        """The whole object as a file in memory that is open for reading, ``r`` or ``rb``."""
        content = io.BytesIO(self.read_bytes())
        return content if "b" in mode else io.TextIOWrapper(content, encoding=encoding, newline=newline)

    def upload(self, local: Path) -> None:
        """Write a file of this machine to the object, which appears all at once."""
        self._store.upload(local, self)

    def download(self, local: Path) -> None:
        """Write the object to a file of this machine, in pieces. Raises ``RemoteError``, also if it is cut short."""
        self._store.download(self, local)

    def create(self, content: bytes) -> bool:
        """Write the object only if there is none, and say whether that was so."""
        return self._store.create(self, content)  # type: ignore[no-any-return]

    def replace(self, content: bytes, *, expected: bytes | None) -> bool:
        """Write the object only if it holds ``expected`` (None: if there is none), and say whether it did."""
        return self._store.replace(self, content, expected=expected)  # type: ignore[no-any-return]

    def as_uri(self) -> str:
        """What a browser is shown."""
        return str(self)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        self._store.remove(self, missing_ok=missing_ok)

    @property
    def _store(self) -> ModuleType:
        if self.is_web:
            from engine.storage import web

            return web
        from engine.storage import objects

        return objects


class _AsLocation:
    """How pydantic reads and writes a location."""

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(location, serialization=core_schema.to_string_ser_schema())


Location = Annotated[Path | RemotePath, _AsLocation()]
"""A path of this machine, or a URL."""


def as_text(value: object) -> object:
    """A path, and text, as a document holds it: a name need not be UTF-8, and is told of even so; all else as it is."""
    return as_utf8(str(value)) if isinstance(value, str | Path | RemotePath) else value


def location(place: str | Path | RemotePath, *, web: WebAccess | None = None) -> Location:
    """A URL (``SCHEME://...``) as a `RemotePath`, which may read from the web as ``web`` says, all else as a path.

    Raises ``ConfigError`` for a URL that a ``Path`` was made of: it has lost a slash.
    """
    if isinstance(place, RemotePath):
        return place if web is None else RemotePath(place.url, web, place.info)
    if isinstance(place, str) and _URL.match(place):
        return RemotePath(place, web=web)
    if was_url(place):
        raise ConfigError(f"{place} was a URL before it became a Path, and lost a slash; give it as text (str)")
    return Path(place)


def was_url(place: str | Path) -> bool:
    """Whether this looks like a URL that became a path, and so lost a slash."""
    return _MANGLED.match(str(place)) is not None
