"""Videos, stores, tables and a catalogue in an S3 server that fails now and then, and videos of a web server."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from engine.storage.location import location
from engine.store.store import read_descriptors
from tests.end_to_end.conftest import Catalogue, RunCli
from tests.object_store import Failure, ObjectStore
from tests.videos import moving_frames, write_video


@pytest.fixture
def options(trained_engines: Path) -> list[str]:
    return ["--engines", str(trained_engines)]


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


def test_stages_read_and_write_objects(
    object_store: ObjectStore, catalogue: Catalogue, run_cli: RunCli, options: list[str], tmp_path: Path
) -> None:
    for role, folder in (("query", catalogue.queries), ("reference", catalogue.references)):
        run_cli("extract", folder, "--role", role, *options, "--output", f"s3://videos/stages/{role}")
        run_cli("extract", folder, "--role", role, *options, "--output", tmp_path / role)
    outputs = []
    for place in (tmp_path, "s3://videos/stages"):
        sides = ["--queries", f"{place}/n/queries.npz", "--references", f"{place}/n/references.npz"]
        run_cli(
            *("normalize", *options, "--output", f"{place}/n"),
            *("--queries", f"{place}/query", "--references", f"{place}/reference"),
        )
        run_cli("search", *sides, "--output", f"{place}/candidates.csv")
        run_cli("localize", *sides, "--candidates", f"{place}/candidates.csv", "--output", f"{place}/matches.parquet")
        outputs.append([location(f"{place}/{name}").read_bytes() for name in ("candidates.csv", "matches.parquet")])
        done = run_cli(
            "evaluate", "--matches", f"{place}/matches.parquet", "--ground-truth", str(catalogue.ground_truth)
        )
        outputs[-1].append(done.stdout.encode())
    assert outputs[0] == outputs[1]


def test_a_catalogue_may_lie_in_an_object_store(
    object_store: ObjectStore, catalogue: Catalogue, run_cli: RunCli, options: list[str]
) -> None:
    folder = "s3://videos/catalogue"
    put_folder(object_store, catalogue.references, "references")
    upload = object_store.put("uploads/Q0.mp4", catalogue.queries / "Q0.mp4")
    run_cli("catalog", "create", folder, *options)
    added = json.loads(run_cli("catalog", "add", folder, "s3://videos/references").stdout)
    assert (added["added"], added["num_failures"]) == (6, 0)
    assert json.loads(run_cli("catalog", "add", folder, "s3://videos/references").stdout)["kept"] == 6
    page = "s3://videos/catalogue_page.html"
    answer = json.loads(run_cli("catalog", "match", folder, upload, "--report", page).stdout.splitlines()[0])
    assert answer["candidates"][0]["ref_id"] == "R0"
    assert answer["candidates"][0]["path"] == "s3://videos/references/R0.mp4"
    assert "data:image" in location(page).read_text()
    assert json.loads(run_cli("catalog", "info", folder).stdout)["folder"] == folder
    run_cli("catalog", "verify", folder)
    object_store.put("catalogue/.lock", b'{"holder": "process 1 of another host"}')
    done = run_cli("catalog", "remove", folder, "R1", expect=1)
    assert "is held by process 1 of another host; wait for it, or remove this object" in done.stderr
    object_store.path("catalogue/.lock").unlink()
    run_cli("catalog", "remove", folder, "R1")
    assert len(run_cli("catalog", "list", folder).stdout.splitlines()) == 5


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
    done = run_cli(*extract, url, missing, "--allow-http", "--allow-private-addresses", expect=3)
    assert failures((tmp_path / "web" / "failures.csv").read_text())["none"][1].startswith(
        f"{site}/none.mp4: no such file"
    )
    assert "secret" not in done.stdout + done.stderr + (tmp_path / "web" / "failures.csv").read_text()
    run_cli("extract", "--role", "query", *options, "--output", tmp_path / "file", catalogue.queries / "D0.mp4")
    assert same_rows(tmp_path / "web", tmp_path / "file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--queries", "a", "--references", "b", "--output", "s3://videos/run"],
        ["dedup", "a", "--output", "s3://videos/dedup"],
        ["build", "--output", "s3://videos/engines"],
        ["evaluate", "--ground-truth", "a", "--candidates", "b", "--plot", "s3://videos/plot.png"],
    ],
)
def test_what_takes_no_url_says_so_and_makes_nothing(run_cli: RunCli, tmp_path: Path, arguments: list[str]) -> None:
    done = run_cli(*arguments, expect=1, cwd=tmp_path)
    assert "a path of this machine is needed here, not a URL" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_npz_in_an_object_store_is_refused_in_one_line(
    catalogue: Catalogue, run_cli: RunCli, options: list[str]
) -> None:
    output = "s3://videos/npz/queries.npz"
    done = run_cli("extract", catalogue.queries, "--role", "query", *options, "--output", output, expect=1)
    assert "an .npz is written to a folder of this machine" in done.stderr
