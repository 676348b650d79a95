"""Videos, stores, tables and a catalogue in an S3 server that fails now and then, and videos of a web server."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from engine.catalog.catalog import Catalog
from engine.errors import EngineError
from engine.storage.location import location
from engine.store.store import read_descriptors
from tests.catalogs import contents
from tests.end_to_end.conftest import Catalogue, RunCli
from tests.object_store import Failure, ObjectStore, running_store, store_environment
from tests.videos import moving_frames, write_video


@pytest.fixture
def options(tiny_engines: Path) -> list[str]:
    """Engines that cost next to nothing: what is compared here is bytes, not whether copies are found."""
    return ["--engines", str(tiny_engines)]


def put_folder(store: ObjectStore, folder: Path, prefix: str) -> None:
    for path in sorted(folder.iterdir()):
        store.put(f"{prefix}/{path.name}", path)


def same_rows(found: str | Path, expected: Path, *, without: frozenset[str] = frozenset()) -> bool:
    rows, others = ({item.video_id: item for item in read_descriptors(location(place))} for place in (found, expected))
    assert rows.keys() == others.keys() - without
    return all(
        np.array_equal(item.descriptors, others[video_id].descriptors)
        and np.array_equal(item.timestamps, others[video_id].timestamps)
        for video_id, item in rows.items()
    )


def failures(text: str) -> dict[str, tuple[str, str]]:
    return {row["video_id"]: (row["stage"], row["reason"]) for row in csv.DictReader(text.splitlines())}


@pytest.mark.long
def test_extraction_from_and_to_an_object_store_gives_what_files_give(
    object_store: ObjectStore, catalogue: Catalogue, run_cli: RunCli, options: list[str], tmp_path: Path
) -> None:
    put_folder(object_store, catalogue.queries, "e2e/queries")
    extract = ["extract", "--role", "query", *options]
    run_cli(*extract, catalogue.queries, "--output", tmp_path / "store")
    object_store.failures["e2e/queries/D1"] = Failure(503, "SlowDown", times=2)
    done = run_cli(*extract, "s3://videos/e2e/queries", "--output", "s3://videos/e2e/store", "--workers", "2")
    assert same_rows("s3://videos/e2e/store", tmp_path / "store")
    figures = json.loads(done.stdout.splitlines()[-1])
    size_bytes = sum(path.stat().st_size for path in catalogue.queries.iterdir())
    assert figures["remote_size_bytes"] == figures["remote_read_bytes"] == size_bytes
    assert f"object storage and web: read {size_bytes / 1e6:.1f} MB of {size_bytes / 1e6:.1f} MB" in done.stderr

    # Again: what is there is kept, what changed is described, and what fails costs nothing else.
    write_video(tmp_path / "D0.mp4", moving_frames(30), fps=10)
    object_store.put("e2e/queries/D0.mp4", tmp_path / "D0.mp4")
    for name in ("denied", "broken", "changing", "expired"):
        object_store.put(f"e2e/queries/{name}.mp4", tmp_path / "D0.mp4")
    object_store.put("e2e/queries/notes.mp4", b"no video at all, but as long as one might be" * 10)
    object_store.failures |= {
        "queries/denied": Failure(403, "AccessDenied", methods=("GET",)),
        "queries/expired": Failure(400, "ExpiredToken", methods=("GET",)),
        "queries/broken": Failure(cuts=True, methods=("GET",)),
        "queries/changing": Failure(
            times=1, methods=("GET",), before=lambda: object_store.put("e2e/queries/changing.mp4", b"other") and None
        ),
    }
    done = run_cli(*extract, "s3://videos/e2e/queries", "--output", "s3://videos/e2e/store", expect=3)
    assert "1 described, 5 there already, 5 failed" in done.stderr
    found = failures(object_store.path("e2e/store/failures.csv").read_text())
    assert found.keys() == {"denied", "broken", "changing", "expired", "notes"}
    assert "access is denied to these credentials" in found["denied"][1]
    assert "the credentials have expired; renew them" in found["expired"][1]
    assert "s3://videos/e2e/queries/broken.mp4: cannot be read: " in found["broken"][1]
    assert "it changed while it was read" in found["changing"][1]
    assert "FFmpeg cannot read it" in found["notes"][1] or "not a video file" in found["notes"][1]
    assert "Traceback" not in done.stderr
    object_store.failures.clear()
    object_store.put("e2e/queries/changing.mp4", tmp_path / "D0.mp4")
    done = run_cli(*extract, "s3://videos/e2e/queries", "--output", "s3://videos/e2e/store")
    assert "4 described, 6 there already, 0 failed" in done.stderr  # the text file is known, and not tried again


@pytest.mark.long
def test_a_run_and_stages_write_to_an_object_store_what_they_write_to_a_folder(
    object_store: ObjectStore, catalogue: Catalogue, run_cli: RunCli, options: list[str], tmp_path: Path
) -> None:
    put_folder(object_store, catalogue.queries, "run/queries")
    run = ["run", "--references", catalogue.references, "--ground-truth", catalogue.ground_truth, *options]
    local = run_cli(*run, "--queries", catalogue.queries, "--output", tmp_path / "out")
    remote = [*run, "--queries", "s3://videos/run/queries", "--output", "s3://videos/run/out"]

    # What cannot be uploaded is not described again, and nobody reads it half.
    object_store.failures["run/out/queries/manifest.json"] = Failure(403, "AccessDenied", methods=("PUT",))
    done = run_cli(*remote, expect=1)
    assert "s3://videos/run/out/queries/manifest.json: cannot be written: access is denied" in done.stderr
    with pytest.raises(EngineError, match="no manifest"):
        read_descriptors(location("s3://videos/run/out/queries"))
    assert not object_store.path("run/out/candidates.csv").exists()
    object_store.failures.clear()
    done = run_cli(*remote)
    assert "s3://videos/run/out/queries: goes on with what was described before" in done.stderr
    assert "read 0.0 MB" not in done.stderr

    tables = {"candidates.csv", "matches.csv", "failures.csv"}
    for name in tables:
        assert object_store.path(f"run/out/{name}").read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert object_store.path("run/out/precision_recall.png").read_bytes().startswith(b"\x89PNG")
    assert same_rows("s3://videos/run/out/queries", tmp_path / "out" / "queries")
    found, expected = (json.loads(answer.stdout.splitlines()[-1]) for answer in (done, local))
    assert found == expected | {"output": "s3://videos/run/out"}
    assert "holds a run with another preset" in run_cli(*remote, "--no-scenes", expect=1).stderr

    outputs = []
    for place in (tmp_path, "s3://videos/run"):
        stores = [f"{place}/out/queries", f"{place}/out/references"]
        sides = ["--queries", f"{place}/n/queries.npz", "--references", f"{place}/n/references.npz"]
        run_cli("normalize", *options, "--output", f"{place}/n", "--queries", stores[0], "--references", stores[1])
        run_cli("search", *sides, "--output", f"{place}/candidates.csv")
        run_cli("localize", *sides, "--candidates", f"{place}/candidates.csv", "--output", f"{place}/matches.parquet")
        outputs.append([location(f"{place}/{name}").read_bytes() for name in ("candidates.csv", "matches.parquet")])
        done = run_cli("evaluate", "--matches", f"{place}/matches.parquet", "--ground-truth", catalogue.ground_truth)
        outputs[-1].append(done.stdout.encode())
    assert outputs[0] == outputs[1]


@pytest.mark.long
def test_stores_are_merged_from_and_to_an_object_store(
    object_store: ObjectStore, catalogue: Catalogue, run_cli: RunCli, options: list[str], tmp_path: Path
) -> None:
    extract = ["extract", catalogue.queries, "--role", "query", *options, "--no-scenes"]
    run_cli(*extract, "--output", tmp_path / "all")
    run_cli(*extract, "--shard", "1/2", "--output", "s3://videos/merge/1")
    run_cli(*extract, "--shard", "2/2", "--output", tmp_path / "2")
    missing = run_cli("merge", "s3://videos/merge/1", "--output", "s3://videos/merge/all", expect=1)
    assert "shard 2/2" in missing.stderr
    run_cli("merge", "s3://videos/merge/1", tmp_path / "2", "--output", "s3://videos/merge/all")
    assert same_rows("s3://videos/merge/all", tmp_path / "all")
    run_cli("merge", "s3://videos/merge/all", "--output", tmp_path / "back")
    assert same_rows(tmp_path / "back", tmp_path / "all")

    # An .npz appears when all are described; that of an object is made in the cache of this machine.
    run_cli(*extract, "--output", "s3://videos/merge/all.npz")
    assert same_rows("s3://videos/merge/all.npz", tmp_path / "all")


@pytest.mark.long
def test_copies_within_a_bucket_are_those_within_a_folder(
    object_store: ObjectStore, catalogue: Catalogue, run_cli: RunCli, trained_engines: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "collection"
    folder.mkdir()
    for source in (catalogue.references / "R0.mp4", catalogue.queries / "Q0.mp4", catalogue.queries / "D0.mp4"):
        shutil.copy(source, folder)
    put_folder(object_store, folder, "collection")
    options = ["--engines", trained_engines]
    run_cli("dedup", folder, *options, "--output", tmp_path / "out")
    run_cli("dedup", "s3://videos/collection", *options, "--output", "s3://videos/duplicates")
    for name in ("pairs.csv", "clusters.csv"):
        found = object_store.path(f"duplicates/{name}").read_text()
        assert found.replace("s3://videos/collection", str(folder)) == (tmp_path / "out" / name).read_text()
    assert "s3://videos/collection/Q0.mp4,s3://videos/collection/R0.mp4,copy," in found_pairs(object_store)


def found_pairs(object_store: ObjectStore) -> str:
    return object_store.path("duplicates/pairs.csv").read_text()


@pytest.fixture(params=["s3", "gs"])
def cloud(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    if request.param == "s3":
        yield request.getfixturevalue("object_store")
    else:
        with running_store(request.param) as store:
            yield store


@pytest.mark.long
def test_a_catalogue_may_lie_in_an_object_store(
    cloud: ObjectStore, catalogue: Catalogue, run_cli: RunCli, options: list[str], tmp_path: Path
) -> None:
    folder, references = str(cloud.path("catalogue")), str(cloud.path("references"))
    put_folder(cloud, catalogue.references, "references")
    upload = cloud.put("uploads/Q0.mp4", catalogue.queries / "Q0.mp4")
    run_cli("catalog", "create", folder, *options)
    added = json.loads(run_cli("catalog", "add", folder, references).stdout)
    assert (added["added"], added["num_failures"]) == (6, 0)
    assert json.loads(run_cli("catalog", "add", folder, references).stdout)["kept"] == 6
    page = str(cloud.path("catalogue_page.html"))
    answer = json.loads(run_cli("catalog", "match", folder, upload, "--report", page).stdout.splitlines()[0])
    assert answer["candidates"][0]["ref_id"] == "R0"
    assert answer["candidates"][0]["path"] == f"{references}/R0.mp4"
    assert "data:image" in location(page).read_text()
    assert json.loads(run_cli("catalog", "info", folder).stdout)["folder"] == folder
    assert json.loads(run_cli("catalog", "verify", folder).stdout)["problems"] == []
    cloud.put("catalogue/.lock", b'{"holder": "process 1 of another host"}')
    held = run_cli("catalog", "remove", folder, "R1", expect=1)
    assert "is held by process 1 of another host; wait for it, or remove this object" in held.stderr
    cloud.path("catalogue/.lock").unlink()
    run_cli("catalog", "remove", folder, "R1")
    assert len(run_cli("catalog", "list", folder).stdout.splitlines()) == 5
    run_cli("catalog", "backup", folder, tmp_path / "copy")
    assert contents(Catalog.open(tmp_path / "copy")) == contents(Catalog.open(folder))
    answers = [
        run_cli("catalog", "match", place, upload).stdout.splitlines()[0] for place in (folder, tmp_path / "copy")
    ]
    assert without_time(answers[0]) == without_time(answers[1])


def without_time(answer: str) -> dict[str, object]:
    return {name: value for name, value in json.loads(answer).items() if name != "seconds"}


def test_a_catalogue_that_a_store_gives_nobody_is_one_line_that_says_what_to_set(run_cli: RunCli) -> None:
    with running_store("gs") as store:
        store.failures["/b/videos/"] = Failure(401, "Unauthorized")
        for command in (["info"], ["verify"], ["match", "gs://videos/upload.mp4"]):
            refused = run_cli("catalog", command[0], "gs://videos/catalogue", *command[1:], expect=1)
            (line,) = refused.stderr.splitlines()
            assert line.startswith("vsc-engine: gs://videos/catalogue/catalog.json: cannot be read: the store asks for")
            assert "GOOGLE_APPLICATION_CREDENTIALS" in line


@pytest.fixture
def site(catalogue: Catalogue) -> Iterator[str]:
    """Python's own web server, which knows no ranges."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(catalogue.queries))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_videos_of_the_web_are_read_only_where_that_is_asked_for(
    site: str, catalogue: Catalogue, run_cli: RunCli, options: list[str], tmp_path: Path
) -> None:
    url, missing = f"{site}/D0.mp4?sign=secret", f"{site}/none.mp4?sign=secret"
    extract = ["extract", "--role", "query", *options, "--output", tmp_path / "web"]
    assert "--allow-http" in run_cli(*extract, url, expect=1).stderr
    done = run_cli(*extract, url, "--allow-http", expect=3)
    assert "127.0.0.1, which is no public address; --allow-private-addresses" in done.stderr
    # A process of its own, because the server of this one writes the URLs that it was asked for to stderr.
    done = run_cli(*extract, url, missing, "--allow-http", "--allow-private-addresses", expect=3, process=True)
    assert failures((tmp_path / "web" / "failures.csv").read_text())["none"][1].startswith(
        f"{site}/none.mp4: no such file"
    )
    assert "secret" not in done.stdout + done.stderr + (tmp_path / "web" / "failures.csv").read_text()
    run_cli("extract", "--role", "query", *options, "--output", tmp_path / "file", catalogue.queries / "D0.mp4")
    assert same_rows(tmp_path / "web", tmp_path / "file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "--output", "s3://videos/engines"],
        ["extract", "a", "--role", "query", "--output", "https://host/a"],
        ["run", "--queries", "a", "--references", "b", "--output", "https://host/a"],
        ["catalog", "backup", "a", "https://host/a"],
    ],
)
def test_what_takes_no_url_says_so_and_makes_nothing(run_cli: RunCli, tmp_path: Path, arguments: list[str]) -> None:
    done = run_cli(*arguments, expect=1, cwd=tmp_path)
    assert "a path of this machine is needed here, not a URL" in done.stderr or "are only read; write to" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_address_that_refuses_is_said_at_once(scheme: str, run_cli: RunCli) -> None:
    """And not what the library of the store says after minutes of trying."""
    with socket.socket() as refusing:  # it does not listen
        refusing.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{refusing.getsockname()[1]}"
        environment = {**os.environ, **store_environment(scheme, endpoint), "NO_PROXY": "127.0.0.1"}
        places = ("--ground-truth", f"{scheme}://videos/truth.csv", "--matches", "none.csv")
        (line,) = run_cli("evaluate", *places, expect=1, env=environment).stderr.splitlines()
    assert f"{scheme}://videos/truth.csv: nothing answers at {endpoint} (Connection refused); check that" in line


