"""Object stores, through fsspec: S3 and what speaks like it, Google Cloud Storage, Azure, and others that it knows.

Credentials, regions and endpoints come from where the tools of each store look for them (for S3: ``AWS_*``, profiles,
the role of the machine; for Azure ``AZURE_STORAGE_*``; for Google its application default credentials).
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from engine.errors import (
    DISK_FULL,
    BackendUnavailable,
    ConfigError,
    RemoteError,
    RemoteMissingError,
    line_of,
    not_written,
)
from engine.storage.location import ObjectInfo, RemotePath

try:
    import fsspec
except ImportError as _error:
    raise BackendUnavailable("object stores need fsspec: pip install 'vsc-engine[objects]'") from _error

# They log what they raise, with a traceback, and that a machine is none of Google's.
for _talkative in ("gcsfs", "google.auth"):
    logging.getLogger(_talkative).setLevel(logging.CRITICAL)

_NO_STORES = frozenset((
    "asynclocal", "asyncwrapper", "blockcache", "cached", "data", "dir", "file", "filecache", "generic", "http",
    "https", "local", "memory", "reference", "simplecache", "tar", "zip",
))  # fmt: skip
"""What fsspec knows and is no place of its own, lies on this machine, or has a door of its own here."""

_PACKAGES = {"s3": "vsc-engine[objects]", "s3a": "vsc-engine[objects]", "gs": "gcsfs", "gcs": "gcsfs"}
_AZURE = ("az", "abfs", "abfss")
_PACKAGES |= dict.fromkeys((*_AZURE, "adl"), "adlfs")
_VERSIONS = ("generation", "ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime")
_NOT_AS_EXPECTED = ("PreconditionFailed", "ConditionalRequestConflict", "ConditionNotMet", "412", "409")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_REASONS = {
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidAccessKeyId": "the store does not know these credentials; check them",
    "SignatureDoesNotMatch": "the store does not take these credentials; check them",
    "AccessDenied": "access is denied to these credentials",
    "403": "access is denied to these credentials",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "301": "the bucket is in another region; set AWS_DEFAULT_REGION",
    **dict.fromkeys(_NO_BUCKET, "there is no such bucket; check its name, or make it"),
    "AuthenticationFailed": "the store does not take these credentials; check them",
    "AuthorizationFailure": "access is denied to these credentials",
    "AuthorizationPermissionMismatch": "access is denied to these credentials",
    "401": "the store asks for credentials, and takes none that were found; set those of the store (for Google: "
    "GOOGLE_APPLICATION_CREDENTIALS)",
    "SlowDown": "the store asked to slow down, also when it was asked again; try later, or with fewer workers",
    "503": "the store asked to slow down, also when it was asked again; try later, or with fewer workers",
    "ServerBusy": "the store asked to slow down, also when it was asked again; try later, or with fewer workers",
    "429": "the store asked to slow down, also when it was asked again; try later, or with fewer workers",
}
_KNOCK_S = 2.0
_PAUSES_S = (1.0, 1.0)
_answering: set[str] = set()
"""Addresses of stores that have answered this process."""

_known_buckets: set[tuple[str, str]] = set()
"""Schemes and names of buckets that were there."""

_FORBIDDEN = "Forbidden: "
"""How gcsfs begins what it says of status 403, which has no class of its own there."""

_BY_CLASS = {
    "NoCredentialsError": "no credentials were found; set those of the store (for S3: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)",
    "ClientAuthenticationError": "the store takes no credentials that were found; set those of the store (for Azure: "
    "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY)",
    "FileExpired": "it changed while it was read; read it again when it is complete",
}


def reason_of(code: str) -> str | None:
    """What a code of a store means, a word or the number of its status, and what to do; None for one unknown here."""
    return _REASONS.get(code)


def stat(path: RemotePath) -> ObjectInfo:
    """Size and version of an object. Raises ``RemoteError``."""
    with _one_line(path):
        found = _info(path)
    if found["type"] != "file":
        raise RemoteMissingError(f"{path}: no such object")
    return _as_info(found)


def is_prefix(path: RemotePath) -> bool:
    """Whether there is no such object, but objects below it. Raises ``RemoteError``."""
    try:
        with _one_line(path):
            return bool(_info(path)["type"] == "directory")
    except RemoteMissingError:
        return False


def below(path: RemotePath) -> Iterator[RemotePath]:
    """See `RemotePath.below`. Those whose names end with a slash are no objects."""
    with _one_line(path):
        file_system, root = _opened(path)
        root = root.rstrip("/")
        file_system.invalidate_cache()
        found = file_system.find(root, detail=True)
    for name, entry in sorted(found.items()):
        if name.startswith(f"{root}/") and entry["type"] == "file" and not name.endswith("/"):
            yield RemotePath(f"{path.url.rstrip('/')}/{name[len(root) + 1 :]}", info=_as_info(entry))


def read_bytes(path: RemotePath) -> bytes:
    """The whole object. Raises ``RemoteError``."""
    with _one_line(path):
        file_system, name = _opened(path)
        content: bytes = file_system.cat_file(name)
    return content


def upload(local: Path, path: RemotePath) -> None:
    """Write a file of this machine to an object, which appears all at once. Raises ``RemoteError``."""
    with _one_line(path, verb="written"):
        file_system, name = _opened(path)
        file_system.put_file(str(local), name)


def download(path: RemotePath, local: Path) -> None:
    """See `RemotePath.download`. Raises ``RemoteError``."""
    expected = path.stat()
    with _one_line(path):
        file_system, name = _opened(path)
        try:
            file_system.get_file(name, str(local))
        except OSError as error:
            if error.errno in DISK_FULL:
                raise RemoteError(f"{path}: was not copied: {line_of(not_written(error, local))}") from error
            raise
    if local.stat().st_size != expected.size_bytes:
        raise RemoteError(f"{path}: got {local.stat().st_size} bytes of {expected.size_bytes}; try again")


def create(path: RemotePath, content: bytes) -> bool:
    """See `RemotePath.create`; the store decides between two who try. Raises ``RemoteError``."""
    with _one_line(path, verb="written"):
        file_system, name = _opened(path)
        try:
            file_system.pipe_file(name, content, mode="create")
        except FileExistsError:
            return False
    return True


def replace(path: RemotePath, content: bytes, *, expected: bytes | None) -> bool:
    """See `RemotePath.replace`; S3 and Azure decide between two who try, others only where there was nothing."""
    if expected is None:
        return create(path, content)
    with _one_line(path, verb="written"):
        file_system, name = _opened(path)
        found = _as_info(_info(path))
        if file_system.cat_file(name) != expected:
            return False
        try:
            file_system.pipe_file(name, content, **_only_if(path, found.version))
        except Exception as error:
            if _code(error) in _NOT_AS_EXPECTED:
                return False
            raise
    return True


def _only_if(path: RemotePath, version: str) -> dict[str, Any]:
    """What tells a store to write an object only while it has this version; empty where its library cannot say that."""
    if path.scheme in ("s3", "s3a"):
        return {"IfMatch": version}
    if path.scheme in _AZURE:
        from azure.core import MatchConditions

        return {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified}
    return {}


def remove(path: RemotePath, *, missing_ok: bool = False) -> None:
    """Remove an object. Raises ``RemoteError``."""
    try:
        with _one_line(path, verb="removed"):
            file_system, name = _opened(path)
            file_system.rm_file(name)
    except RemoteMissingError:
        if not missing_ok:
            raise


class ObjectSource:
    """Reads ranges of an object, all of one version: that of ``path.info``, or the one that it has now.

    Raises ``RemoteError`` where it cannot be read, and has another version than ``path`` says.
    """

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self.num_read_bytes = 0
        with _one_line(path):
            file_system, name = _opened(path)
            file_system.invalidate_cache()
            self.info = _as_info(_info(path))
            self._check(path.info or self.info)
            self._file = file_system.open(name, "rb", cache_type="none")

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of a range that lies inside the object."""
        try:
            with _one_line(self._path):
                self._file.seek(start)
                content: bytes = self._file.read(stop - start)
        except RemoteError:
            self.check_unchanged()  # which is why there may be no such range any more
            raise
        self.num_read_bytes += len(content)
        if len(content) != stop - start:
            raise RemoteError(f"{self._path}: got {len(content)} bytes of a range of {stop - start}; try again")
        return content

    def check_unchanged(self) -> None:
        """Raise ``RemoteError`` if the object has another version now: not every store refuses to read on."""
        self._check(stat(RemotePath(self._path.url)))

    def _check(self, found: ObjectInfo) -> None:
        if found != self.info:
            raise RemoteError(f"{self._path}: {_BY_CLASS['FileExpired']}")

    def close(self) -> None:
        """End reading."""
        self._file.close()


