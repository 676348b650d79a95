"""Frame store: pictures of videos and of picture files, made for a training loop that reads them in any order.

A store is a folder of LMDB files (shards) and a ``manifest.json``. LMDB, because random access is what training does:
a picture is one look-up in a memory map that all workers share. WebDataset reads in the order of writing, and Parquet
reads whole row groups. A shard is written aside and renamed when it is whole, and the same sources give the same
shards, so that a build that was cut short goes on with the first shard that is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import lmdb
import numpy as np
from PIL import Image

from engine.errors import ConfigError, MediaError, StoreError
from engine.files import written_aside
from engine.records import Media
from engine.video.discovery import VIDEO_SUFFIXES
from engine.video.pyav import PyAvFrameSource
from training.footage.resizing import Frame, limit_short_side, resize, size_of
from training.picture_hashes import Hash, distances, picture_hash
from training.processes import in_processes

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PICTURE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))
VIDEOS_PER_SHARD = 32
PICTURES_PER_SHARD = 4096
JPEG_QUALITY = 95
_MAP_BYTES = 1 << 38
"""LMDB reserves addresses, not memory, for the largest shard that there may be."""


@dataclass(frozen=True)
class Source:
    """A video, a picture file, or, with ``member``, a picture in a zip file. ``name`` is unique in the store."""

    name: str
    path: Path
    member: str | None = None

    @property
    def is_video(self) -> bool:
        """Whether it gives many pictures."""
        return self.member is None and self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class SourceFailure:
    """A source that gave no picture, and why."""

    name: str
    reason: str


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Videos and pictures at ``paths``, sorted by name: files, files below folders, members of zip files.

    Hidden files are passed over. A source is named by the folder or zip file it comes from and its place in there,
    without suffix, for a video; with suffix for a picture. Raises ``ConfigError`` for a path that does not exist, for
    none, and for two of one name.
    """
    found: dict[str, Source] = {}
    for source in (source for path in paths for source in _sources_at(path)):
        other = found.setdefault(source.name, source)
        if other is not source:
            raise ConfigError(f"{other.path} and {source.path} would both be called {source.name!r}; rename one")
    if not found:
        raise ConfigError(f"no videos and no pictures at {', '.join(map(str, paths))}")
    return [found[name] for name in sorted(found)]


def _sources_at(path: Path) -> Iterator[Source]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or directory")
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if Path(member).suffix.lower() in PICTURE_SUFFIXES:
                    yield Source(f"{path.stem}/{member}", path, member)
        return
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        place = Path(path.name) / file.relative_to(path) if path.is_dir() else Path(file.name)
        if any(part.startswith(".") for part in place.parts[1:]):
            continue
        if file.suffix.lower() in VIDEO_SUFFIXES:
            yield Source(place.with_suffix("").as_posix(), file)
        elif file.suffix.lower() in PICTURE_SUFFIXES:
            yield Source(place.as_posix(), file)


