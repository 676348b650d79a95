"""Listens on a port, and ends in good order: what runs is finished, what comes is refused."""

from __future__ import annotations

import errno
import ipaddress
import math
import signal
import socket
import tempfile
from collections.abc import Callable

from engine.errors import BackendUnavailable, ConfigError
from engine.serve.access import Access
from engine.serve.app import make_app
from engine.serve.service import Service

try:
    import uvicorn
except ImportError as _error:
    raise BackendUnavailable("a service needs uvicorn: pip install 'vsc-engine[serve]'") from _error

_GRACE_S = 60


def bound_socket(host: str, port: int, access: Access) -> socket.socket:
    """A socket on this port, or on any free one for 0; it does not listen yet.

    Raises ``ConfigError`` for a port that is in use, a host that is not of this machine, and one that others can reach
    without API keys.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if not access.keys and not ipaddress.ip_address(address[0]).is_loopback:
            raise ConfigError(
                f"{host} can be reached by others, and without API keys everybody there could use the service; give "
                "keys with --api-key-file or VSC_ENGINE_API_KEYS, or bind to 127.0.0.1"
            )
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is in use; choose another with --port") from error
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return bound


def serve(service: Service, access: Access, bound: socket.socket, *, on_listening: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C, and then what was asked before; a second Ctrl-C ends at once."""
    tempfile.tempdir = str(service.uploads.incoming_folder)  # forms are put into files on the way
    config = uvicorn.Config(
        make_app(service, access),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(service.limits.timeout_s) + _GRACE_S,
    )
    server = _Server(config, on_listening)
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[bound])  # raises the signal that ended it once more when all is done
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    pass


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()
