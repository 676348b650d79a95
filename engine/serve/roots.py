"""Which files of this machine a client may name: those below the roots, wherever links lead."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from engine.errors import ConfigError
from engine.serve.refusals import Refused


def resolved_roots(roots: Sequence[Path]) -> list[Path]:
    """The roots as absolute paths without links. Raises ``ConfigError`` for one that is no folder."""
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"--root {root} is not a folder")
    return [root.resolve() for root in roots]


def file_below(named: str, roots: Sequence[Path]) -> tuple[Path, str]:
    """The file that a client named, without links and ``..``, and its video id: its path below its root, no suffix.

    ``named``: an absolute path, or one below a root. ``roots``: as `resolved_roots` gives them. Raises ``Refused``:
    403 for a path outside all roots, whatever is there, 404 for none inside, 400 for what is no regular file.
    """
    if not roots:
        raise Refused(HTTPStatus.FORBIDDEN, "this service opens no files by path; it was started without --root")
    try:
        candidates = {Path(root, named).resolve() for root in roots}
        inside = [(path, root) for path in candidates for root in roots if path.is_relative_to(root)]
        if not inside:
            raise Refused(HTTPStatus.FORBIDDEN, f"{named!r} is outside the folders that this service may open")
        existing = [(path, root) for path, root in inside if path.exists()]
        if not existing:
            raise Refused(HTTPStatus.NOT_FOUND, f"{named!r}: no such file")
        path, root = existing[0]
        if not path.is_file():
            raise Refused(HTTPStatus.BAD_REQUEST, f"{named!r} is not a regular file; name one video file")
        video_id = path.relative_to(root).with_suffix("").as_posix()
        video_id.encode()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a half surrogate, a name too long, a loop of links
        raise Refused(HTTPStatus.BAD_REQUEST, f"{named!r} cannot be a path here: {error}") from error
    return path, video_id
