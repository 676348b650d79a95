"""Why a request is refused: a status of HTTP and one line that says what came, what was expected and what to do."""

from __future__ import annotations

from http import HTTPStatus

from engine.errors import EngineError


class Refused(EngineError):  # noqa: N818 - not every refusal is an error
    """A request that gets no result. ``retry_after_s``: when another try may succeed; None where none will."""

    def __init__(self, status: HTTPStatus, reason: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s
