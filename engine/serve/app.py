"""The addresses of a service: what is asked over HTTP, and what is answered."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from http import HTTPStatus
from importlib import resources
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from engine.catalog.documents import VideoDocument
from engine.errors import BackendUnavailable, EngineError
from engine.serve.access import Access, check_address
from engine.serve.metrics import CONTENT_TYPE
from engine.serve.refusals import Refused
from engine.serve.service import Addition, MatchAnswer, Service, Status
from engine.version import __version__

try:
    from fastapi import APIRouter, Depends, FastAPI, Query, Request
    from fastapi.responses import FileResponse, Response
    from fastapi.security import HTTPBearer

    from engine.serve.receiving import MAX_ID, NamedFile, done_with_video
    from engine.serve.telling import tell
except ImportError as _error:
    raise BackendUnavailable("a service needs fastapi and more: pip install 'vsc-engine[serve]'") from _error

_TEMPLATES = resources.files("engine") / "serve" / "templates"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY = "sandbox allow-scripts allow-popups; frame-ancestors 'self'"


class Problem(BaseModel):
    """Why there is no result."""

    model_config = ConfigDict(json_schema_extra={"example": {"error": "the catalogue has no video 'clip_17'"}})

    error: str


class VideoList(BaseModel):
    """Videos by id. ``next``: what to ask for with ``after`` to go on; null at the end."""

    num_videos: int
    videos: list[VideoDocument]
    next: str | None


class Ready(BaseModel):
    """The service answers."""

    status: str = "ok"


def make_app(service: Service, access: Access) -> FastAPI:
    """The application over an open service."""
    app = FastAPI(
        title="vsc-engine",
        version=__version__,
        description="Which videos of a catalogue an upload shows, which seconds of them, and how sure that is.",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service, app.state.access = service, access
    app.include_router(_open)
    app.include_router(_closed)
    tell(app, service)
    return app


async def authorized(
    request: Request, given: Annotated[Any, Depends(HTTPBearer(auto_error=False, description="An API key."))]
) -> None:
    """Refuse those who may not use the service."""
    access: Access = request.app.state.access
    access.check(None if given is None else given.credentials, request.headers)
    check_address(request.scope["raw_path"], request.scope["query_string"])


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": HTTPStatus(code).phrase} for code in (*codes, 400, 401, 403, 429)}


_ERRORS = _problems(503)
_NOT_FOUND = _problems(404, 503)
_UPLOAD_ERRORS = _problems(404, 408, 409, 413, 422, 503, 504, 507)
_VIDEO_BODY = {
    "requestBody": {
        "required": True,
        "description": "A video file, as it is or as the field `file` of a form, or the path of one below a root.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": NamedFile.model_json_schema()},
        },
    }
}
_ANSWER_EXAMPLE = {
    "query_id": "upload",
    "path": "upload.mp4",
    "verdict": "copy",
    "thresholds": {"act": 0.31, "review": 0.22},
    "duplicates": [],
    "num_rows": 57,
    "warnings": [],
    "candidates": [{"ref_id": "clip_17", "score": 1.42, "path": "/videos/clip_17.mp4", "verdict": "copy"}],
    "matches": [
        {
            "ref_id": "clip_17",
            "query_start_s": 2.0,
            "query_end_s": 21.0,
            "ref_start_s": 40.0,
            "ref_end_s": 59.0,
            "score": 8.4,
            "speed": 1.0,
            "mirrored": False,
            "num_inliers": 231,
            "path": "/videos/clip_17.mp4",
            "verdict": "copy",
        }
    ],
    "seconds": 0.41,
    "report": "/v1/reports/5Jq0bXnW3m8T1cVfY6sZQg",
}

VideoId = Annotated[
    str | None,
    Query(alias="id", min_length=1, max_length=MAX_ID, description="The id of the video; default: from its name."),
]

_open = APIRouter()
_closed = APIRouter(dependencies=[Depends(authorized)])


@_open.get("/", include_in_schema=False)
def page() -> Response:
    """The page for people."""
    return Response(_template("page.html"), media_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})


@_open.get("/page.css", include_in_schema=False)
def style() -> Response:
    """Its looks."""
    return Response(_template("page.css"), media_type="text/css")


@_open.get("/page.js", include_in_schema=False)
def script() -> Response:
    """What it does."""
    return Response(_template("page.js"), media_type="text/javascript")


def _template(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text(encoding="utf-8")


@_open.get("/healthz", tags=["state"])
def alive() -> Ready:
    """Whether the process answers."""
    return Ready()


@_open.get("/readyz", tags=["state"], responses=_ERRORS)
def ready(request: Request) -> Ready:
    """Whether the catalogue can be read and uploads are answered."""
    try:
        _service(request).snapshot()
    except EngineError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
    return Ready()


@_closed.get("/metrics", tags=["state"], response_class=Response, responses=_ERRORS)
def metrics(request: Request) -> Response:
    """Counts and times, for Prometheus."""
    return Response(_service(request).metrics.page(), media_type=CONTENT_TYPE)


@_closed.get("/v1/status", tags=["state"], responses=_ERRORS)
def status(request: Request) -> Status:
    """The catalogue, the queue and the limits, now."""
    return _service(request).status()


@_closed.post(
    "/v1/match",
    tags=["matches"],
    responses={**_UPLOAD_ERRORS, 200: {"content": {"application/json": {"example": _ANSWER_EXAMPLE}}}},
    openapi_extra=_VIDEO_BODY,
)
async def match(
    request: Request,
    video_id: VideoId = None,
    every: Annotated[bool, Query(alias="all", description="With what lies below every threshold.")] = False,
    report: Annotated[bool, Query(description="Make a page with pictures; its address is in the answer.")] = False,
) -> MatchAnswer:
    """Compare a video with the catalogue: the verdict, and what it shows of which video."""
    service = _service(request)
    return await done_with_video(
        request, video_id, service.matches, lambda upload: service.match(upload, every=every, with_report=report)
    )


@_open.get("/v1/reports/{token}", tags=["matches"], response_class=FileResponse, responses=_NOT_FOUND)
def read_report(request: Request, token: str) -> FileResponse:
    """A page that a match made. Whoever has the address may read it."""
    headers = {"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "private, no-store"}
    return FileResponse(_service(request).uploads.report(token), media_type="text/html", headers=headers)


@_closed.post("/v1/videos", tags=["catalogue"], status_code=201, responses=_UPLOAD_ERRORS, openapi_extra=_VIDEO_BODY)
async def add_video(request: Request, response: Response, video_id: VideoId = None) -> Addition:
    """Add a video to the catalogue. Status 200 where it was there with the same bytes."""
    service = _service(request)
    added = await done_with_video(request, video_id, service.changes, service.add)
    if added.outcome != "added":
        response.status_code = HTTPStatus.OK
    return added


@_closed.get("/v1/videos", tags=["catalogue"], responses=_ERRORS)
def list_videos(
    request: Request,
    after: Annotated[str, Query(description="Begin behind this id.")] = "",
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 1000,
) -> VideoList:
    """The videos of the catalogue, sorted by id."""
    videos = _service(request).snapshot().videos
    found = [video for video_id, video in videos.items() if video_id > after]
    shown = found[:limit]
    documents = [VideoDocument.of(video) for video in shown]
    return VideoList(num_videos=len(videos), videos=documents, next=shown[-1].video_id if len(found) > limit else None)


@_closed.get("/v1/videos/{video_id:path}", tags=["catalogue"], responses=_NOT_FOUND)
def read_video(request: Request, video_id: str) -> VideoDocument:
    """One video of the catalogue."""
    return VideoDocument.of(_service(request).video(video_id))


@_closed.delete("/v1/videos/{video_id:path}", tags=["catalogue"], responses=_NOT_FOUND)
async def remove_video(request: Request, video_id: str) -> VideoDocument:
    """Take a video out of the catalogue. Its file is deleted if it was sent to this service, else left alone."""
    service = _service(request)
    with ExitStack() as stack:
        stack.enter_context(service.changes.place())
        future, held = service.remove(video_id), stack.pop_all()
        future.add_done_callback(lambda _: held.close())
    return VideoDocument.of(await asyncio.wrap_future(future))


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
