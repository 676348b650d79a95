"""The files of an engines directory while a build changes it: made whole or not at all, and removed when out of use.

Files are named by a key, a hash of all that they are made from, so that none ever overwrites another and a finished one
is found again. They are written aside and renamed. The manifest says which of them belong to the engines; it is
replaced last, and what it does not name is removed after that. A build that is killed therefore leaves the engines as
they were, and the next one goes on with what is finished.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from engine.errors import ConfigError
from engine.files import exclusive, flush_to_disk, writing
from engine.runtime.manifest import (
    MANIFEST_NAME,
    CompiledEngine,
    FileRecord,
    Graph,
    Manifest,
    is_intact,
    parse_manifest,
    record_file,
    write_manifest,
)

Progress = Callable[[str], object]

_OWN_FILE = re.compile(r"[a-z_]+-[0-9a-f]{16}\.")


@contextmanager
def open_build_directory(folder: Path, *, progress: Progress) -> Iterator[BuildDirectory]:
    """Hold ``folder`` alone, made if needed; waits while another process does.

    Raises ``ConfigError`` if it cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            announce = partial(progress, f"waiting for another build in {folder}")
            stack.enter_context(exclusive(folder / ".lock", on_wait=announce))
        except OSError as error:
            raise ConfigError(f"cannot write engines to {folder}: {error}") from error
        yield BuildDirectory(folder, progress=progress)


class BuildDirectory:
    """The files of an engines directory, see `open_build_directory`. ``progress`` is called with lines for people."""

    def __init__(self, folder: Path, *, progress: Progress) -> None:
        self.folder = folder
        self.progress = progress
        self._aside = folder / ".building"
        self._previous = _previous_manifest(folder)
        self._known = {file.path: file for file in _files(self._previous)} if self._previous else {}
        shutil.rmtree(self._aside, ignore_errors=True)

    def obtain(
        self, stem: str, suffixes: Sequence[str], *, step: str, make: Callable[..., None]
    ) -> tuple[FileRecord, ...]:
        """The files ``stem + suffix``, the main one first. ``make(path=main)`` writes them all if any is missing.

        A file that differs from what the manifest says of it counts as missing. ``step`` names the work to people.
        """
        paths = [self.folder / f"{stem}{suffix}" for suffix in suffixes]
        if records := self._finished(paths):
            self.progress(f"{step}: already done")
            return records
        self.progress(f"{step} ...")
        start_s = time.perf_counter()
        self._aside.mkdir()
        try:
            with writing(self._aside / paths[0].name):
                make(path=self._aside / paths[0].name)
            self._publish(paths)
        finally:
            shutil.rmtree(self._aside)
        self.progress(f"{step}: {time.perf_counter() - start_s:.1f} s")
        return tuple(record_file(path, directory=self.folder) for path in paths)

    def intact_paths(self, records: Sequence[FileRecord]) -> list[Path]:
        """Where the files are. Raises ``ConfigError`` if one is not as recorded."""
        for record in records:
            if not is_intact(record, directory=self.folder):
                raise ConfigError(f"{self.folder / record.path} is missing or damaged; build the engines again")
        return [self.folder / record.path for record in records]

    def commit(self, manifest: Manifest) -> Manifest:
        """Make ``manifest`` the one of the directory and remove what it does not name.

        Returns the manifest in force: the one before, if they differ in nothing but when they were made.
        """
        previous = self._previous
        if previous is not None and manifest.model_copy(update={"created": previous.created}) == previous:
            manifest = previous
        else:
            write_manifest(manifest, self.folder)
        named = {self.folder / file.path for file in _files(manifest)}
        for path in (*self.folder.glob("*"), *self.folder.glob("*/*")):
            if _OWN_FILE.match(path.name) and path.is_file() and path not in named:
                path.unlink()
        return manifest

    def _finished(self, paths: Sequence[Path]) -> tuple[FileRecord, ...] | None:
        if not all(path.is_file() for path in paths):
            return None
        records = tuple(record_file(path, directory=self.folder) for path in paths)
        return records if all(self._known.get(record.path, record) == record for record in records) else None

    def _publish(self, paths: Sequence[Path]) -> None:
        # The main file stands for all: it leaves first and comes last.
        paths[0].unlink(missing_ok=True)
        for path in reversed(paths):
            path.parent.mkdir(exist_ok=True)
            flush_to_disk(self._aside / path.name)
            (self._aside / path.name).replace(path)
        flush_to_disk(paths[0].parent)


def _previous_manifest(folder: Path) -> Manifest | None:
    try:
        return parse_manifest(folder / MANIFEST_NAME)
    except ConfigError:
        return None


def _files(manifest: Manifest) -> list[FileRecord]:
    parts: list[Graph | CompiledEngine] = [*manifest.graphs.values(), *manifest.engines.values()]
    files = [file for part in parts for file in part.files]
    if manifest.pca is not None:
        files.append(manifest.pca.file)
    return files if manifest.norm_set is None else [*files, manifest.norm_set]
