from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from engine.catalog import milvus_rows
from engine.catalog.catalog import Catalog
from engine.catalog.milvus_rows import MilvusRows, new_place
from engine.errors import BackendUnavailable, ConfigError, EngineError, RemoteError, StoreError
from tests.catalogs import contents, copy_of, npz, video
from tests.milvus_servers import running_milvus

TOKEN = "root:Milvus"  # noqa: S105 - of a server of this test


def made(tmp_path: Path, engines: Path, milvus: str, name: str = "catalogue") -> Catalog:
    """A catalogue of two videos."""
    catalog = Catalog.create(tmp_path / name, engines=engines, milvus=milvus)
    catalog.add([npz(tmp_path / f"{name}.npz", video("a"), video("b"))])
    return catalog


def said(call: Callable[[], object], kind: type[EngineError] = StoreError) -> str:
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    return text


def collection(catalog: Catalog) -> str:
    assert catalog.manifest.milvus is not None
    return catalog.manifest.milvus.collection


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "catalog.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_sent_twice_is_there_once(tmp_path: Path, milvus: str) -> None:
    rows = MilvusRows.create(tmp_path, new_place(milvus, tmp_path), num_dims=8)
    described = [(1, video("a")), (2, video("b", 3))]
    rows.add(described)
    rows.add(described)
    assert rows.num_indexed() == 12
    found = rows.read(None)
    for revision, expected in described:
        assert found[revision].descriptors.tobytes() == expected.descriptors.tobytes()
        assert found[revision].timestamps.tobytes() == expected.timestamps.tobytes()


def test_more_revisions_than_one_condition_names(tmp_path: Path, milvus: str) -> None:
    rows = MilvusRows.create(tmp_path, new_place(milvus, tmp_path), num_dims=8)
    revisions = list(range(10, 10 + 3 * 2050, 3))
    rows.add([(revision, video(str(revision), 1)) for revision in revisions])
    assert sorted(rows.read(revisions)) == revisions
    assert rows.orphans(dict.fromkeys(revisions, 1)) == {}
    unknown = {revisions[place] for place in (0, 1, 999, 1000, 1001, 2000, 2049)}
    assert rows.orphans({revision: 1 for revision in revisions if revision not in unknown}) == dict.fromkeys(unknown, 1)
    assert rows.orphans({}) == dict.fromkeys(revisions, 1)
    rows.delete(revisions[5:])
    assert sorted(rows.read(None)) == revisions[:5]


def test_a_catalogue_in_a_database_of_its_own(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    client = MilvusClient(milvus)
    client.create_database("team")
    catalog = made(tmp_path, tiny_engines, f"{milvus}/team/")
    assert catalog.verify().problems == ()
    assert catalog.manifest.milvus is not None
    assert catalog.manifest.milvus.uri == f"{milvus}/team"
    assert collection(catalog) not in client.list_collections()
    assert "nowhere" in said(lambda: Catalog.create(tmp_path / "n", engines=tiny_engines, milvus=f"{milvus}/nowhere"))


def test_a_catalogue_outlives_its_server(tmp_path: Path, tiny_engines: Path) -> None:
    with running_milvus(tmp_path / "data") as uri:
        catalog = made(tmp_path, tiny_engines, uri)
        expected = contents(catalog)
    expected_line = f"Milvus at {uri} does not answer; is it running, and is that its address?"
    for call in (
        lambda: catalog.match_descriptors(video("q")),
        lambda: catalog.add([tmp_path / "catalogue.npz"]),
        catalog.verify,
        lambda: Catalog.open(catalog.folder),
    ):
        assert said(call, RemoteError) == expected_line
    with running_milvus(tmp_path / "data", port=int(uri.rpartition(":")[2])):
        assert catalog.match_descriptors(copy_of(video("a"), "q")).candidates[0].ref_id == "a"
        assert contents(Catalog.open(catalog.folder)) == expected


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_the_limit(
    tmp_path: Path, tiny_engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_rows, "CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        text = said(lambda: Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=uri), RemoteError)
    assert text == f"Milvus at {uri} did not answer in 0.5 s; is it running, and is that its address?"
    Catalog.create(tmp_path / "c", engines=tiny_engines)  # nothing is left that is in the way


def test_the_token_comes_from_the_environment_and_is_written_nowhere(
    tmp_path: Path, tiny_engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_milvus(tmp_path / "data", token=TOKEN) as uri:
        monkeypatch.delenv("MILVUS_TOKEN", raising=False)
        text = said(lambda: Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=uri), RemoteError)
        assert text.startswith(f"Milvus at {uri} asks for a token; put it into the environment variable MILVUS_TOKEN")
        monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
        folder = made(tmp_path, tiny_engines, uri).folder
        assert Catalog.open(folder).verify().problems == ()
        monkeypatch.setenv("MILVUS_TOKEN", "root:guessed")
        text = said(lambda: Catalog.open(folder), RemoteError)
        assert text.startswith(f"Milvus at {uri} does not accept the token in the environment variable MILVUS_TOKEN")
        assert "guessed" not in text
    assert isinstance(folder, Path)
    for path in folder.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "uri",
    [
        "http://root:secret@h:19530",
        "http://h:19530?token=secret",
        "https://h/a/b",
        "h:19530",
        "milvus.db",
        "ftp://h",
        "http://",
        "",
    ],
)
def test_addresses_that_are_none_are_refused_in_one_line(tmp_path: Path, tiny_engines: Path, uri: str) -> None:
    text = said(lambda: Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=uri), ConfigError)
    assert "expected http[s]://HOST:PORT[/DATABASE]" in text
    assert "MILVUS_TOKEN" in text
    assert "secret" not in text
    assert not (tmp_path / "c").exists()