def _opened(path: RemotePath) -> tuple[Any, str]:
    if path.scheme in _NO_STORES or "::" in path.url or path.scheme not in fsspec.available_protocols():
        raise ConfigError(f"{path}: {path.scheme}:// is no object store; expected s3://, gs://, az://, or a file")
    try:
        file_system, name = fsspec.url_to_fs(path.url)
    except ImportError as error:
        package = _PACKAGES.get(path.scheme, "the package that fsspec names")
        raise BackendUnavailable(f"{path}: {path.scheme}:// needs {package}: {error}") from error
    _knock(path, _endpoint(path, file_system))
    return file_system, name


def _endpoint(path: RemotePath, file_system: Any) -> SplitResult | None:
    """Where the library of a store finds it; None where it does not say, or reaches it through a proxy."""
    if path.scheme in ("s3", "s3a"):
        url = file_system.s3.meta.endpoint_url
    elif path.scheme in ("gs", "gcs"):
        url = file_system.base
    elif path.scheme in _AZURE:
        url = file_system.service_client.url
    else:
        return None
    found = urlsplit(url)
    is_direct = found.scheme not in getproxies() or proxy_bypass(found.hostname or "")
    return found if is_direct else None


def _knock(path: RemotePath, endpoint: SplitResult | None) -> None:
    """Raise ``RemoteError`` where nothing listens at an address that has not answered yet.

    The libraries try such an address again for as long as they do with a store that is busy: minutes.
    """
    if endpoint is None or endpoint.netloc in _answering:
        return
    address = endpoint.hostname, endpoint.port or {"http": 80}.get(endpoint.scheme, 443)
    for pause_s in (*_PAUSES_S, None):
        try:
            socket.create_connection(address, timeout=_KNOCK_S).close()
        except OSError as error:
            if pause_s is None:
                reason = error.strerror or str(error)
                raise RemoteError(
                    f"{path}: nothing answers at {endpoint.scheme}://{endpoint.netloc} ({reason}); check that address, "
                    "and that the store runs"
                ) from error
            time.sleep(pause_s)
        else:
            _answering.add(endpoint.netloc)
            return


