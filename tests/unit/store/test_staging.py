from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import RemoteError, StoreError
from engine.records import Descriptors
from engine.storage.location import RemotePath
from engine.store.shards import Fingerprint
from engine.store.staging import staged
from engine.store.store import StoreWriter, read_descriptors, read_manifest
from tests.object_store import Failure, ObjectStore

IDENTITY = {"engines": "abc", "role": "query"}


def video(name: str, *, seed: int = 0) -> Descriptors:
    rows = np.random.default_rng([seed, *name.encode()]).standard_normal((3, 4)).astype(np.float32)
    return Descriptors(name, np.array([[0, 1], [1, 2], [2, 3]], np.float32), rows)


def write(
    folder: RemotePath | Path, *names: str, cache: Path, identity: dict[str, str] | None = None, seed: int = 0
) -> None:
    with (
        staged(folder, cache=lambda: cache) as copy,
        StoreWriter(copy, identity=identity or IDENTITY, rows_per_shard=6) as writer,
    ):
        writer.discard(set(names) & set(writer.finished))
        for name in names:
            writer.add(video(name, seed=seed), Fingerprint(1, seed))
        writer.finish()


def found(folder: RemotePath) -> dict[str, list[list[float]]]:
    return {item.video_id: item.descriptors.tolist() for item in read_descriptors(folder)}


def expected(*names: str, seed: int = 0) -> dict[str, list[list[float]]]:
    return {name: video(name, seed=seed).descriptors.tolist() for name in names}


def test_a_folder_of_this_machine_is_written_itself(tmp_path: Path) -> None:
    write(tmp_path / "store", "a", cache=tmp_path / "cache")
    assert (tmp_path / "store" / "manifest.json").is_file()
    assert not (tmp_path / "cache").exists()


def test_a_store_is_whole_in_the_object_store_and_gone_here(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = object_store.path("whole_store")
    write(folder, "a", "b", "c", cache=tmp_path)
    assert found(folder) == expected("a", "b", "c")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == []
    write(folder, "d", cache=tmp_path)
    assert found(folder) == expected("a", "b", "c", "d")


def test_a_video_that_is_replaced_leaves_readers_the_store_of_before(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = object_store.path("replaced")
    write(folder, "a", "b", "c", cache=tmp_path)
    before = read_manifest(folder)
    write(folder, "a", cache=tmp_path, seed=1)
    assert found(folder) == {**expected("a", "b", "c"), **expected("a", seed=1)}
    assert before.shards.keys() - read_manifest(folder).shards.keys()
    for name in before.shards:  # who has read the old manifest still finds what it speaks of
        assert (folder / name).is_file()
    write(folder, "b", cache=tmp_path, seed=2)
    assert found(folder) == {**expected("c"), **expected("a", seed=1), **expected("b", seed=2)}
    assert not all((folder / name).is_file() for name in before.shards)


def test_what_was_written_before_an_error_is_gone_on_with(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = object_store.path("interrupted")

    def stop() -> None:
        with staged(folder, cache=lambda: tmp_path) as copy, StoreWriter(copy, identity=IDENTITY) as writer:
            writer.add(video("a"), Fingerprint(1, 0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert object_store.keys("interrupted") == []
    with staged(folder, cache=lambda: tmp_path) as copy, StoreWriter(copy, identity=IDENTITY) as writer:
        assert list(writer.finished) == ["a"]
        writer.finish()
    assert found(folder) == expected("a")


def test_an_upload_that_fails_changes_nothing_and_is_tried_again(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = object_store.path("upload")
    write(folder, "a", cache=tmp_path)
    object_store.failures["upload/shard-00001"] = Failure(403, "AccessDenied", methods=("PUT", "POST"))
    with pytest.raises(RemoteError, match="cannot be written: access is denied"):
        write(folder, "b", cache=tmp_path)
    assert found(folder) == expected("a")
    object_store.failures.clear()
    with staged(folder, cache=lambda: tmp_path) as copy, StoreWriter(copy, identity=IDENTITY) as writer:
        assert set(writer.finished) == {"a", "b"}
        writer.finish()
    assert found(folder) == expected("a", "b")


def test_a_first_upload_that_fails_is_tried_again_here_and_elsewhere(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = object_store.path("first")
    object_store.failures["first/manifest.json"] = Failure(403, "AccessDenied", methods=("PUT",))
    with pytest.raises(RemoteError, match="cannot be written: access is denied"):
        write(folder, "a", cache=tmp_path / "one")
    object_store.failures.clear()
    assert [key for key in object_store.keys("first") if key.endswith(".parquet")]
    write(folder, "b", cache=tmp_path / "one")
    assert found(folder) == expected("a", "b")

    other = object_store.path("second")
    object_store.put("second/shard-00000-0123abcd.parquet", b"of a process that was killed")
    write(other, "a", cache=tmp_path / "two")
    assert found(other) == expected("a")
    assert object_store.keys("second/shard-00000-0123abcd") == []


@pytest.mark.parametrize("when", ["manifest", "shard"])
def test_of_two_writers_the_one_that_ends_later_is_refused(
    object_store: ObjectStore, tmp_path: Path, when: str
) -> None:
    folder = object_store.path(f"two_{when}")
    write(folder, "a", cache=tmp_path / "one")
    failure = Failure(times=1, methods=("PUT",), before=lambda: write(folder, "b", cache=tmp_path / "other"))
    object_store.failures[f"two_{when}/{when}"] = failure
    with pytest.raises(StoreError, match="changed by another process meanwhile; run the same command again"):
        write(folder, "c", cache=tmp_path / "one")
    assert found(folder) == expected("a", "b")
    write(folder, "c", cache=tmp_path / "one")
    assert found(folder) == expected("a", "b", "c")


def test_other_engines_and_other_objects_are_refused(object_store: ObjectStore, tmp_path: Path) -> None:
    folder = object_store.path("identity")
    write(folder, "a", cache=tmp_path)
    with pytest.raises(StoreError, match=r"^s3://videos/identity holds descriptors of another origin"):
        write(folder, "b", cache=tmp_path, identity={"engines": "other", "role": "query"})
    object_store.put("full/film.mp4", b"x")
    with pytest.raises(StoreError, match=r"^s3://videos/full holds other objects"):
        write(object_store.path("full"), "a", cache=tmp_path)
    assert object_store.keys("full") == ["full/film.mp4"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda store: store.put("damaged/manifest.json", b"{"), "is not the manifest of a descriptor store"),
        (
            lambda store: store.put(next(key for key in store.keys("damaged") if "shard" in key), b"x"),
            "its checksum is not that of the manifest",
        ),
    ],
)
def test_damage_is_noticed(
    object_store: ObjectStore, tmp_path: Path, damage: Callable[[ObjectStore], object], said: str
) -> None:
    folder = object_store.path("damaged")
    for key in object_store.keys("damaged"):
        object_store.path(key).unlink()
    write(folder, "a", cache=tmp_path)
    damage(object_store)
    with pytest.raises(StoreError, match=said):
        read_descriptors(folder)


def test_a_place_without_a_store_says_so(object_store: ObjectStore) -> None:
    with pytest.raises(StoreError, match=r"s3://videos/nowhere, which is neither"):
        read_descriptors(object_store.path("nowhere"))


def test_a_folder_of_this_machine_needs_no_cache(tmp_path: Path) -> None:
    def no_home() -> Path:
        raise AssertionError

    with staged(tmp_path, cache=no_home) as folder:
        assert folder == tmp_path
