"""Takes the video of a request, as far as its size and its time go, and waits for what is done with it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from engine.serve.access import Access
from engine.serve.refusals import Refused
from engine.serve.roots import file_below
from engine.serve.service import Lane, Service, Upload

Result = TypeVar("Result")

MAX_ID = 500
"""Characters of an id."""

_MAX_JSON_BYTES = 65_536
_COPY_BYTES = 1 << 20
_PATIENCE_S = 30.0
_MIN_BYTES_PER_S = 50_000
_MARGIN_S = 5.0
_NO_NAME = "upload"


class NamedFile(BaseModel):
    """A file of the machine that the service runs on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"path": "2026/clip_17.mp4"}})

    path: str = Field(description="Below a root of the service: absolute, or from a root on.")


async def done_with_video(
    request: Request, video_id: str | None, lane: Lane, begin: Callable[[Upload], Future[Result]]
) -> Result:
    """Receive a video and wait for what is done with it.

    Its place and its file are held until the work ends, also where nobody waits for the answer any more.
    """
    service: Service = request.app.state.service
    with ExitStack() as stack:
        stack.enter_context(lane.place())
        start_s = time.monotonic()
        upload = await _received(request, video_id, stack)
        service.metrics.add_stage("receive", time.monotonic() - start_s)
        future, held = begin(upload), stack.pop_all()
        future.add_done_callback(lambda _: held.close())
    return await _while_connected(request, future, limit_s=service.limits.timeout_s + _MARGIN_S)


async def _while_connected(request: Request, future: Future[Result], *, limit_s: float) -> Result:
    result: asyncio.Future[Any] = asyncio.wrap_future(future)
    result.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
    gone: asyncio.Future[Any] = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait([result, gone], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return future.result()
        if gone.done():
            raise Refused(HTTPStatus.BAD_REQUEST, "the client went away")
        raise Refused(HTTPStatus.GATEWAY_TIMEOUT, "it took longer than the time limit of this service")
    finally:
        gone.cancel()
        future.cancel()  # has an effect as long as it waits


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _received(request: Request, video_id: str | None, stack: ExitStack) -> Upload:
    """The video that a request brings or names; its file goes when ``stack`` is closed."""
    service: Service = request.app.state.service
    access: Access = request.app.state.access
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_named = kind == "application/json"
    max_bytes = _MAX_JSON_BYTES if is_named else service.limits.max_upload_bytes
    limited = Request(request.scope, _LimitedBody(request, max_bytes))
    if is_named:
        path, found_id = await run_in_threadpool(file_below, _named_file(await limited.body()).path, access.roots)
        return Upload(path, str(path), video_id or found_id, is_sent=False)
    if kind == "multipart/form-data":
        async with limited.form(max_files=1, max_fields=8) as form:
            sent = form.get("file")
            if not isinstance(sent, UploadFile):
                raise Refused(HTTPStatus.BAD_REQUEST, "the form has no file in its field 'file'")
            name = _file_name(sent.filename)
            path = stack.enter_context(service.uploads.incoming(name))
            await run_in_threadpool(_copy, sent.file, path)
    else:
        name = video_id or _NO_NAME
        path = stack.enter_context(service.uploads.incoming(""))
        with path.open("wb") as file:
            async for chunk in limited.stream():
                await run_in_threadpool(file.write, chunk)
    if path.stat().st_size == 0:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "the upload holds 0 bytes; send a video file")
    return Upload(path, name, video_id or PurePosixPath(name).stem, is_sent=True)


def _named_file(body: bytes) -> NamedFile:
    try:
        return NamedFile.model_validate_json(body)
    except ValidationError as error:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f'got JSON that is not {{"path": "..."}}: {error.errors()[0]["msg"]}'
        ) from error


def _file_name(sent: str | None) -> str:
    """The name of a sent file without folders, as text that UTF-8 can hold."""
    name = PurePosixPath((sent or "").replace("\\", "/")).name[-MAX_ID:]
    return name.encode("utf-8", errors="backslashreplace").decode("utf-8") or _NO_NAME


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)


class _LimitedBody:
    """Receives the body of a request; refuses one that is larger than ``max_bytes``, or comes too slowly."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._receive = request.receive
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._since_s = time.monotonic()
        self._check(int(request.headers.get("content-length", "0")))  # a server has seen that it is a number

    async def __call__(self) -> MutableMapping[str, Any]:
        passed_s = time.monotonic() - self._since_s
        try:
            async with asyncio.timeout(_PATIENCE_S + self._num_bytes / _MIN_BYTES_PER_S - passed_s):
                message = await self._receive()
        except TimeoutError:
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT,
                f"{self._num_bytes} bytes came in {time.monotonic() - self._since_s:.0f} s, which is too slow",
            ) from None
        if message["type"] == "http.disconnect":
            raise Refused(HTTPStatus.BAD_REQUEST, f"the client went away after {self._num_bytes} bytes")
        self._num_bytes += len(message.get("body", b""))
        self._check(self._num_bytes)
        return message

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {self._max_bytes / 1e6:g} MB, the limit of this service",
            )
