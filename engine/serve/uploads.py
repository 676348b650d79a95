"""The folder of a service: uploads while they are compared, uploaded references, and pages of evidence.

``incoming/`` holds what is being received or compared, and is emptied when a service starts, so that a kill leaves
nothing for long. ``videos/`` holds uploaded references as long as the catalogue does, ``reports/`` the newest pages.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from engine.errors import ConfigError
from engine.files import exclusive, flush_to_disk
from engine.serve.refusals import Refused
from engine.storage.location import Location

MAX_REPORTS = 100
"""Pages that are kept; the oldest go first."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_MAX_NAME = 60


class UploadFolder:
    """A folder that one service uses at a time."""

    def __init__(self, folder: Path) -> None:
        self.incoming_folder = folder / "incoming"
        self._videos = folder / "videos"
        self._reports = folder / "reports"

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[UploadFolder]:
        """Yield the folder, which is made if needed. Raises ``ConfigError`` while another service uses it."""
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        found = cls(folder)
        try:
            with exclusive(folder / ".lock"):
                found._empty()
                yield found
                found._empty()
        except BlockingIOError as error:
            raise ConfigError(
                f"another service uses {folder}; give this one a folder of its own with --uploads"
            ) from error

    def _empty(self) -> None:
        if self.incoming_folder.exists():
            shutil.rmtree(self.incoming_folder)
        for path in (self.incoming_folder, self._videos, self._reports):
            path.mkdir(exist_ok=True)
        for half_written in self._reports.glob(".*.aside"):
            half_written.unlink()

    @contextmanager
    def incoming(self, name: str) -> Iterator[Path]:
        """Yield a path for one upload, with the suffix of ``name`` (decoders look at it); gone when the block ends."""
        suffix = Path(name).suffix
        folder = self.incoming_folder / secrets.token_urlsafe(16)
        folder.mkdir()
        try:
            yield folder / ("upload" + (suffix if _SUFFIX.fullmatch(suffix) else ""))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, upload: Path, video_id: str) -> Path:
        """Move an upload to where it stays; the path, which depends on the id alone. It is on the disk then."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", video_id)[-_MAX_NAME:].lstrip(".")
        digest = hashlib.sha256(video_id.encode()).hexdigest()[:16]
        kept = self._videos / f"{readable}-{digest}{upload.suffix}"
        flush_to_disk(upload)
        upload.rename(kept)
        flush_to_disk(self._videos)
        return kept

    def forget(self, kept: Location) -> None:
        """Delete a file that `keep` moved; any other is left alone."""
        if isinstance(kept, Path) and kept.parent == self._videos:
            kept.unlink(missing_ok=True)

    def new_report(self) -> tuple[str, Path]:
        """A name that cannot be guessed, and the path of a page to be written; the oldest ones make room."""
        pages = sorted(self._reports.glob("*.html"), key=lambda page: page.stat().st_mtime_ns)
        for page in pages[: max(0, len(pages) - MAX_REPORTS + 1)]:
            page.unlink(missing_ok=True)
        token = secrets.token_urlsafe(16)
        return token, self._reports / f"{token}.html"

    def report(self, token: str) -> Path:
        """The page of this name. Raises ``Refused`` (404)."""
        path = self._reports / f"{token}.html"
        if not _TOKEN.fullmatch(token) or not path.is_file():
            raise Refused(HTTPStatus.NOT_FOUND, f"no such report; the newest {MAX_REPORTS} are kept")
        return path
