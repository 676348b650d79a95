"""What a person names to be added: video files, folders of them, descriptors made before, and other catalogues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from engine.catalog.manifest import MANIFEST_NAME, CatalogManifest
from engine.catalog.manifest import read_manifest as read_catalog_manifest
from engine.catalog.shares import Shares
from engine.catalog.tables import Entry, Tables
from engine.console import as_utf8, log_failure
from engine.errors import ConfigError, MediaError, StoreError
from engine.files import writing
from engine.records import Descriptors, Failure, Media
from engine.storage.location import Location, RemotePath, WebAccess
from engine.store.store import identity_differences, read_descriptors, read_manifest
from engine.video.discovery import discover


@dataclass(frozen=True)
class Inputs:
    """Videos to be described, descriptors with the store or ``.npz`` that holds them, and videos of other catalogues
    whose rows are taken as they are; each id once in all.

    ``failures``: what was named and cannot be read.
    """

    media: list[Media]
    described: list[tuple[Descriptors, Location]]
    copied: list[tuple[Tables, list[Entry]]]
    failures: tuple[Failure, ...]


def read_inputs(paths: Sequence[Location], manifest: CatalogManifest, *, web: WebAccess | None = None) -> Inputs:
    """Find the videos and read the descriptors that ``paths`` name; a catalogue with ``manifest`` is to take them.

    A store says which engines made it, an ``.npz`` does not: only its dimension is compared. The rows of another
    catalogue are taken if its identity is the same; if not, the files of its videos are described again, under the ids
    that they have there. Raises ``ConfigError`` as `engine.video.discovery.discover` does, and for an id that is there
    twice; ``StoreError`` for a store of other engines or settings, and descriptors of another dimension.
    """
    catalogs = [path for path in paths if _has(path, MANIFEST_NAME)]
    stores = [path for path in paths if path not in catalogs and _holds_descriptors(path)]
    others = [path for path in paths if path not in catalogs and path not in stores]
    found = discover(others, web=web) if others else None
    media = [] if found is None else found.media
    failures = [] if found is None else list(found.failures)
    sources = {item.video_id: item.path for item in media}

    def claim(video_id: str, path: Location) -> None:
        other = sources.setdefault(video_id, path)
        if other != path:
            raise ConfigError(f"{other} and {path} both hold the video id '{video_id}'; add one of them")

    described, copied = [], []
    for path in stores:
        for video in _read(path, manifest):
            claim(video.video_id, path)
            described.append((video, path))
    for path in catalogs:
        shares, is_same = _read_catalog(path, manifest)
        for tables, entries in shares:
            for entry in entries:
                claim(entry.video.video_id, path)
            if is_same:
                copied.append((tables, entries))
            else:
                again, without_file = _described_again(entries)
                media += again
                failures += without_file
    return Inputs(media, described, copied, tuple(failures))


def _read_catalog(path: Location, manifest: CatalogManifest) -> tuple[list[tuple[Tables, list[Entry]]], bool]:
    """The shares of another catalogue, each with its videos in the order that they were added; whether its rows fit."""
    other = read_catalog_manifest(path)
    shares = Shares.open(path, other)
    shares.refresh()
    found = [(tables, sorted(tables.entries().values(), key=lambda entry: entry.revision)) for tables in shares.tables]
    return found, other.identity == manifest.identity


def _described_again(entries: Sequence[Entry]) -> tuple[list[Media], list[Failure]]:
    media, failures = [], []
    for entry in entries:
        video_id, path = entry.video.video_id, entry.video.path
        if path.suffix == ".npz" or path.is_dir():
            reason = f"its descriptors came from {path}, and no video is known; add what these engines made of it"
            failures.append(Failure(video_id, path, "add", reason))
            log_failure(failures[-1])
        else:
            media.append(Media(video_id, path))
    return media, failures


def _holds_descriptors(path: Location) -> bool:
    return _has(path, "manifest.json") or (path.suffix == ".npz" and not _is_web(path))


def _has(path: Location, name: str) -> bool:
    return not _is_web(path) and (path / name).is_file()


def _is_web(path: Location) -> bool:
    return isinstance(path, RemotePath) and path.is_web


def _read(path: Location, manifest: CatalogManifest) -> list[Descriptors]:
    if path.is_dir():
        check_identity(read_manifest(path).identity, manifest, what=f"the descriptors in {path}")
    videos = read_descriptors(path, role="reference")
    for video in videos:
        num_dims = video.descriptors.shape[1]
        if num_dims != manifest.num_dims:
            raise StoreError(
                f"{path}: '{video.video_id}' has descriptors of {num_dims} dimensions, the catalogue of "
                f"{manifest.num_dims}; both must come from the same engines"
            )
    return videos


@contextmanager
def as_file(upload: bytes | BinaryIO) -> Iterator[tuple[Path, str]]:
    """Yield the path of a temporary file with these bytes, or what is left to read of an open file, and a video id.

    The id is the name of an open file without its last suffix, else ``upload``. The file is gone when the block ends,
    and the errors of the block name ``upload`` in its place. Raises ``ConfigError`` for anything but bytes.
    """
    with TemporaryDirectory(prefix="vsc-engine-") as folder:
        path = Path(folder) / "upload"
        with writing(path), path.open("wb") as file:
            if isinstance(upload, bytes | bytearray | memoryview):
                file.write(upload)
            else:
                _copy(upload, file)
        try:
            yield path, _name(upload)
        except MediaError as error:
            raise MediaError(str(error).replace(str(path), _name(upload))) from error


def _copy(source: Any, file: BinaryIO) -> None:
    if not hasattr(source, "read"):
        raise ConfigError(
            f"got an upload of type {type(source).__name__}; expected a path, bytes, a file opened with mode 'rb', or "
            "Descriptors (of decoded frames: Engine.describe_frames)"
        )
    try:
        shutil.copyfileobj(source, file)
    except (TypeError, ValueError) as error:  # opened for text, or for writing; closed
        raise ConfigError(f"the upload cannot be read as bytes ({error}); open it with mode 'rb'") from error


def _name(upload: Any) -> str:
    name = getattr(upload, "name", None)  # of a pipe it is a number
    return (Path(name).stem if isinstance(name, str) else "") or "upload"


def check_utf8(path: Location) -> None:
    """Raise ``ConfigError`` for a path that is not UTF-8, and so cannot be written into a catalogue."""
    told = as_utf8(str(path))
    if told != str(path):
        raise ConfigError(f"the path {told} is not UTF-8, which a catalogue cannot keep; rename it")


def check_identity(identity: object, manifest: CatalogManifest, *, what: str) -> None:
    """Raise ``StoreError`` unless ``identity`` is that of the catalogue: descriptors of others are never mixed."""
    differing = identity_differences(manifest.identity, json.loads(json.dumps(identity)))
    if differing:
        raise StoreError(
            f"{what} cannot be compared with those of the catalogue: different are {', '.join(differing)}; use its "
            "engines, or make a new catalogue with these"
        )
