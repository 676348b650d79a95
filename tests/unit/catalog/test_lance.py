"""How LanceDB is told where a catalogue lies, by what fsspec, which reads the same URL, finds in the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

from engine.catalog.lance import made_table, opened_table, readable, writable
from engine.errors import RemoteError, StoreError
from engine.storage.location import RemotePath
from tests.object_store import BUCKET, Failure, ObjectStore, running_store

SCHEMA = pa.schema([pa.field("number", pa.int64())])


def test_tables_lie_where_the_other_objects_of_google_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_store("gs") as store:
        folder = store.path("catalogue")
        made_table(folder, "videos", SCHEMA).add([{"number": 7}])
        assert any(key.startswith("catalogue/videos.lance/") for key in store.keys("catalogue"))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.endpoint.removeprefix("http://"))
        found = opened_table(RemotePath(folder.url.replace("gs://", "gcs://")), "videos", SCHEMA)
        assert found.to_arrow().to_pylist() == [{"number": 7}]


@pytest.mark.long
def test_without_credentials_of_google_one_line_says_what_to_set() -> None:
    """Where fsspec needs none, as for a public bucket, or has some of its own; nothing answers beyond this machine."""
    script = (
        "import pyarrow as pa; from engine.catalog.lance import opened_table;"
        "from engine.storage.location import location;"
        "opened_table(location('gs://videos/catalogue'), 'videos', pa.schema([]))"
    )
    hidden = ("GOOGLE_", "NO_PROXY", "STORAGE_EMULATOR_HOST")
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(hidden)}
    environment |= {"HOME": "/nonexistent", "HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}
    environment |= {name.lower(): environment[name] for name in ("HTTP_PROXY", "HTTPS_PROXY")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    line = done.stderr.splitlines()[-1]
    assert "gs://videos/catalogue/videos.lance" in line
    assert "no credentials were found; set GOOGLE_APPLICATION_CREDENTIALS" in line
    assert "damaged" not in line


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        pytest.param(403, "AccessDenied", "access is denied to these credentials", marks=pytest.mark.long),
        pytest.param(400, "ExpiredToken", "the credentials have expired; renew them", marks=pytest.mark.long),
        (409, "OperationAborted", "the store answered OperationAborted; try again"),
    ],
)
def test_what_a_store_refuses_is_no_damage(status: int, code: str, said: str, object_store: ObjectStore) -> None:
    folder = object_store.path(f"refused-{status}")
    table = made_table(folder, "videos", SCHEMA)
    table.add([{"number": 7}])
    object_store.failures["refused"] = Failure(status, code)
    with pytest.raises(RemoteError) as read, readable(folder, "videos"):
        table.checkout_latest()
    assert str(read.value) == f"the table {folder}/videos.lance cannot be read: {said}"
    with pytest.raises(RemoteError) as opened:
        opened_table(folder, "videos", SCHEMA)
    assert str(opened.value) == str(read.value)
    with pytest.raises(RemoteError) as written, writable(folder):
        table.add([{"number": 8}])
    assert str(written.value) == f"cannot write the tables of the catalogue {folder}: {said}"
    object_store.failures.clear()
    object_store.direct.rm(f"{BUCKET}/{folder.name}/videos.lance/data", recursive=True)
    with pytest.raises(StoreError, match="is damaged"), readable(folder, "videos"):
        opened_table(folder, "videos", SCHEMA).to_arrow()
