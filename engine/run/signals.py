"""SIGTERM as an exception, for whoever has workers to end and a store to leave whole, and as it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_is_an_exception() -> Iterator[None]:
    """SIGTERM raises ``SystemExit`` in the main thread, so that workers and stores are left as after a Ctrl-C."""

    def leave(number: int, frame: object) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    with sigterm_is_kept():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, leave)
        yield


@contextmanager
def sigterm_is_kept() -> Iterator[None]:
    """What SIGTERM does afterwards is what it did before, whatever handlers a library puts there.

    That of Ray prints a stack and aborts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
