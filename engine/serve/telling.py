"""What clients and logs are told of each request: errors as JSON with one line, counts, and a line in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from engine.errors import DISK_FULL, ConfigError, EngineError, MediaError, RemoteError, StoreError
from engine.serve.refusals import Refused
from engine.serve.service import Service

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_RETRY_S = 5
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_PROBES = frozenset(("/healthz", "/readyz", "/metrics", "/v1/status"))


def tell(app: FastAPI, service: Service) -> None:
    """Make an application tell what becomes of its requests."""
    app.add_middleware(_Told, service=service)
    for kind in (EngineError, OSError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _explain)


async def _explain(request: Request, error: Exception) -> Response:
    status, reason, headers = _told_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Refused):
        logger.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    if request.method == "POST":
        headers["Connection"] = "close"  # what was not read of the body would be taken for the next request
    request.scope["vsc_engine.error"] = reason
    return JSONResponse({"error": reason}, status_code=status, headers=headers)


def _told_of(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, reason and headers."""
    reason = " ".join(str(error).split())
    match error:
        case Refused():
            headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            if error.status == HTTPStatus.UNAUTHORIZED:
                headers["WWW-Authenticate"] = "Bearer"
            return error.status, reason, headers
        case MediaError():
            return HTTPStatus.UNPROCESSABLE_ENTITY, reason, {}
        case ConfigError():
            return HTTPStatus.BAD_REQUEST, reason, {}
        case StoreError() if isinstance(error.__cause__, BlockingIOError):
            return HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": str(_RETRY_S)}
        case RemoteError():  # of an object store or a Milvus that holds the catalogue
            return HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": str(_RETRY_S)}
        case EngineError():
            return HTTPStatus.INTERNAL_SERVER_ERROR, reason, {}
        case HTTPException():
            return error.status_code, str(error.detail), dict(error.headers or {})
        case RequestValidationError():
            first = error.errors()[0]
            return HTTPStatus.BAD_REQUEST, f"{first['loc'][-1]}: {first['msg']}", {}
        case OSError() if error.errno in DISK_FULL:
            return HTTPStatus.INSUFFICIENT_STORAGE, "there is no room for the upload on the disk of this service", {}
    return HTTPStatus.INTERNAL_SERVER_ERROR, "something unexpected went wrong; the log of the service says what", {}


class _Told:
    """Counts and logs each request when it is answered, and adds the headers that all answers have."""

    def __init__(self, app: Any, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        start_s = time.monotonic()
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            endpoint = getattr(scope.get("route"), "path", "other")
            self._service.metrics.requests.labels(endpoint, str(status)).inc()
            self._log(scope, status, time.monotonic() - start_s)

    def _log(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        error = scope.get("vsc_engine.error")
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 3),
            "client": (scope.get("client") or [None])[0],
        }
        told = f"{scope['method']} {scope['path']} {status}, {seconds:.3f} s" + (f": {error}" if error else "")
        more = {"fields": fields | ({"error": error} if error else {})}
        is_of_a_probe = scope["path"] in _PROBES and status < HTTPStatus.BAD_REQUEST
        logger.log(logging.DEBUG if is_of_a_probe else logging.INFO, "%s", told, extra=more)
