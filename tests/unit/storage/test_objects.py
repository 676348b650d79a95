from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError, RemoteError, RemoteMissingError
from engine.files import exclusive, load_arrays, save_arrays, written_aside
from engine.storage.location import RemotePath
from engine.storage.ranged import RangedFile, Traffic, held
from tests.object_store import SCHEMES, Failure, ObjectStore, running_store

CONTENT = bytes(range(256)) * 4000


@pytest.fixture(scope="module", params=SCHEMES)
def running_cloud(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    if request.param == "s3":
        yield request.getfixturevalue("running_object_store")
    else:
        with running_store(request.param) as store:
            yield store


@pytest.fixture
def any_store(running_cloud: ObjectStore) -> Iterator[ObjectStore]:
    """Each of the object stores whose servers are here; as `object_store`."""
    running_cloud.requests.clear()
    yield running_cloud
    running_cloud.failures.clear()


def read(path: RemotePath) -> bytes:
    with held(path) as opened:
        return opened.read_bytes()


def test_objects_are_read_and_written_whole(any_store: ObjectStore) -> None:
    path = any_store.path("whole/table.csv")
    assert not path.exists()
    with written_aside(path) as aside:
        aside.write_bytes(b"a,b\r\n")
        assert not path.exists()
    assert path.read_bytes() == b"a,b\r\n"
    assert path.open(newline="").read() == "a,b\r\n"
    assert path.is_file()
    assert not path.is_dir()
    assert path.parent.is_dir()
    assert path.stat().size_bytes == 5
    path.unlink()
    path.unlink(missing_ok=True)
    assert not path.exists()


def test_what_fails_while_it_is_made_leaves_what_was_there(any_store: ObjectStore) -> None:
    path = any_store.put("kept/table.csv", b"old")

    def write() -> None:
        with written_aside(path) as aside:
            aside.write_bytes(b"new")
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        write()
    assert path.read_bytes() == b"old"


def test_arrays_are_those_of_a_file(object_store: ObjectStore) -> None:
    import numpy as np

    path = object_store.path("arrays/x.npz")
    save_arrays(path, {"rows": np.arange(6).reshape(2, 3)})
    assert np.array_equal(load_arrays(path)["rows"], np.arange(6).reshape(2, 3))
    with pytest.raises(ValueError, match=r"s3://videos/arrays/none\.npz does not exist"):
        load_arrays(object_store.path("arrays/none.npz"))


def test_a_prefix_lists_its_objects_with_their_versions(any_store: ObjectStore) -> None:
    for key in ("list/b.mp4", "list/a/c d.mp4", "list2/x.mp4", "list/"):
        any_store.put(key, b"x")
    found = list(any_store.path("list").below())
    assert [path.url for path in found] == [str(any_store.path(f"list/{name}")) for name in ("a/c d.mp4", "b.mp4")]
    assert all(path.info == RemotePath(path.url).stat() for path in found)
    assert list(any_store.path("nothing").below()) == []


def test_ranges_are_counted(any_store: ObjectStore) -> None:
    path = any_store.put("ranges/x", CONTENT)
    with held(path) as opened:
        reader = opened.file.reader()
        reader.seek(500_000)
        assert reader.read(1000) == CONTENT[500_000:501_000]
        assert opened.file.traffic.size_bytes == len(CONTENT)
        assert 1000 <= opened.file.traffic.read_bytes < 200_000
        assert reader.seek(0) == 0
        assert opened.read_bytes() == CONTENT
        assert opened.file.traffic == Traffic(len(CONTENT), len(CONTENT))
        with held(opened) as same:
            assert same is opened


def test_a_store_that_is_busy_is_asked_again(object_store: ObjectStore) -> None:
    path = object_store.put("busy/x", CONTENT)
    object_store.failures["busy"] = failure = Failure(503, "SlowDown", times=3)
    assert read(path) == CONTENT
    assert failure.times == 0


def test_a_part_that_breaks_off_is_asked_for_again(any_store: ObjectStore) -> None:
    path = any_store.put("cut/x", CONTENT)
    any_store.failures["cut/x"] = failure = Failure(cuts=True, times=2, methods=("GET",))
    assert read(path) == CONTENT
    assert failure.times == 0


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (503, "SlowDown", "asked to slow down"),
        (403, "AccessDenied", "access is denied"),
        (400, "ExpiredToken", "the credentials have expired; renew them"),
        (403, "InvalidAccessKeyId", "does not know these credentials"),
        (301, "PermanentRedirect", "the bucket is in another region; set AWS_DEFAULT_REGION"),
    ],
)
def test_what_the_store_refuses_is_one_line(object_store: ObjectStore, status: int, code: str, said: str) -> None:
    path = object_store.put("refused/x", CONTENT)
    object_store.failures["refused"] = Failure(status, code)
    with pytest.raises(RemoteError, match=r"^s3://videos/refused/x: cannot be read: ") as error:
        read(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(RemoteError, match=r"^s3://videos/refused.*: cannot be written: "), written_aside(path) as aside:
        aside.write_bytes(b"new")
    object_store.failures.clear()
    assert read(path) == CONTENT


def test_what_is_denied_is_one_line_in_every_store(any_store: ObjectStore) -> None:
    path = any_store.put("denied/x", CONTENT)
    failure = Failure(403, "AuthorizationFailure" if any_store.scheme == "az" else "AccessDenied")
    any_store.failures |= {"denied": failure, "/upload/": failure}  # Google's URLs of writes have no name in them
    with pytest.raises(RemoteError, match=r"denied/x: cannot be read: access is denied to these credentials$"):
        read(path)
    with pytest.raises(RemoteError, match=r"denied/x: cannot be written: access is denied to these credentials$"):
        path.create(b"new")


def test_what_is_missing_is_a_file_that_is_not_found(any_store: ObjectStore) -> None:
    path = any_store.path("no/x")
    with pytest.raises(RemoteMissingError, match="no such object"):
        path.read_bytes()
    with pytest.raises(FileNotFoundError):
        read(path)


def test_a_missing_bucket_is_no_missing_file(any_store: ObjectStore, tmp_path: Path) -> None:
    """Who can do without a file would take it for an empty one."""
    path = RemotePath(f"{any_store.scheme}://no-such-bucket/x")
    for use in (path.read_bytes, path.is_file, path.is_dir, lambda: [*path.below()], lambda: path.create(b"x")):
        with pytest.raises(RemoteError, match="no such bucket as no-such-bucket; check its name") as raised:
            use()
        assert not isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize("size", [len(CONTENT), 10])
def test_an_object_that_changes_while_it_is_read_is_refused(any_store: ObjectStore, size: int) -> None:
    path = any_store.put("changing/x", CONTENT)

    def read_while_it_changes() -> None:
        with held(path) as opened:
            reader = opened.file.reader()
            assert reader.read(10) == CONTENT[:10]
            any_store.put("changing/x", CONTENT[::-1][:size])
            reader.seek(600_000)
            reader.read(10)
            assert any_store.scheme != "s3"  # which is asked for one version with each range

    with pytest.raises(RemoteError, match="changed while it was read"):
        read_while_it_changes()


def test_an_object_that_changes_when_all_is_read_is_refused(any_store: ObjectStore) -> None:
    path = any_store.put("changed/x", CONTENT)

    def read_and_change() -> None:
        with held(path) as opened:
            assert opened.read_bytes() == CONTENT
            any_store.put("changed/x", b"other")

    with pytest.raises(RemoteError, match="changed while it was read"):
        read_and_change()


def test_an_object_is_that_of_its_listing(any_store: ObjectStore) -> None:
    any_store.put("listed/x", CONTENT)
    (listed,) = any_store.path("listed").below()
    assert read(listed) == CONTENT
    any_store.put("listed/x", CONTENT[::-1])
    with pytest.raises(RemoteError, match="changed while it was read"):
        read(listed)
    assert read(RemotePath(listed.url)) == CONTENT[::-1]


def test_only_one_creates_and_only_one_replaces(any_store: ObjectStore) -> None:
    path = any_store.path("one/x")
    assert path.create(b"first")
    assert not path.create(b"second")
    assert path.read_bytes() == b"first"
    assert not path.replace(b"third", expected=b"something else")
    assert not path.replace(b"third", expected=None)
    assert path.replace(b"third", expected=b"first")
    assert path.read_bytes() == b"third"


@pytest.mark.parametrize("running_cloud", [scheme for scheme in SCHEMES if scheme != "gs"], indirect=True)
def test_a_replacement_that_comes_too_late_is_refused_by_the_store(any_store: ObjectStore) -> None:
    path = any_store.put("late/x", b"first")
    any_store.failures["late/x"] = Failure(
        times=1, methods=("PUT",), before=lambda: any_store.put("late/x", b"other") and None
    )
    assert not path.replace(b"mine", expected=b"first")
    assert path.read_bytes() == b"other"


def test_a_lock_says_who_holds_it_and_is_gone_afterwards(any_store: ObjectStore) -> None:
    lock = any_store.path("locked/.lock")
    with exclusive(lock):
        with (
            pytest.raises(RemoteError, match=rf"held by process {os.getpid()} of .* remove this object"),
            exclusive(lock),
        ):
            pass
        assert lock.exists()
    assert not lock.exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "memory://x", "simplecache::s3://b/k", "nonsense://x", "zip://a"]
)
def test_other_schemes_are_no_object_stores(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is no object store; expected s3://"):
        RangedFile.of(RemotePath(url))


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_a_store_whose_package_is_missing_is_named(scheme: str, package: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None; from engine.storage.location import location;"
        f"location('{scheme}://bucket/x').read_bytes()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"{scheme}:// needs {package}: " in done.stderr.splitlines()[-1]


def test_without_credentials_one_line_says_which_to_set(object_store: ObjectStore, tmp_path: Path) -> None:
    object_store.put("credentials/x", b"x")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment |= {
        "AWS_ENDPOINT_URL": object_store.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
    }
    script = "from engine.storage.location import location; location('s3://videos/credentials/x').read_bytes()"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "cannot be read: no credentials were found; set those of the store" in done.stderr.splitlines()[-1]
