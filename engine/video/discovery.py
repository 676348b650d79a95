"""Finds the videos among files, folders and lists of paths, and says what it left out. Reads no frames."""

from __future__ import annotations

import codecs
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from engine.console import as_utf8, log_failure, printable
from engine.errors import ConfigError, RemoteError, RemoteMissingError
from engine.isolation import CallEndedError, IsolatedProcess
from engine.records import Failure, Media
from engine.storage.location import Location, RemotePath, WebAccess, location
from engine.video.container import holds_video

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".dav", ".divx", ".dv", ".f4v", ".flv", ".gif", ".gxf", ".h264", ".h265", ".hevc",
    ".ivf", ".m2t", ".m2ts", ".m2v", ".m4v", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
))  # fmt: skip
"""Files of a folder that count as videos without being probed, compared in lower case."""

TEXT_SUFFIXES = frozenset((".mts", ".ts"))
"""Of the same name as those of program texts (TypeScript): a text is none, anything else a video, damaged or not."""

OTHER_SUFFIXES = frozenset((
    # pictures, also those of more than one frame: folders of photographs are full of them
    ".ai", ".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".heic", ".heif", ".hif", ".ico", ".jfif",
    ".jpe", ".jpeg", ".jpg", ".jxl", ".mpo", ".nef", ".orf", ".png", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga",
    ".tif", ".tiff", ".webp", ".xcf",
    # sound
    ".aac", ".ac3", ".aif", ".aiff", ".flac", ".m4a", ".mid", ".mp3", ".oga", ".opus", ".wav", ".wma",
    # subtitles, playlists and what players and cameras leave beside a video
    ".ass", ".cue", ".idx", ".lrc", ".lrv", ".m3u", ".m3u8", ".mpd", ".nfo", ".pls", ".srt", ".ssa", ".sub", ".thm",
    ".vtt", ".xmp",
    # text, tables, documents, programs
    ".bat", ".c", ".cfg", ".conf", ".cpp", ".css", ".csv", ".db", ".dll", ".doc", ".docx", ".exe", ".h", ".htm",
    ".html", ".ini", ".ipynb", ".js", ".json", ".jsonl", ".log", ".md", ".ods", ".odt", ".pdf", ".ppt", ".pptx", ".py",
    ".rst", ".rtf", ".sh", ".so", ".sqlite", ".tex", ".toml", ".tsv", ".txt", ".url", ".xls", ".xlsx", ".xml", ".yaml",
    ".yml",
    # archives, checksums, arrays, models, unfinished downloads
    ".7z", ".aria2", ".bin", ".bz2", ".crdownload", ".gz", ".h5", ".iso", ".lock", ".lz4", ".mdb", ".md5", ".npy",
    ".npz", ".onnx", ".parquet", ".part", ".pickle", ".pkl", ".pt", ".pth", ".rar", ".safetensors", ".sha1", ".sha256",
    ".tar", ".tgz", ".tmp", ".torrent", ".xz", ".zip", ".zst",
))  # fmt: skip
"""Files of a folder that are passed over without being opened; whatever is in neither set is opened and looked at."""

_STAGE = "find"
_PROBE_LIMIT_S = 60.0
_TEXT_BYTES = 4096
_STDIN = "-"
_LIST = "@"

_HIDDEN = "hidden"
_BY_SUFFIX = "no video by suffix"
_BY_CONTENT = "no video by content"
_SPECIAL = "no regular file"
_SEEN = "folder reached before"
_DEEPER = "sub-folder"
_SUFFIXES_NAMED = 5
_PATHS_NAMED = 3


@dataclass(frozen=True)
class Discovery:
    """The videos that were found, in the order of their ids; what should be one and cannot be used; and the rest.

    ``failures`` have the stage ``find``. ``passed_over``: how many entries of folders were left out, by reason.
    """

    media: list[Media]
    failures: tuple[Failure, ...]
    passed_over: Mapping[str, int]


def one_video(path: Location) -> Media:
    """A file as a video, whatever its name. Raises ``ConfigError`` for a folder, and a path that does not exist.

    Whether a remote file exists is found when it is read.
    """
    if isinstance(path, Path) and path.is_dir():
        raise ConfigError(f"{path} is a folder; name one file")
    if isinstance(path, Path) and not path.exists():
        raise ConfigError(f"{path}: no such file")
    return Media(_video_id(PurePath(path.name)), path)


def find_videos(paths: Sequence[Location]) -> list[Media]:
    """The videos of `discover`, which logs all else."""
    return discover(paths).media


