"""The tables of a catalogue, in one folder or in several shares, each of which holds some of the videos.

On which share a video lies depends on its id alone, so that nothing needs to be looked up and every process agrees. A
share is a folder of its own, with its own files and its own index: another machine can hold it in memory and search it.
It has a copy of ``catalog.json``, by which a share of another catalogue is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from engine.catalog.manifest import MANIFEST_NAME, CatalogManifest, read_manifest, write_manifest
from engine.catalog.tables import Entry, Tables
from engine.errors import StoreError
from engine.records import Descriptors
from engine.storage.location import Location

_Item = TypeVar("_Item")


def share_of(video_id: str, *, num_shares: int) -> int:
    """The number of the share that a video lies on: the first 8 bytes of the SHA-256 of its id, modulo their number."""
    digest = hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % num_shares


def share_folders(folder: Location, manifest: CatalogManifest) -> list[Location]:
    """Where the tables of a catalogue lie: its own folder, or one in it for each share."""
    num_shares = manifest.num_shares
    return [folder] if num_shares == 1 else [folder / f"share-{n}-of-{num_shares}" for n in range(num_shares)]


@dataclass(frozen=True, eq=False)
class Shares:
    """The tables of all shares, as those of one catalogue. `Tables` says more about each method."""

    tables: Sequence[Tables]

    @classmethod
    def create(cls, folder: Location, manifest: CatalogManifest) -> Self:
        """Make empty tables, and the folders of the shares. Raises as `Tables.create`."""
        tables = []
        for share in share_folders(folder, manifest):
            if isinstance(share, Path):
                share.mkdir(exist_ok=True)
            tables.append(Tables.create(share, num_dims=manifest.num_dims, milvus=manifest.milvus))
            if share != folder:
                write_manifest(share, manifest)
        return cls(tables)

    @classmethod
    def open(cls, folder: Location, manifest: CatalogManifest) -> Self:
        """Open what `create` made. Raises ``StoreError`` for shares that are missing or of another catalogue."""
        folders = share_folders(folder, manifest)
        if folder not in folders and folder.name in {share.name for share in folders}:
            raise StoreError(f"{folder} is one share of a catalogue, of no use alone; name that: {folder.parent}")
        return cls([open_share(share, manifest) for share in folders])

    def refresh(self) -> None:
        """Go to the newest versions."""
        for tables in self.tables:
            tables.refresh()

    def begin_writing(self) -> None:
        """Before anything is changed."""
        for tables in self.tables:
            tables.begin_writing()

    def new_revision(self) -> int:
        """A number above those of all shares."""
        return max(tables.new_revision() for tables in self.tables)

    def entries(self) -> dict[str, Entry]:
        """All videos by id, sorted."""
        found = [entry for tables in self.tables for entry in tables.entries().values()]
        entries = {entry.video.video_id: entry for entry in sorted(found, key=lambda entry: entry.video.video_id)}
        if len(entries) != len(found):
            raise StoreError("two shares of the catalogue hold the same video; `vsc-engine catalog verify` names it")
        return entries

    def num_indexed_rows(self) -> int:
        """Rows in the approximate indexes."""
        return sum(tables.num_indexed_rows() for tables in self.tables)

    def commit(self, described: Iterable[tuple[Entry, Descriptors]]) -> None:
        """Write new videos, all of a share at once."""
        for tables, items in self._split((entry.video.video_id, (entry, video)) for entry, video in described):
            tables.commit(items)

    def put(self, entries: Iterable[Entry]) -> None:
        """Write entries, whose rows are there, in place of those with the same ids; all of a share at once."""
        for tables, items in self._split((entry.video.video_id, entry) for entry in entries):
            tables.put(items)

    def remove(self, revisions: Collection[int]) -> None:
        """Take videos away, all of a share at once."""
        wanted = set(revisions)
        for tables in self.tables:
            found = [entry.revision for entry in tables.entries().values() if entry.revision in wanted]
            if found:
                tables.remove(found)

    def remove_orphans(self) -> None:
        """Delete rows that belong to no video."""
        for tables in self.tables:
            tables.remove_orphans()

    def orphans(self) -> dict[int, int]:
        """How many rows there are of each revision that belongs to no video."""
        return {revision: count for tables in self.tables for revision, count in tables.orphans().items()}

    def tend(self, *, index_above: int, merge: bool = False) -> None:
        """Keep searches fast; ``index_above`` counts for each share."""
        for tables in self.tables:
            tables.tend(index_above=index_above, merge=merge)

    def _split(self, items: Iterable[tuple[str, _Item]]) -> list[tuple[Tables, list[_Item]]]:
        """The items of each share that has any, by the ids of their videos."""
        parts: list[list[_Item]] = [[] for _ in self.tables]
        for video_id, item in items:
            parts[share_of(video_id, num_shares=len(parts))].append(item)
        return [(tables, part) for tables, part in zip(self.tables, parts, strict=True) if part]


def open_share(folder: Location, manifest: CatalogManifest) -> Tables:
    """Open the tables of one share. Raises ``StoreError`` where they are missing or of another catalogue."""
    if manifest.num_shares > 1:
        if not (folder / MANIFEST_NAME).is_file():
            raise StoreError(
                f"the catalogue {folder.parent} has {manifest.num_shares} shares, and {folder.name} is missing or "
                f"incomplete: it has no {MANIFEST_NAME}; restore it from a copy"
            )
        own, others = (found.model_dump(exclude={"engines_folder"}) for found in (manifest, read_manifest(folder)))
        if own != others:
            raise StoreError(
                f"{folder} is a share of another catalogue: its {MANIFEST_NAME} is not that of {folder.parent}; "
                "restore it from a copy"
            )
    return Tables.open(folder, num_dims=manifest.num_dims, milvus=manifest.milvus)
