"""A catalogue on disk: made, added to, taken from, looked at, and asked what an upload has in common with it.

A folder with ``catalog.json``, the norm set, two tables, or shares with two tables each, and a lock file; the table of
rows may be a collection in Milvus. One process writes at a time; others read meanwhile, and see each commit whole.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from engine.build.cache import user_engines
from engine.catalog.adding import Addition, Describe
from engine.catalog.backup import LOCK_NAME, copy_catalog
from engine.catalog.inputs import Inputs, as_file, check_identity, check_utf8, read_inputs
from engine.catalog.manifest import (
    MANIFEST_NAME,
    MILVUS_STATE,
    CatalogManifest,
    MilvusRowsAt,
    read_manifest,
    write_manifest,
)
from engine.catalog.matching import Matcher, Share
from engine.catalog.reading import EngineReader, FileReader, file_state
from engine.catalog.records import AddReport, CatalogAnswer, CatalogInfo, CatalogVideo, Snapshot, Verification
from engine.catalog.share_search import ShareSearch
from engine.catalog.shares import Shares, share_folders
from engine.catalog.verification import verify_shares
from engine.config import Preset
from engine.describe.engine import Engine
from engine.errors import ConfigError, StoreError
from engine.evidence.frames import Viewer
from engine.files import exclusive, file_sha256, load_arrays, save_arrays
from engine.records import Descriptors, FloatArray, Media
from engine.run.extraction import describe_in_workers
from engine.run.plan import ClusterWorkers, Workers
from engine.run.protocol import Progress, no_progress
from engine.runtime.engines_directory import EnginesDirectory
from engine.search.comparison import ranked_by_pictures
from engine.search.score_norm import ScoreNormalizer
from engine.storage.location import Location, RemotePath, WebAccess, location
from engine.store.norm_set import read_norm_set
from engine.video import DecoderName
from engine.video.discovery import one_video

logger = logging.getLogger(__name__)

INDEX_ABOVE = 300_000
"""Up to so many rows of a share, all are compared exactly, in memory (2 KB each for 512 dimensions); beyond, an index
finds the nearest."""

_NORM_SET = "norm_set.npz"


class Catalog:
    """The references of a user. A context manager: leaving it closes the engines, which are opened when first needed.

    >>> with Catalog.open("catalogue") as catalog:
    ...     catalog.add(["videos/"])
    ...     for match in catalog.match("upload.mp4").matches:
    ...         print(match)
    """

    def __init__(
        self,
        folder: Location,
        manifest: CatalogManifest,
        *,
        engines: EnginesDirectory | None,
        decoder: DecoderName | None,
        index_above: int,
        cluster: str | None,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._shares = Shares.open(folder, manifest)
        self._engines = engines
        self._decoder = decoder
        self._index_above = index_above
        self._matcher = self._opened_matcher(cluster)
        self._resources = ExitStack()
        self._viewer = Viewer()
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls,
        folder: str | Location,
        *,
        engines: str | Path | EnginesDirectory | None = None,
        preset: Preset | None = None,
        norm_set: str | Location | None = None,
        use_score_norm: bool = True,
        num_shares: int = 1,
        milvus: str | None = None,
    ) -> Self:
        """Make an empty catalogue in a new or empty folder; what decides its descriptors and scores is kept in it.

        ``engines``: by default those of preset ``lite`` in the user's cache. ``preset`` replaces the settings that they
        were built with, as in `Engine.open`. ``norm_set``: descriptors of a norm set, a store or an ``.npz``; by
        default those that came with the engines. ``num_shares``: the videos are spread over so many folders, which
        other machines can search; it stays as it is. ``milvus``: the address of a Milvus server that keeps and searches
        the rows, ``http[s]://HOST:PORT[/DATABASE]``; its token is that of the environment variable ``MILVUS_TOKEN``.
        Raises ``ConfigError`` for engines without a PCA or a norm set and an address that is none, and ``StoreError``
        for a folder that holds other things, a norm set of other engines, and a server that does not answer.
        """
        if num_shares < 1:
            raise ConfigError(f"a catalogue has at least one share, got {num_shares}")
        if milvus is not None and num_shares > 1:
            raise ConfigError("rows in Milvus have no shares, as Milvus spreads them itself; leave --shares out")
        folder = location(folder)
        check_utf8(folder)
        rows_at = None if milvus is None else _rows_at(milvus, folder)
        opened = _opened(engines) or user_engines("lite")
        check_utf8(opened.folder.absolute())
        engine = Engine.open(opened, preset=preset)
        if not engine.use_pca:
            raise ConfigError(
                f"{opened.folder} has no PCA yet, and a catalogue keeps projected descriptors; fit one with "
                "`vsc-engine fit-pca`"
            )
        num_dims = next(
            int(spec.shape[-1] or 0)
            for spec in opened.manifest.engines["ensemble"].outputs
            if spec.name == "descriptor"
        )
        rows = None
        if use_score_norm:
            identity = opened.manifest.identity
            rows = opened.norm_set() if norm_set is None else read_norm_set(location(norm_set), engines=identity)
            _fitted(rows, engine.preset, num_dims=num_dims)
        manifest = CatalogManifest(
            identity=engine.identity(role="reference"),
            preset=engine.preset,
            num_dims=num_dims,
            norm_set_sha256=None if rows is None else _sha256(rows),
            engines_folder=None if engines is None else str(opened.folder.absolute()),
            num_shares=num_shares,
            milvus=rows_at,
        )
        if isinstance(folder, Path):
            folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _check_free(folder, manifest)
            if rows is not None:
                save_arrays(folder / _NORM_SET, {"descriptors": rows})
            Shares.create(folder, manifest)
            write_manifest(folder, manifest)
        return cls.open(folder, engines=opened)

    @classmethod
    def open(
        cls,
        folder: str | Location,
        *,
        engines: str | Path | EnginesDirectory | None = None,
        decoder: DecoderName | None = None,
        index_above: int = INDEX_ABOVE,
        cluster: str | None = None,
    ) -> Self:
        """Open a catalogue. ``engines``: by default those that it was made with.

        ``decoder``: as in `Engine.open`. ``index_above``: see `INDEX_ABOVE`; it counts for those who add. ``cluster``:
        the address of a Ray cluster, ``auto`` or ``HOST:PORT``, whose nodes hold a share each and search it; they see
        the folder under the same path. Raises ``StoreError`` for a folder that is none, a newer version, damage, and
        engines other than its own, ``ConfigError`` for a cluster and rows in Milvus, and ``EngineError`` where no
        cluster answers.
        """
        folder = location(folder)
        manifest = read_manifest(folder)
        if cluster is not None and manifest.milvus is not None:
            raise ConfigError(
                f"the rows of {folder} lie in Milvus, which searches them itself, on as many machines as it has; leave "
                "--cluster out"
            )
        opened = _opened(engines)
        catalog = cls(folder, manifest, engines=opened, decoder=decoder, index_above=index_above, cluster=cluster)
        if opened is not None:
            catalog.described_by()
        return catalog

    def add(
        self,
        paths: Iterable[str | Location],
        *,
        web: WebAccess | None = None,
        workers: Workers | ClusterWorkers | None = None,
        rows_per_commit: int | None = None,
        progress: Progress = no_progress,
    ) -> AddReport:
        """Add video files, folders of them, stores of descriptors, ``.npz`` files and other catalogues.

        Of a catalogue with the same identity the rows are taken; the videos of one of other engines are described
        again, under their ids there. What is there with the same bytes is kept, what changed is replaced; a video that
        fails costs no other its place. Videos are described by ``workers``, by default in this process, and committed
        in batches, so that an interrupted `add` goes on where it stopped when it is repeated. ``web``: what URLs of the
        web may do. Raises as `engine.catalog.inputs.read_inputs`, and ``StoreError`` while another process writes.
        """
        inputs = read_inputs([location(path) for path in paths], self.manifest, web=web)
        return self._add(inputs, self._describe(workers), rows_per_commit=rows_per_commit, progress=progress)

    def add_file(self, path: Path, *, video_id: str, describe: Describe | None = None) -> AddReport:
        """Add one video file under an id of its own, as `add` does; ``describe`` takes the place of this process.

        Raises ``ConfigError`` for a folder or a path that is none, ``StoreError`` while another process writes, and
        what ``describe`` raises.
        """
        inputs = Inputs([Media(video_id, one_video(path).path)], [], [], ())
        return self._add(inputs, describe or self._describe(None), rows_per_commit=None, progress=no_progress)

    def _add(self, inputs: Inputs, describe: Describe, *, rows_per_commit: int | None, progress: Progress) -> AddReport:
        with self._writing() as shares:
            addition = Addition(shares, index_above=self._index_above, rows_per_commit=rows_per_commit)
            missing = addition.missing(inputs)
            with progress("add", len(missing)) as advance:
                for video, source in inputs.described:
                    addition.take_described(video, source)
                for others, entries in inputs.copied:
                    addition.take_copies(others, entries)
                if missing:
                    for _ in addition.take_files(missing, describe):
                        advance()
            report = addition.finish()
            report = replace(report, failures=(*inputs.failures, *report.failures))
            shares.remove_orphans()
            shares.tend(index_above=self._index_above)
        return report

    def remove(self, video_ids: Iterable[str]) -> None:
        """Take videos out, all of a share at once. Raises ``StoreError``, and takes none, if one is not there."""
        wanted = set(video_ids)
        with self._writing() as shares:
            entries = shares.entries()
            unknown = sorted(wanted.difference(entries))
            if unknown:
                raise StoreError(
                    f"{self.folder} has no video '{unknown[0]}' ({len(unknown)} of {len(wanted)} unknown); "
                    "`vsc-engine catalog list` shows the ids"
                )
            if wanted:
                shares.remove([entries[video_id].revision for video_id in wanted])
                shares.remove_orphans()
                shares.tend(index_above=self._index_above, merge=True)

    def list(self) -> list[CatalogVideo]:
        """All videos by id."""
        self._shares.refresh()
        return [entry.video for entry in self._shares.entries().values()]

    def snapshot(self) -> Snapshot:
        """The state that an upload would be compared with now; its rows are held in memory from then on."""
        return self._matcher.snapshot()

    def info(self) -> CatalogInfo:
        """Facts of the catalogue."""
        videos, milvus = self.list(), self.manifest.milvus
        return CatalogInfo(
            folder=self.folder,
            num_videos=len(videos),
            num_rows=sum(video.num_rows for video in videos),
            num_dims=self.manifest.num_dims,
            duration_s=sum(video.duration_s for video in videos),
            engines=str(self.manifest.identity["engines"]),
            preset=self.manifest.preset.name,
            fps=self.manifest.preset.sampling.fps,
            norm_rows=len(self._norm_rows()) if self.manifest.norm_set_sha256 else 0,
            num_indexed_rows=self._shares.num_indexed_rows(),
            size_bytes=_size_bytes(self.folder),
            milvus=None if milvus is None else f"{milvus.uri} {milvus.collection}",
        )

    def verify(self) -> Verification:
        """Read everything and compare it with the checksums. Raises ``StoreError`` while another process writes."""
        with _locked(self.folder):
            self._shares.refresh()
            return verify_shares(self._shares)

    def backup(self, folder: str | Location) -> None:
        """Copy the catalogue, whole, to a new folder or prefix, which is a catalogue too; see `copy_catalog`.

        Rows in Milvus are copied into the folder. Raises ``StoreError`` while another process writes, for a place where
        anything is, and where a file cannot be copied, or rows are missing; ``RemoteError`` where an object cannot be
        read or written; ``ConfigError`` for rows in Milvus that are to go to an object store.
        """
        target = location(folder)
        check_utf8(target)
        if self.manifest.milvus is not None and not isinstance(target, Path):
            raise ConfigError(
                f"rows in Milvus are copied to a folder of this machine, not to {target}; back that up once more"
            )
        complete = None if self.manifest.milvus is None else self._copy_rows
        with _locked(self.folder):
            copy_catalog(self.folder, target, complete=complete)

    def _copy_rows(self, folder: Path) -> None:
        """Put the rows of Milvus into a copy of the folder."""
        self._shares.refresh()
        for tables in self._shares.tables:
            tables.copy_rows(folder, num_dims=self.manifest.num_dims)
        write_manifest(folder, self.manifest.model_copy(update={"milvus": None}))

    def match(
        self,
        upload: str | Location | bytes | BinaryIO | Descriptors,
        *,
        video_id: str | None = None,
        reader: FileReader | None = None,
    ) -> CatalogAnswer:
        """Describe a video as a query and compare it with all videos of the catalogue.

        ``upload``: a path, the bytes of a file, a file opened for reading bytes, which is read to its end (both are
        put into a temporary file, which is removed), or descriptors as `match_descriptors` takes them. Where the file
        of the catalogue's video is there, of the size that it had when it was added, pictures of the best matches are
        compared, which raises their scores.
        ``video_id``: of the upload, by default the name of its file without the last suffix. ``reader`` opens video
        files in place of this process. Raises ``MediaError`` for a file that cannot be described, ``ConfigError`` for a
        path that is none and all else.
        """
        if isinstance(upload, Descriptors):
            return self.match_descriptors(upload)
        reader = reader or EngineReader(self.engine(), self._viewer)
        if isinstance(upload, str | Path | RemotePath):
            return self._match_file(location(upload), video_id=video_id, reader=reader)
        with as_file(upload) as (path, name):
            return self._match_file(path, video_id=video_id or name, reader=reader)

    def _match_file(self, path: Location, *, video_id: str | None, reader: FileReader) -> CatalogAnswer:
        described = reader.describe(path, role="query", video_id=video_id)
        answer = self._matcher.answer(described, sha256=file_sha256(path) if isinstance(path, Path) else None)
        return self._looked_at(answer, path, reader)

    def _looked_at(self, answer: CatalogAnswer, upload: Location, reader: FileReader) -> CatalogAnswer:
        """The answer with what pictures of its best matches show, where the catalogue knows the video file."""
        ref_ids = sorted({match.ref_id for match in answer.matches})
        states = {ref_id: file_state(answer.videos[ref_id]) for ref_id in ref_ids}
        for state in ("gone", "changed"):
            paths = [answer.videos[ref_id].path for ref_id in ref_ids if states[ref_id] == state]
            if paths:
                left_out = (
                    f"pictures of {len(paths)} of {len(ref_ids)} candidates were not compared: files are {state}, such "
                    f"as {paths[0]}; `vsc-engine catalog add` takes in where files are and what they hold now"
                )
                logger.warning("%s: %s", answer.query_id, left_out)
                answer = replace(answer, warnings=(*answer.warnings, left_out))
        with_file = [match for match in answer.matches if states[match.ref_id] == "there"]
        if not with_file:
            return answer
        verified = reader.verified(with_file, answer.candidates, {answer.query_id: upload}, answer.paths)
        found = dict(zip(with_file, verified, strict=True))
        candidates, matches = ranked_by_pictures(
            answer.candidates, [found.get(match, match) for match in answer.matches], preset=self.manifest.preset
        )
        return replace(answer, candidates=tuple(candidates), matches=tuple(matches))

    def match_descriptors(self, query: Descriptors) -> CatalogAnswer:
        """Compare an upload that the catalogue's engines described as a query. Raises ``StoreError`` if D differs."""
        return self._matcher.answer(query)

    def engine(self) -> Engine:
        """The engine of this catalogue, opened; the same each time, until the catalogue is closed."""
        with self._lock:
            if self._engine is None:
                self._engine = self._resources.enter_context(self.described_by())
            return self._engine

    def described_by(self) -> Engine:
        """The engine of this catalogue, not opened. Raises ``StoreError`` for engines other than its own."""
        if self._engines is None:
            stored = self.manifest.engines_folder
            if stored is None:
                self._engines = user_engines(self.manifest.preset.name)
                self._say_if_outdated(self._engines.manifest.preset)
            else:
                self._engines = EnginesDirectory.open(Path(stored))
        engine = Engine.open(self._engines, preset=self.manifest.preset, decoder=self._decoder)
        check_identity(
            engine.identity(role="reference"), self.manifest, what=f"descriptors of the engines {engine.engines.folder}"
        )
        return engine

    def _say_if_outdated(self, current: Preset) -> None:
        """A catalogue goes on comparing as it did when it was made, which is no error, and easily overlooked."""
        kept = self.manifest.preset
        if (kept.search, kept.localization) != (current.search, current.localization):
            logger.warning(
                "%s compares with the settings of the version that made it, not with those of preset %s today; "
                "`vsc-engine catalog create NEW` and `catalog add NEW %s` make one that does",
                self.folder,
                current.name,
                self.folder,
            )

    def close(self) -> None:
        """Close the engines, and what looks at matches; what is used again opens them again."""
        with self._lock:
            self._engine = None
            self._resources.close()
        self._viewer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[Shares]:
        """The shares at their newest version, for the one writer, without what a killed one left."""
        with _locked(self.folder):
            self._shares.refresh()
            self._shares.begin_writing()
            self._shares.remove_orphans()
            yield self._shares

    def _describe(self, workers: Workers | ClusterWorkers | None) -> Describe:
        if workers is None:
            return lambda media: zip(media, self.engine().describe_media(media, role="reference"), strict=True)
        return lambda media: describe_in_workers(self.described_by(), media, role="reference", workers=workers)

    def _opened_matcher(self, cluster: str | None) -> Matcher:
        preset, normalizer = self.manifest.preset, self._normalizer()
        shares: Sequence[Share]
        if cluster is None:
            shares = [ShareSearch(tables, preset=preset, normalizer=normalizer) for tables in self._shares.tables]
        else:
            from engine.catalog.remote_shares import open_remote_shares

            shares = open_remote_shares(self.folder, self.manifest, normalizer=normalizer, cluster=cluster)
        return Matcher(shares, preset=preset, normalizer=normalizer)

    def _normalizer(self) -> ScoreNormalizer | None:
        if self.manifest.norm_set_sha256 is None:
            return None
        return _fitted(self._norm_rows(), self.manifest.preset, num_dims=self.manifest.num_dims)

    def _norm_rows(self) -> FloatArray:
        path = self.folder / _NORM_SET
        try:
            rows = load_arrays(path)["descriptors"]
        except (ValueError, KeyError) as error:
            raise StoreError(
                f"the norm set of the catalogue cannot be read: {error}; restore it from a copy"
            ) from error
        if _sha256(rows) != self.manifest.norm_set_sha256:
            raise StoreError(f"{path} is not the norm set that the catalogue was made with; restore it from a copy")
        return rows