def discover(
    paths: Iterable[Location],
    *,
    is_recursive: bool = True,
    ids_are_paths: bool = False,
    web: WebAccess | None = None,
) -> Discovery:
    """Find the videos at ``paths``: files, folders, ``@FILE`` with a path a line, ``-`` for such lines on stdin.

    A file is taken whatever its name, and its id is its name without the last suffix. Of a folder, and of all folders
    in it if ``is_recursive``, those are taken that have one of `VIDEO_SUFFIXES`, or a suffix in neither list (or none)
    and the content of a video; their id is the path below the folder, with ``/`` and without the last suffix. Hidden
    entries (and so the companion files of macOS), `OTHER_SUFFIXES`, and texts with one of `TEXT_SUFFIXES` are passed
    over. Bytes of a name that are not UTF-8 are escaped in the id. A file or folder reached twice counts once, under
    its first id. ``ids_are_paths``: the id of each is its path from the root, so that files of one name are told apart.

    Lines of a list are paths from the current folder; if a NUL is among them, NULs end them, as ``find -print0`` does.

    URLs of object stores are files, or prefixes, which are as folders; nothing in them is opened, so that of names in
    neither list none is taken. A line of a list with one of `VIDEO_SUFFIXES`, and any URL of the web, is taken for a
    file and not looked for. ``web``: what the latter may do; None refuses them. Raises ``RemoteError`` for a URL where
    nothing is, or that may not be read.

    Links that lead nowhere, folders and files that cannot be read, files whose probing takes over a minute or ends its
    process, and missing files of a list become failures. They are logged, and so is how much was passed over, and which
    of ``paths`` hold no video. Raises ``ConfigError`` for a path that does not exist, for no video at all, and for two
    files with one id.
    """
    given, empty = list(paths), list[Location]()
    with IsolatedProcess() as process:
        search = _Search(process, is_recursive=is_recursive, ids_are_paths=ids_are_paths, web=web)
        for path in given:
            num_reached = search.num_reached
            if str(path) == _STDIN:
                search.take_lines(sys.stdin.buffer.read())
            elif isinstance(path, RemotePath):
                search.take_remote(path)
            elif str(path).startswith(_LIST) and not os.path.lexists(path):
                search.take_lines(_read_list(Path(str(path)[len(_LIST) :])))
            elif path.exists():
                search.take(path)
            else:
                raise ConfigError(f"{path}: no such file or directory")
            if search.num_reached == num_reached:
                empty.append(path)
    where = ", ".join(map(str, given[:_PATHS_NAMED])) + (", ..." if len(given) > _PATHS_NAMED else "")
    passed_over = search.passed_over_line()
    if not search.found:
        failed = f"{len(search.failures)} failed" if search.failures else ""
        raise ConfigError(f"no videos at {where} ({'; '.join(filter(None, (failed, passed_over))) or 'nothing there'})")
    for path in empty:
        logger.warning("%s: no videos there", printable(str(path)))
    if passed_over:
        logger.info("%s: %s", printable(where), printable(passed_over))
    media = [Media(video_id, path) for video_id, path in sorted(search.found.items())]
    return Discovery(media, tuple(search.failures), search.passed_over)


