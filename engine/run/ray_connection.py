"""Joins a running Ray cluster, or says in one line why not. It knows nothing of what is done there."""

from __future__ import annotations

import logging
import socket

import ray
from ray._private import worker
from ray._private.services import canonicalize_bootstrap_address  # nothing public says what "auto" means

from engine.errors import EngineError
from engine.run.signals import sigterm_is_kept

CONNECT_TIMEOUT_S = 10.0
"""An address that says nothing for so long is not that of a Ray cluster."""

# What any HTTP/2 server, and so gRPC, answers with settings of its own: the preface, and an empty frame of settings.
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS = 4


def connect(address: str) -> None:
    """Join a running cluster, unless this process is a part of one. Raises ``EngineError``, with one line.

    ``address``: ``auto`` for the cluster of this machine, or ``HOST:PORT`` of its head.
    """
    if ray.is_initialized():
        return
    advice = "start one with `ray start --head`, or name the HOST:PORT of its head; see docs/cluster.md"
    if "://" in address:
        raise EngineError(
            f"--cluster {address}: run the command on a node of the cluster (on its head, or with `ray job submit`), "
            "and name it as auto or HOST:PORT"
        )
    try:
        found = canonicalize_bootstrap_address(address)
    except (ConnectionError, OSError, ValueError) as error:
        raise EngineError(f"--cluster {address}: {last_line(error)}; {advice}") from error
    host, _, port = str(found).rpartition(":")
    if not port.isdecimal():
        raise EngineError(f"--cluster {address}: expected auto or HOST:PORT; {advice}")
    try:
        _greet(host, int(port))
    except (OSError, OverflowError) as error:
        named = found if address == "auto" else address  # Ray puts this machine's own address for 127.0.0.1
        raise EngineError(f"no Ray cluster answers at {named} ({error}); {advice}") from error
    # What Ray has to say of workers that die goes to stdout, where data belongs, even without `log_to_driver`.
    worker._worker_logs_enabled = False
    try:
        with sigterm_is_kept():
            ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EngineError(f"the Ray cluster at {found} cannot be used: {last_line(error)}") from error


def _greet(host: str, port: int) -> None:
    """Raise ``OSError`` unless something there speaks HTTP/2, as the head of a cluster does.

    Ray itself goes on asking for many minutes, and no signal ends it.
    """
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.sendall(_HTTP2_GREETING)
        reply = connection.recv(4)
    if len(reply) < 4 or reply[3] != _HTTP2_SETTINGS:
        raise OSError("something else listens there")


def last_line(error: Exception) -> str:
    """The line of an error of Ray that says most: tracebacks come before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