def _opened(engines: str | Path | EnginesDirectory | None) -> EnginesDirectory | None:
    if engines is None or isinstance(engines, EnginesDirectory):
        return engines
    return EnginesDirectory.open(Path(engines))


def _rows_at(uri: str, folder: Location) -> MilvusRowsAt:
    from engine.catalog.milvus_rows import new_place

    return new_place(uri, folder)


def _fitted(rows: FloatArray, preset: Preset, *, num_dims: int) -> ScoreNormalizer:
    if rows.ndim != 2 or rows.shape[1] != num_dims:
        raise ConfigError(
            f"the norm set has rows of shape {rows.shape}, the engines make descriptors of {num_dims} dimensions; "
            "describe it with the same engines"
        )
    return ScoreNormalizer.fit(rows, beta=preset.score_norm.beta, nk=preset.score_norm.nk)


def _sha256(rows: FloatArray) -> str:
    return hashlib.sha256(f"{rows.dtype} {rows.shape}".encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()


@contextmanager
def _locked(folder: Location) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder / LOCK_NAME))
        except BlockingIOError as error:
            raise StoreError(f"another process is writing to the catalogue {folder}; wait for it") from error
        yield


def _check_free(folder: Location, manifest: CatalogManifest) -> None:
    """Refuse a folder with anything but what a killed `create` may have left."""
    if (folder / MANIFEST_NAME).exists():
        raise StoreError(f"{folder} is a catalogue already; add to it with `vsc-engine catalog add {folder} PATH`")
    shares = {share.name for share in share_folders(folder, manifest)}
    own = {LOCK_NAME, _NORM_SET, MILVUS_STATE, "videos.lance", "rows.lance", *shares}
    others = sorted(name for name in _entries(folder) if name not in own and not name.endswith(".aside"))
    if others:
        raise StoreError(f"{folder} holds other files ({others[0]}); choose a new or empty folder for the catalogue")


def _entries(folder: Location) -> set[str]:
    """The names in a folder."""
    if isinstance(folder, Path):
        return {entry.name for entry in folder.iterdir()}
    return {path.url.removeprefix(f"{folder.url.rstrip('/')}/").partition("/")[0] for path in folder.below()}


def _size_bytes(folder: Location) -> int:
    if isinstance(folder, Path):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().size_bytes for path in folder.below())