class _Search:
    """What was found so far, by id. Files are probed in ``process``."""

    def __init__(
        self, process: IsolatedProcess, *, is_recursive: bool, ids_are_paths: bool, web: WebAccess | None
    ) -> None:
        self._process = process
        self._web = web
        self._is_recursive = is_recursive
        self._ids_are_paths = ids_are_paths
        self.found: dict[str, Location] = {}
        self.num_reached = 0
        self.failures: list[Failure] = []
        self.passed_over: Counter[str] = Counter()
        self._suffixes: dict[str, Counter[str]] = {_BY_SUFFIX: Counter(), _BY_CONTENT: Counter()}
        self._paths: set[Location] = set()

    def take(self, path: Path) -> None:
        """A path that exists."""
        if path.is_dir():
            self._take_folder(path)
        else:
            self._add(_video_id(PurePath(path.name)), path)

    def take_remote(self, path: RemotePath) -> None:
        """A URL: an object or a prefix of an object store, a file of the web. Raises ``RemoteError`` if it is none."""
        path = path if self._web is None else RemotePath(path.url, self._web, path.info)
        if path.is_web and path.web is None:
            raise RemoteError(f"{path}: URLs of the web are not read unless --allow-http asks for it")
        if path.is_web:
            self._add(_video_id(PurePath(path.name)), path)
        elif not path.url.endswith("/") and path.is_file():
            self._add(_video_id(PurePath(path.name)), path.pinned())
        elif not self._take_prefix(path):
            raise RemoteMissingError(f"{path}: no such object, and none below it")

    def _take_prefix(self, root: RemotePath) -> bool:
        """Whether there are objects below it."""
        path = None
        for path in root.below():
            place = PurePath(path.url.removeprefix(root.url.rstrip("/") + "/"))
            suffix = place.suffix.lower()
            if any(part.startswith(".") for part in place.parts):
                self._pass_over(_HIDDEN)
            elif len(place.parts) > 1 and not self._is_recursive:
                self._pass_over(_DEEPER)
            elif suffix in VIDEO_SUFFIXES:
                self._add(_video_id(place), path)
            else:
                self._pass_over(_BY_SUFFIX, suffix)
        return path is not None

    def take_lines(self, content: bytes) -> None:
        for line in _lines(content):
            path = location(os.fsdecode(line), web=self._web)
            try:
                if isinstance(path, Path):
                    path.stat()
                    self.take(path)
                elif path.suffix.lower() in VIDEO_SUFFIXES and not path.is_web:
                    self._add(_video_id(PurePath(path.name)), path)
                else:
                    self.take_remote(path)
            except OSError as error:
                self._fail(PurePath(path.name), path, error)

    def passed_over_line(self) -> str:
        """What was passed over, for people; empty if nothing was."""
        parts = []
        for reason, count in sorted(self.passed_over.items()):
            suffixes = self._suffixes.get(reason, Counter()).most_common(_SUFFIXES_NAMED)
            named = ", ".join(f"{suffix or 'no suffix'} {number}" for suffix, number in suffixes)
            parts.append(f"{count} x {reason}" + (f" ({named})" if named else ""))
        return f"passed over {'; '.join(parts)}" if parts else ""

    def _take_folder(self, root: Path) -> None:
        seen: set[tuple[int, int]] = set()
        folders, links = [root], list[Path]()
        while folders or links:
            # Folders before links to them, so that an id does not depend on where the links are.
            folder = folders.pop() if folders else links.pop()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in seen:
                    self._pass_over(_SEEN)
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self._fail(Path(folder.name) if folder == root else folder.relative_to(root), folder, error)
                continue
            for entry in entries:
                path = Path(entry.path)
                place = path.relative_to(root)
                try:
                    if entry.name.startswith("."):
                        self._pass_over(_HIDDEN)
                    elif not path.is_dir():
                        self._take_entry(path, place, is_link=entry.is_symlink())
                    elif self._is_recursive:
                        (links if entry.is_symlink() else folders).append(path)
                    else:
                        self._pass_over(_DEEPER)
                except OSError as error:
                    self._fail(place, path, error)

    def _take_entry(self, path: Path, place: Path, *, is_link: bool) -> None:
        """What is in a folder and is none. Raises ``OSError`` for what cannot be looked at."""
        suffix = place.suffix.lower()
        if suffix in OTHER_SUFFIXES:
            self._pass_over(_BY_SUFFIX, suffix)
            return
        if is_link:
            path.stat()  # says why a link leads nowhere
        if not path.is_file():
            self._pass_over(_SPECIAL)
            return
        try:
            is_video = self._is_video(path, suffix)
        except CallEndedError as error:
            self._fail(place, path, OSError(f"probing it failed: {error}"))
            return
        if is_video:
            self._add(_video_id(place), path)
        else:
            self._pass_over(_BY_CONTENT, suffix)

    def _is_video(self, path: Path, suffix: str) -> bool:
        if suffix in VIDEO_SUFFIXES:
            return not (suffix in TEXT_SUFFIXES and _is_text(path))
        return self._process.call(holds_video, path, limit_s=_PROBE_LIMIT_S)

    def _add(self, video_id: str, path: Location) -> None:
        self.num_reached += 1
        absolute = path.absolute()
        if absolute in self._paths:
            return
        if self._ids_are_paths:
            video_id = _as_id(absolute)
        other = self.found.setdefault(video_id, path)
        if not _are_one_file(other, path):
            above = "" if other.parent == path.parent else ", or give one folder above both"
            raise ConfigError(f"{other} and {path} have the same video id, '{video_id}'; rename one of them{above}")
        self._paths.add(absolute)

    def _fail(self, place: PurePath, path: Location, error: OSError) -> None:
        reason = error.strerror or str(error)
        with suppress(OSError):  # where it is no link, or its folder may not be searched
            reason = f"{reason} (a link to {path.readlink()})" if isinstance(path, Path) else reason
        failure = Failure(_video_id(place), path, _STAGE, reason)
        log_failure(failure)
        self.num_reached += 1
        self.failures.append(failure)

    def _pass_over(self, reason: str, suffix: str | None = None) -> None:
        self.passed_over[reason] += 1
        if suffix is not None:
            self._suffixes[reason][suffix] += 1


def _is_text(path: Path) -> bool:
    """Whether a file begins as UTF-8 without NUL; an empty one does not."""
    with path.open("rb") as file:
        content = file.read(_TEXT_BYTES)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return bool(text) and "\0" not in text


def _are_one_file(path: Location, other: Location) -> bool:
    if isinstance(path, Path) and isinstance(other, Path):
        return path.samefile(other)
    return path == other


def _video_id(place: PurePath) -> str:
    """The path of a video below the folder that was given, without its last suffix, as text that UTF-8 can hold."""
    without_suffix = place.with_suffix("") if place.name else place
    return _as_id(without_suffix)


def _as_id(path: PurePath | Location) -> str:
    if isinstance(path, RemotePath):
        return str(path)
    return as_utf8(path.as_posix())


def _read_list(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path} as a list of paths: {error.strerror}") from error


def _lines(content: bytes) -> Iterator[bytes]:
    """The paths of a list."""
    if b"\0" in content:
        return filter(None, content.split(b"\0"))
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return filter(None, (line.removesuffix(b"\r") for line in lines))
