"""Copies of a catalogue from and to an object store; those between folders are in ``test_catalog.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.catalog.catalog import Catalog
from engine.errors import EngineError, RemoteError, StoreError
from tests.catalogs import contents, npz, video
from tests.object_store import Failure, ObjectStore


@pytest.mark.parametrize("num_shares", [1, 2])
def test_a_copy_in_an_object_store_is_a_catalogue_and_comes_back_whole(
    object_store: ObjectStore, tiny_engines: Path, tmp_path: Path, num_shares: int
) -> None:
    catalog = Catalog.create(tmp_path / "catalogue", engines=tiny_engines, num_shares=num_shares)
    catalog.add([npz(tmp_path / "a.npz", *map(video, "abcdef"))])
    expected = contents(catalog)
    first, second = (object_store.path(f"backups/{num_shares}/{name}") for name in ("first", "second"))
    catalog.backup(first)
    catalog.remove(["a"])
    copy = Catalog.open(first)
    assert contents(copy) == expected
    assert copy.verify().problems == ()
    with pytest.raises(StoreError, match="first exists already; choose a new place"):
        catalog.backup(first)
    copy.backup(second)
    Catalog.open(second).backup(tmp_path / "restored")
    restored = Catalog.open(tmp_path / "restored")
    assert contents(restored) == expected
    assert restored.verify().problems == ()
    restored.remove(["b"])
    assert sorted(contents(Catalog.open(second))) == list("abcdef")
    assert not [key for key in object_store.keys("backups") if key.endswith(".lock")]


def test_a_copy_that_fails_in_between_is_no_catalogue(
    object_store: ObjectStore, tiny_engines: Path, tmp_path: Path
) -> None:
    catalog = Catalog.create(tmp_path / "catalogue", engines=tiny_engines)
    catalog.add([npz(tmp_path / "a.npz", video("a"))])
    target = object_store.path("backup_cut")
    object_store.failures["backup_cut/videos.lance/"] = Failure(403, "AccessDenied", methods=("PUT", "POST"))
    with pytest.raises(RemoteError, match="cannot be written: access is denied"):
        catalog.backup(target)
    object_store.failures.clear()
    assert object_store.keys("backup_cut")
    with pytest.raises(StoreError, match="not a catalogue"):
        Catalog.open(target)
    with pytest.raises(StoreError, match="backup_cut exists already"):
        catalog.backup(target)

    whole = object_store.path("backup_whole")
    catalog.backup(whole)
    object_store.failures["backup_whole/videos.lance/"] = Failure(403, "AccessDenied", methods=("GET",))
    with pytest.raises(EngineError):
        Catalog.open(whole).backup(tmp_path / "restored")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "catalogue"]
