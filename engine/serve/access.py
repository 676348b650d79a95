"""Who may use a service: those with a key or, where there are none, those on its own machine."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from engine.serve.refusals import Refused


@dataclass(frozen=True)
class Access:
    """Who may ask for what. ``keys``: any of them opens all; none: anybody on this machine may ask.

    ``roots``: folders whose files a client may name, as `engine.serve.roots.resolved_roots` gives them.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    roots: tuple[Path, ...] = ()

    def check(self, key: str | None, headers: Mapping[str, str]) -> None:
        """Refuse a request without a valid key; where there are none, one that a page of another site may have sent.

        ``key``: what came in place of one. ``headers``: of the request, names in lower case.
        """
        if not self.keys:
            _check_is_from_here(headers)
            return
        given = (key or "").encode()
        matching = [hmac.compare_digest(given, known.encode()) for known in self.keys]  # all, whichever comes first
        if not any(matching):
            raise Refused(
                HTTPStatus.UNAUTHORIZED, "no valid API key; send it in the header 'Authorization: Bearer KEY'"
            )


def check_address(*parts: bytes) -> None:
    """Refuse parts of an address that hold bytes, as ``%E9``, that are not UTF-8: they would all be one character."""
    try:
        for part in parts:
            unquote_to_bytes(part).decode()
    except UnicodeDecodeError as error:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "the address is not UTF-8; an id has escapes, such as \\xe9, for bytes of a name"
        ) from error


def _check_is_from_here(headers: Mapping[str, str]) -> None:
    """A browser on this machine may show pages of others, and these must not use the service behind its user's back."""
    host, origin = headers.get("host", ""), headers.get("origin")
    name = urlsplit(f"//{host}").hostname or ""
    if not _is_loopback(name):
        raise Refused(HTTPStatus.FORBIDDEN, f"without API keys this service answers to localhost, not to {name!r}")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(HTTPStatus.FORBIDDEN, f"without API keys this service answers no pages of {origin!r}")


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