def test_a_bucket_that_is_missing_is_named(cloud: ObjectStore, run_cli: RunCli, tmp_path: Path) -> None:
    nowhere = f"{cloud.scheme}://nowhere"
    (tmp_path / "truth.csv").write_text("query_id,ref_id\na,b\n", encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("query_id,ref_id,score\na,b,1\n", encoding="utf-8")
    pairs, truth = ("--candidates", tmp_path / "pairs.csv"), ("--ground-truth", tmp_path / "truth.csv")
    for command in (
        ("catalog", "list", f"{nowhere}/catalogue"),
        ("extract", f"{nowhere}/videos/", "--role", "query", "--output", tmp_path / "store"),
        ("search", "--queries", f"{nowhere}/q.npz", "--references", f"{nowhere}/q.npz", "--output", "c.csv"),
        ("search", "--queries", f"{nowhere}/q", "--references", f"{nowhere}/q", "--output", "c.csv"),
        ("evaluate", *pairs, "--ground-truth", f"{nowhere}/truth.csv"),
        ("evaluate", *pairs, *truth, "--plot", f"{nowhere}/curve.png"),
    ):
        line = run_cli(*command, expect=1).stderr.splitlines()[-1]
        assert line.endswith("there is no such bucket as nowhere; check its name, or make it"), line
    there = run_cli("catalog", "list", cloud.path("catalogue").url, expect=1).stderr
    assert f"{cloud.path('catalogue')} is not a catalogue: it has no catalog.json" in there
