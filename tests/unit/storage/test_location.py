from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import BaseModel

from engine.errors import ConfigError
from engine.records import Failure, Media
from engine.storage.location import Location, ObjectInfo, RemotePath, WebAccess, location


class Model(BaseModel):
    place: Location


@pytest.mark.parametrize("text", ["s3://bucket/a b/ü?#%20.mp4", "gs://b/k", "az://c/k", "https://host/x.mp4"])
def test_urls_are_remote_and_keep_every_character(text: str) -> None:
    found = location(text)
    assert isinstance(found, RemotePath)
    assert (found.url, str(found)) == (text, text)


@pytest.mark.parametrize("text", ["videos/a.mp4", "/s3/x", "c:x", "-", "@list.txt", "./s3://x", "1s3://x"])
def test_all_else_is_a_path_of_this_machine(text: str) -> None:
    assert location(text) == Path(text)


def test_a_url_that_a_path_was_made_of_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"s3:/bucket/x was a URL before .* give it as text"):
        location(Path("s3://bucket/x"))


def test_parts_of_a_name() -> None:
    path = RemotePath("s3://bucket/some/clip.v2.mp4")
    assert (path.name, path.stem, path.suffix) == ("clip.v2.mp4", "clip.v2", ".mp4")
    assert str(path.parent) == "s3://bucket/some"
    assert str(path.parent / "x") == str(path.with_name("x")) == "s3://bucket/some/x"
    assert str(RemotePath("s3://bucket/some/") / "x") == "s3://bucket/some/x"


def test_what_signs_a_url_is_never_said() -> None:
    path = location("https://host/a%20b.mp4?X-Amz-Signature=secret", web=WebAccess())
    assert isinstance(path, RemotePath)
    assert (path.name, path.stem) == ("a b.mp4", "a b")
    assert "secret" in path.url
    for text in (str(path), repr(path), path.as_uri(), str(path.parent), f"{Media('a', path)}", repr(Media("a", path))):
        assert "secret" not in text


def test_equal_where_the_url_is_whatever_is_known_of_it() -> None:
    plain, known = RemotePath("s3://b/k"), RemotePath("s3://b/k", WebAccess(), ObjectInfo(1, "v"))
    assert plain == known
    assert len({plain, known}) == 1
    assert plain != RemotePath("s3://b/other")
    assert plain != Path("s3://b/k")


def test_travels_to_other_processes_with_all_that_is_known() -> None:
    path = RemotePath("https://host/x?s=1", WebAccess(max_bytes=5), ObjectInfo(1, "v"))
    copy = pickle.loads(pickle.dumps(path))  # noqa: S301
    assert (copy.url, copy.web, copy.info) == (path.url, path.web, path.info)


@pytest.mark.parametrize("place", ["s3://bucket/x", "/videos/x"])
def test_models_and_tables_keep_it_as_text(place: str) -> None:
    model = Model(place=location(place))
    assert model.model_dump(mode="json") == {"place": place}
    assert Model.model_validate_json(model.model_dump_json()) == model
    assert asdict(Failure("a", location(place), "find", "why"))["path"] == location(place)
