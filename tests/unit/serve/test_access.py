"""Who may use a service with keys, and one without."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from engine.serve.access import Access
from engine.serve.refusals import Refused

KEYS = ("0123456789abcdef", "fedcba9876543210")


@pytest.mark.parametrize("key", KEYS)
def test_any_of_the_keys_opens_whatever_the_host(key: str) -> None:
    Access(keys=KEYS).check(key, {"host": "videos.example", "origin": "https://elsewhere.example"})


@pytest.mark.parametrize("key", [None, "", KEYS[0][:-1], KEYS[0] + "0", KEYS[0].upper(), "ü", " ".join(KEYS)])
def test_nothing_else_does(key: str | None) -> None:
    with pytest.raises(Refused, match="no valid API key") as refusal:
        Access(keys=KEYS).check(key, {"host": "localhost"})
    assert refusal.value.status == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "127.3.2.1", "[::1]:8000", "[::1]"])
def test_without_keys_this_machine_may_ask(host: str) -> None:
    Access().check(None, {"host": host})
    Access().check(None, {"host": host, "origin": f"http://{host}"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "videos.example"},
        {"host": "localhost.videos.example"},
        {"host": "10.0.0.1:8000"},
        {"host": "localhost:8000", "origin": "http://videos.example"},
        {"host": "localhost:8000", "origin": "http://localhost:9000"},
        {"host": "localhost:8000", "origin": "null"},
    ],
)
def test_without_keys_no_other_may(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match="without API keys") as refusal:
        Access().check(None, headers)
    assert refusal.value.status == HTTPStatus.FORBIDDEN


def test_keys_are_not_shown() -> None:
    assert KEYS[0] not in repr(Access(keys=KEYS))
