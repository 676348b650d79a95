"""``catalog.json``: what decides the descriptors of a catalogue, how they are compared and where they lie.

It is written once, when the catalogue is made.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config import Preset, explain
from engine.errors import RemoteError, StoreError
from engine.files import written_aside
from engine.storage.location import Location

FORMAT_VERSION = 5
MANIFEST_NAME = "catalog.json"
MILVUS_STATE = "milvus.json"
"""The file of a catalogue whose rows lie in Milvus; see `engine.catalog.milvus_rows`."""


class MilvusRowsAt(BaseModel):
    """Where rows lie in Milvus. ``uri``: ``http[s]://HOST[:PORT][/DATABASE]``, with no secret in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    collection: str


class CatalogManifest(BaseModel):
    """``identity``: as `engine.describe.engine.Engine.identity` gives it for references, as JSON.

    ``preset``: how uploads are described and compared. ``norm_set_sha256``: of the rows in ``norm_set.npz``, None
    without score normalization. ``engines_folder``: where the engines lay; None for those in the user's cache.
    ``num_shares``: as `engine.catalog.shares.Shares` has them, 1 or more. ``milvus``: where the rows lie, None where
    they lie in the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    identity: dict[str, Any]
    preset: Preset
    num_dims: int
    norm_set_sha256: str | None
    engines_folder: str | None
    num_shares: int = Field(default=1, ge=1)
    milvus: MilvusRowsAt | None = None


def write_manifest(folder: Location, manifest: CatalogManifest) -> None:
    """Write ``catalog.json``, all at once: the last act of making a catalogue."""
    text = manifest.model_copy(update={"format_version": FORMAT_VERSION}).model_dump_json(indent=1)
    with written_aside(folder / MANIFEST_NAME) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Location) -> CatalogManifest:
    """Read ``catalog.json``. Raises ``StoreError`` for a folder without one, another version, and a damaged file.

    Raises ``RemoteError`` for an object store that does not answer, or not to this user.
    """
    path = folder / MANIFEST_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{folder} is not a catalogue: it has no {MANIFEST_NAME}; make one with "
            f"`vsc-engine catalog create {folder}`"
        ) from error
    except RemoteError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}; restore it from a copy") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{folder} was written by a newer version of vsc-engine (format {version}, this one reads "
            f"{FORMAT_VERSION}); update vsc-engine"
        )
    try:
        return CatalogManifest.model_validate(values)
    except ValidationError as error:
        raise StoreError(f"{path} is not that of a catalogue: {explain(error, CatalogManifest)}") from error