def test_a_missing_collection_is_one_line(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    catalog = made(tmp_path, tiny_engines, milvus)
    MilvusClient(milvus).drop_collection(collection(catalog))
    expected = f"Milvus at {milvus} has no collection {collection(catalog)}, where the rows of the catalogue"
    for call in (
        lambda: Catalog.open(catalog.folder),
        lambda: catalog.match_descriptors(video("q")),
        lambda: catalog.remove(["a"]),
    ):
        assert said(call).startswith(expected)


def test_the_collection_of_another_catalogue_is_refused(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    catalog, other = (made(tmp_path, tiny_engines, milvus, name) for name in ("one", "other"))
    assert isinstance(catalog.folder, Path)
    change_manifest(catalog.folder, milvus={"uri": milvus, "collection": collection(other)})
    text = said(lambda: Catalog.open(catalog.folder))
    assert f"{collection(other)} in Milvus at {milvus} is of another catalogue than {catalog.folder}" in text
    change_manifest(catalog.folder, milvus={"uri": milvus, "collection": collection(catalog)}, num_dims=16)
    assert "has vectors of 8 dimensions, the catalogue" in said(lambda: Catalog.open(catalog.folder))
    (catalog.folder / "milvus.json").write_text("{")
    assert f"{catalog.folder / 'milvus.json'} is damaged" in said(lambda: Catalog.open(catalog.folder))


def test_of_two_copies_of_a_folder_one_writes(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    catalog = made(tmp_path, tiny_engines, milvus)
    shutil.copytree(catalog.folder, tmp_path / "copy")
    copy = Catalog.open(tmp_path / "copy")
    catalog.remove(["a"])
    expected = f"{tmp_path / 'copy'} is an older copy of a catalogue: another one has written to its collection"
    for call in (lambda: copy.remove(["b"]), lambda: copy.add([catalog.folder]), lambda: Catalog.open(copy.folder)):
        assert said(call).startswith(expected)
    assert catalog.verify().problems == ()
    assert sorted(contents(Catalog.open(catalog.folder))) == ["b"]


@pytest.mark.parametrize("index_type", ["HNSW", "IVF_FLAT", "AUTOINDEX"])
def test_milvus_may_be_told_to_use_another_index(
    tmp_path: Path, tiny_engines: Path, milvus: str, index_type: str
) -> None:
    catalog = made(tmp_path, tiny_engines, milvus)
    expected = catalog.match_descriptors(copy_of(video("a"), "q"))
    change_index(milvus, collection(catalog), index_type=index_type, metric_type="COSINE")
    answer = Catalog.open(catalog.folder).match_descriptors(copy_of(video("a"), "q"))
    assert answer.candidates[0] == expected.candidates[0]


def test_an_index_of_another_metric_is_refused(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    catalog = made(tmp_path, tiny_engines, milvus)
    change_index(milvus, collection(catalog), index_type="FLAT", metric_type="L2")
    text = said(lambda: Catalog.open(catalog.folder))
    assert "needs an index of descriptor with the metric COSINE, and has L2" in text
    client = MilvusClient(milvus)
    client.release_collection(collection(catalog))
    client.drop_index(collection(catalog), "descriptor")
    assert "with the metric COSINE, and has none" in said(lambda: Catalog.open(catalog.folder))


def change_index(uri: str, name: str, *, index_type: str, metric_type: str) -> None:
    """As an administrator does."""
    client = MilvusClient(uri)
    client.release_collection(name)
    client.drop_index(name, "descriptor")
    indices = MilvusClient.prepare_index_params()
    params = {"M": 16, "efConstruction": 100} if index_type == "HNSW" else {"nlist": 4}
    indices.add_index("descriptor", index_type=index_type, metric_type=metric_type, params=params)
    client.create_index(name, indices)
    client.load_collection(name)


def test_a_copy_has_its_rows_in_its_folder(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    catalog = made(tmp_path, tiny_engines, milvus)
    query = copy_of(video("a"), "q")
    expected, rows = catalog.match_descriptors(query), contents(catalog)
    catalog.backup(tmp_path / "backup")
    MilvusClient(milvus).drop_collection(collection(catalog))
    copy = Catalog.open(tmp_path / "backup")
    assert copy.manifest.milvus is None
    assert copy.manifest == catalog.manifest.model_copy(update={"milvus": None})
    assert (copy.verify().problems, contents(copy)) == ((), rows)
    assert copy.match_descriptors(query) == expected
    again = Catalog.create(tmp_path / "again", engines=tiny_engines, milvus=milvus)
    again.add([copy.folder])
    assert contents(again) == rows


def test_a_copy_of_missing_rows_is_none(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    catalog = made(tmp_path, tiny_engines, milvus)
    catalog._shares.tables[0]._rows.delete([catalog._shares.entries()["a"].revision])
    assert said(lambda: catalog.backup(tmp_path / "backups" / "first")).startswith("rows of 'a' are missing")
    assert list((tmp_path / "backups").iterdir()) == []


def test_making_a_catalogue_goes_on_with_the_collection_of_a_killed_one(
    tmp_path: Path, tiny_engines: Path, milvus: str
) -> None:
    first = Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=milvus)
    (tmp_path / "c" / "catalog.json").unlink()  # written last
    again = Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=milvus)
    assert collection(again) == collection(first)
    again.add([npz(tmp_path / "a.npz", video("a"))])
    for name in ("catalog.json", "videos.lance"):
        path = tmp_path / "c" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    text = said(lambda: Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=milvus))
    assert "holds rows already, of a catalogue that lost its catalog.json" in text


def test_a_search_cluster_is_refused_as_milvus_searches_itself(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    with made(tmp_path, tiny_engines, milvus) as catalog:
        text = said(lambda: Catalog.open(catalog.folder, cluster="127.0.0.1:1"), ConfigError)
    assert text == (
        f"the rows of {catalog.folder} lie in Milvus, which searches them itself, on as many machines as it has; leave "
        "--cluster out"
    )


def test_rows_in_milvus_have_no_shares(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    text = said(lambda: Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=milvus, num_shares=2), ConfigError)
    assert text.startswith("rows in Milvus have no shares")


def test_without_pymilvus_one_line_says_what_to_install(
    tmp_path: Path, tiny_engines: Path, milvus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path, tiny_engines, milvus).folder
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.delitem(sys.modules, "engine.catalog.milvus_rows")
    for call in (
        lambda: Catalog.open(folder),
        lambda: Catalog.create(tmp_path / "c", engines=tiny_engines, milvus=milvus),
    ):
        assert said(call, BackendUnavailable) == "rows in Milvus need pymilvus: pip install 'vsc-engine[milvus]'"


def test_a_reader_that_is_overtaken_looks_again(tmp_path: Path, tiny_engines: Path, milvus: str) -> None:
    """A video is replaced, and its old rows are gone, between two questions of one answer."""
    catalog = made(tmp_path, tiny_engines, milvus)
    writer, tables = Catalog.open(catalog.folder), catalog._shares.tables[0]
    new, nearest, num_asked = video("a", seed=1), tables.nearest, 0

    def overtaken(*arguments: object, **options: object) -> set[int]:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 1:
            writer.add([npz(tmp_path / "catalogue.npz", new, video("b"))])
        return nearest(*arguments, **options)  # type: ignore[arg-type]

    tables.nearest = overtaken  # type: ignore[method-assign, assignment]
    query = copy_of(new, "q")
    answer = catalog.match_descriptors(query)
    assert num_asked == 2
    assert answer.candidates[0].ref_id == "a"
    assert answer == Catalog.open(catalog.folder).match_descriptors(query)