def _info(path: RemotePath) -> dict[str, Any]:
    """What a store knows of an object; where it does not say why it tells nothing, what it says to who reads it."""
    file_system, name = _opened(path)
    file_system.invalidate_cache(name)
    try:
        return dict(file_system.info(name))
    except FileNotFoundError:
        raise
    except OSError as error:
        if not str(_code(error)).isdigit():  # the answer to HEAD has no body, and so no reason
            raise
        file_system.cat_file(name, start=0, end=1)
        return dict(file_system.info(name))


def _as_info(entry: dict[str, Any]) -> ObjectInfo:
    version = next((str(entry[key]) for key in _VERSIONS if entry.get(key)), "")
    return ObjectInfo(int(entry.get("size") or 0), version.strip('"'))


def _code(error: BaseException) -> str | None:
    """What a store calls an error: S3 and Azure a word, or where there is none, and Google always, a number."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    if isinstance(response, dict):
        code = response.get("Error", {}).get("Code")
    else:
        codes = (getattr(cause, name, None) for name in ("error_code", "status_code", "code"))
        code = next(filter(None, codes), None)
    return None if code is None else str(getattr(code, "value", code))


def _missing_bucket(path: RemotePath, error: FileNotFoundError) -> str | None:
    """The bucket, or container, of a missing object if that is missing, too; None where it is there, or none can tell.

    Google and answers to HEAD do not say what is missing, so that each bucket is asked for once.
    """
    file_system, name = fsspec.url_to_fs(path.url)
    bucket: str = name.partition("/")[0]
    if _code(error) in _NO_BUCKET:
        return bucket
    if (path.scheme, bucket) in _known_buckets:
        return None
    try:
        file_system.info(bucket)
    except FileNotFoundError:
        return bucket
    except Exception:  # noqa: BLE001 - each library has classes of its own; not all who may read may ask for a bucket
        return None
    _known_buckets.add((path.scheme, bucket))
    return None


@contextmanager
def _one_line(path: RemotePath, *, verb: str = "read") -> Iterator[None]:
    """Whatever the library of a store raises as a ``RemoteError`` of one line; each has classes of its own."""
    try:
        yield
    except (RemoteError, ConfigError, BackendUnavailable):
        raise
    except FileNotFoundError as error:
        bucket = _missing_bucket(path, error)
        if bucket is not None:  # no error of a missing object: whoever can do without one would take it for empty
            raise RemoteError(f"{path}: there is no such bucket as {bucket}; check its name, or make it") from error
        raise RemoteMissingError(f"{path}: no such object") from error
    except Exception as error:
        reason = _REASONS.get(_code(error) or "") or _BY_CLASS.get(type(error).__name__)
        if reason is None and (isinstance(error, PermissionError) or str(error).startswith(_FORBIDDEN)):
            reason = _REASONS["AccessDenied"]
        said = " ".join(str(error).split()) or type(error).__name__
        raise RemoteError(f"{path}: cannot be {verb}: {reason or said}") from error
