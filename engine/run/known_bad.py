"""Files that gave no descriptors for a reason that lies in their content: remembered, so that they are tried once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from engine.files import file_sha256
from engine.records import Failure, Media
from engine.storage.location import Location
from engine.store.shards import Fingerprint
from engine.store.store import KnownBad
from engine.version import __version__


def known_failures(
    media: Sequence[Media], fingerprints: Mapping[str, Fingerprint], known_bad: Sequence[KnownBad]
) -> dict[str, Failure]:
    """The failures, by video id, of those files that are known, under whatever name; nothing is known to new versions.

    A file is hashed only if one of its size is known, and not if it is that one, unchanged.
    """
    reader = _reader()
    found = {}
    for item in media:
        fingerprint = fingerprints.get(item.video_id)
        if fingerprint is None:
            continue
        entries = [
            entry for entry in known_bad if entry.reader == reader and entry.size_bytes == fingerprint.size_bytes
        ]
        same = [entry for entry in entries if (entry.failure.path, entry.mtime_ns) == (item.path, fingerprint.mtime_ns)]
        if entries and not same:
            sha256 = _content_id(item.path)
            same = [entry for entry in entries if entry.sha256 == sha256]
        if same:
            found[item.video_id] = replace(same[0].failure, video_id=item.video_id, path=item.path)
    return found


def remember(failures: Sequence[Failure], fingerprints: Mapping[str, Fingerprint]) -> list[KnownBad]:
    """What is to be known of failures: those that the content explains, of files that can be read."""
    found = []
    for failure in failures:
        fingerprint = fingerprints.get(failure.video_id)
        sha256 = _content_id(failure.path) if failure.is_of_content else None
        if fingerprint is not None and sha256 is not None:
            found.append(
                KnownBad(
                    sha256=sha256,
                    size_bytes=fingerprint.size_bytes,
                    mtime_ns=fingerprint.mtime_ns,
                    reader=_reader(),
                    failure=failure,
                )
            )
    return found


def _reader() -> str:
    return f"vsc-engine {__version__}, PyAV {metadata.version('av')}"


def _content_id(path: Location) -> str | None:
    """The hash of a file, of a remote one its version instead; None where it cannot be read."""
    try:
        return file_sha256(path) if isinstance(path, Path) else f"{path} {path.stat().version}"
    except OSError:
        return None