def build_store(
    sources: Sequence[Source],
    output: Path,
    *,
    fps: float = 1.0,
    short_side_px: int = 400,
    distinct_bits: int = 0,
    num_workers: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> list[SourceFailure]:
    """Write the pictures of ``sources`` into ``output``; what is there from the same sources is kept.

    Videos give ``fps`` pictures a second, by the engine's sampling rule, but none whose hash differs in fewer than
    ``distinct_bits`` of 128 bits from one of the same video. Pictures are shrunk to a short side of at most
    ``short_side_px``; picture files that need not be shrunk are stored as they are, all else as JPEG. ``advance`` is
    called after each shard. Returns the sources that gave nothing, which the manifest lists too.

    Raises ``ConfigError`` if ``output`` holds a store of other settings or no source gave a picture.
    """
    settings = {"format": FORMAT_VERSION, "fps": fps, "short_side_px": short_side_px}
    if distinct_bits:
        settings["distinct_bits"] = distinct_bits
    shards = _plan_shards(sources)
    _claim(output, settings)
    write = partial(_write_shard, output=output, fps=fps, short_side_px=short_side_px, distinct_bits=distinct_bits)
    records = []
    for record in in_processes(write, list(enumerate(shards)), num_workers=num_workers):
        records.append(record)
        advance()
    failures = [SourceFailure(**failure) for record in records for failure in record["failures"]]
    num_pictures = sum(record["num_pictures"] for record in records)
    if not num_pictures:
        raise ConfigError(f"none of {len(sources)} sources gave a picture; the first: {failures[0].reason}")
    manifest = settings | {
        "num_sources": len(sources),
        "num_videos": sum(source.is_video for source in sources),
        "num_pictures": num_pictures,
        "shards": [{"file": record["file"], "num_pictures": record["num_pictures"]} for record in records],
        "failures": [asdict(failure) for failure in failures],
    }
    _write_json(output / MANIFEST, manifest)
    return failures


def num_shards(sources: Sequence[Source]) -> int:
    """How many shards `build_store` writes."""
    return len(_plan_shards(sources))


def _plan_shards(sources: Sequence[Source]) -> list[list[Source]]:
    videos = [source for source in sources if source.is_video]
    pictures = [source for source in sources if not source.is_video]
    return [
        list(kind[start : start + size])
        for kind, size in ((videos, VIDEOS_PER_SHARD), (pictures, PICTURES_PER_SHARD))
        for start in range(0, len(kind), size)
    ]


def _claim(output: Path, settings: Mapping[str, Any]) -> None:
    path = output / "settings.json"
    if path.exists() and _read_json(path) != settings:
        raise ConfigError(f"{output} holds a store made with {_read_json(path)}, not {dict(settings)}; choose another")
    _write_json(path, settings)


def _write_shard(
    numbered: tuple[int, list[Source]], *, output: Path, fps: float, short_side_px: int, distinct_bits: int
) -> dict[str, Any]:
    number, sources = numbered
    path = output / f"shard-{number:05d}.lmdb"
    digest = hashlib.sha256("\n".join(map(_identity, sources)).encode()).hexdigest()
    record_path = path.with_suffix(".json")
    if record_path.exists() and path.exists():
        stored = _read_json(record_path)
        if stored["sources_sha256"] == digest:
            return stored
    failures: list[SourceFailure] = []
    num_pictures = 0
    with written_aside(path) as aside, _new_shard(aside) as environment:
        for source in sources:
            try:
                pictures = list(_pictures_of(source, fps=fps, short_side_px=short_side_px, distinct_bits=distinct_bits))
            except (MediaError, OSError, zipfile.BadZipFile) as error:
                failures.append(SourceFailure(source.name, str(error)))
                continue
            with environment.begin(write=True) as transaction:
                for name, picture in pictures:
                    transaction.put(_key("picture", num_pictures), picture)
                    transaction.put(_key("name", num_pictures), name.encode())
                    num_pictures += 1
    record = {
        "file": path.name,
        "sources_sha256": digest,
        "num_pictures": num_pictures,
        "failures": [asdict(failure) for failure in failures],
    }
    _write_json(record_path, record)
    return record


def _new_shard(path: Path) -> lmdb.Environment:
    return lmdb.open(str(path), subdir=False, map_size=_MAP_BYTES, lock=False, sync=False)


def _identity(source: Source) -> str:
    state = source.path.stat()
    return f"{source.name} {source.member} {state.st_size} {state.st_mtime_ns}"


def _pictures_of(source: Source, *, fps: float, short_side_px: int, distinct_bits: int) -> Iterator[tuple[str, bytes]]:
    if source.is_video:
        kept: list[Hash] = []
        with closing(PyAvFrameSource(Media(source.path.stem, source.path), fps=fps)) as frames:
            for slot, picture in enumerate(frames.pictures()):
                if distinct_bits:
                    own = picture_hash(picture)
                    if kept and distances(own, np.stack(kept)).min() < distinct_bits:
                        continue
                    kept.append(own)
                yield f"{source.name}/{slot:06d}", _encode(_limited(picture, short_side_px))
        return
    content = _read_member(source)
    picture = decode_picture(content)
    if min(size_of(picture)) > short_side_px:
        content = _encode(_limited(picture, short_side_px))
    yield source.name, content


def _read_member(source: Source) -> bytes:
    if source.member is None:
        return source.path.read_bytes()
    with zipfile.ZipFile(source.path) as archive:
        return archive.read(source.member)


def _limited(picture: Frame, short_side_px: int) -> Frame:
    size = size_of(picture)
    return picture if min(size) <= short_side_px else resize(picture, limit_short_side(size, short_side_px))


def _encode(picture: Frame) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, format="jpeg", quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue()


def decode_picture(content: bytes) -> Frame:
    """A picture file as RGB uint8 ``(H, W, 3)``; transparency on white. Raises ``OSError`` for a broken one."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            layered = image.convert("RGBA")
            return np.array(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"))
        return np.array(image.convert("RGB"))


class FrameStore:
    """The pictures of a store by their position, ``0 <= index < len(store)``. Can be sent to other processes.

    A context manager: LMDB opens a file once in a process, and an open store cannot be opened again beside it.

    ``names``: for a video's picture, the source's name and the slot, ``clips/V0001/000007``. ``fps``: pictures a second
    of a video.
    """

    def __init__(self, folder: Path, *, shards: Sequence[tuple[str, int]], fps: float, cache_bytes: int) -> None:
        self.folder, self.fps = folder, fps
        self._cache: dict[int, Frame] = {}
        self._free_bytes = cache_bytes
        self._files = [file for file, _ in shards]
        self._ends = np.array(list(accumulate(num for _, num in shards)), dtype=np.int64)
        self._environments: dict[int, lmdb.Environment] = {}

    @classmethod
    def open(cls, folder: Path, *, cache_bytes: int = 0) -> Self:
        """Open a finished store; ``cache_bytes`` of decoded pictures are kept, each where it is first read.

        Raises ``StoreError`` for a folder without one, an unfinished or a damaged one."""
        path = folder / MANIFEST
        if not path.is_file():
            hint = "its build did not end; start it again" if (folder / "settings.json").is_file() else "build one"
            raise StoreError(f"{folder} holds no finished frame store: {hint} (python -m training.store.build)")
        manifest = _read_json(path)
        if manifest.get("format") != FORMAT_VERSION:
            raise StoreError(
                f"{folder} is of format {manifest.get('format')}, expected {FORMAT_VERSION}; build it again"
            )
        shards = [(shard["file"], int(shard["num_pictures"])) for shard in manifest["shards"]]
        missing = [file for file, _ in shards if not (folder / file).is_file()]
        if missing:
            raise StoreError(f"{folder} misses {', '.join(missing)}; build it again")
        return cls(folder, shards=shards, fps=float(manifest["fps"]), cache_bytes=cache_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._environments:
            self._environments.popitem()[1].close()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_environments": {}, "_cache": {}}

    def name(self, index: int) -> str:
        """The name of a picture."""
        return self._get("name", index).decode()

    def names(self) -> list[str]:
        """All names, in the order of positions."""
        return [self.name(index) for index in range(len(self))]

    def picture(self, index: int) -> Frame:
        """A picture, not to be written to: RGB uint8 ``(H, W, 3)``."""
        picture = self._cache.get(index)
        if picture is None:
            picture = decode_picture(self._get("picture", index))
            if picture.nbytes <= self._free_bytes:
                self._cache[index] = picture
                self._free_bytes -= picture.nbytes
        return picture

    def _get(self, kind: str, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        environment = self._environments.get(shard)
        if environment is None:
            path = self.folder / self._files[shard]
            environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
            self._environments[shard] = environment
        first = int(self._ends[shard - 1]) if shard else 0
        with environment.begin() as transaction:
            value = transaction.get(_key(kind, index - first))
        if value is None:
            raise StoreError(f"{self.folder / self._files[shard]} misses {kind} {index - first}; build the store again")
        return bytes(value)


def video_and_slot(name: str) -> tuple[str, int] | None:
    """The video id and the slot in the name of a video's picture; None for a picture file."""
    folder, _, last = name.rpartition("/")
    return (folder.rpartition("/")[2], int(last)) if last.isdigit() else None


def _key(kind: str, position: int) -> bytes:
    return f"{kind} {position:09d}".encode()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is not readable as JSON ({error}); build the store again") from error
