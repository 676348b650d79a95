"""Names of files by clients: what lies below a root, under which id, and nothing else."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.serve.refusals import Refused
from engine.serve.roots import file_below, resolved_roots


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    for name in ("one/sub", "two", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("one/sub/clip.mp4", "one/a.b.mp4", "two/clip.mp4", "other/secret.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "one" / "to_two").symlink_to(tmp_path / "two")
    (tmp_path / "one" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "named_one").symlink_to(tmp_path / "one")
    return resolved_roots([tmp_path / "named_one", tmp_path / "two"])


@pytest.mark.parametrize(
    ("named", "path", "video_id"),
    [
        ("sub/clip.mp4", "one/sub/clip.mp4", "sub/clip"),
        ("a.b.mp4", "one/a.b.mp4", "a.b"),
        ("clip.mp4", "two/clip.mp4", "clip"),
        ("{}/two/clip.mp4", "two/clip.mp4", "clip"),
        ("{}/named_one/sub/clip.mp4", "one/sub/clip.mp4", "sub/clip"),
        ("sub/../a.b.mp4", "one/a.b.mp4", "a.b"),
        ("to_two/clip.mp4", "two/clip.mp4", "clip"),
    ],
)
def test_files_below_the_roots(named: str, path: str, video_id: str, roots: list[Path], tmp_path: Path) -> None:
    assert file_below(named.format(tmp_path), roots) == (tmp_path.resolve() / path, video_id)


@pytest.mark.parametrize(
    "named", ["../other/secret.mp4", "{}/other/secret.mp4", "{}/one/out/secret.mp4", "{}/one/../other", "/"]
)
def test_nothing_else(named: str, roots: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="outside the folders") as refusal:
        file_below(named.format(tmp_path), roots)
    assert refusal.value.status == HTTPStatus.FORBIDDEN


def test_what_lies_outside_is_not_told(roots: list[Path]) -> None:
    reasons = set()
    for named in ("../other/secret.mp4", "../other/no_such.mp4"):
        with pytest.raises(Refused) as refusal:
            file_below(named, roots)
        reasons.add((refusal.value.status, str(refusal.value).replace("secret", "no_such")))
    assert len(reasons) == 1


def test_a_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        resolved_roots([tmp_path / "missing"])
