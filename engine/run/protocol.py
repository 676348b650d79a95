"""The whole protocol over folders of videos: norm set, PCA, references, queries, search, localization.

Every step leaves its result in the output folder, and what is already there from the same inputs is not computed again,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.build.engines import set_pca
from engine.config import EnsembleGate, Preset
from engine.describe.engine import Engine
from engine.errors import ConfigError
from engine.evaluate.calibration import Verdict, VerdictScores
from engine.evidence.report import write_report
from engine.files import file_sha256, written_aside
from engine.projection import Pca, fit_pca
from engine.records import CandidatePair, Descriptors, Failure, FloatArray, Match, Media, Role
from engine.run.extraction import DEFAULT_OPTIONS, ExtractionOptions, extract_to_store
from engine.run.pictures import look_at_best
from engine.run.plan import choose_workers
from engine.runtime.engines_directory import EnginesDirectory
from engine.search.comparison import compare
from engine.search.exact import global_top_k
from engine.search.exact_copies import resolve_stopped
from engine.search.faiss_backend import SearchDevice
from engine.search.score_norm import ScoreNormalizer, unit_length
from engine.storage.location import Location, RemotePath, WebAccess
from engine.store.store import read_descriptors
from engine.store.tables import write_candidates, write_matches
from engine.video import DecoderName
from engine.video.discovery import discover

logger = logging.getLogger(__name__)

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def no_progress(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:  # noqa: ARG001
    """Say nothing."""
    return nullcontext(lambda: None)


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of. ``preset`` holds the settings to use; its models must be those of ``engines``.

    ``queries``, ``references`` and ``norm_set`` are folders of videos, or lists, see `engine.video.discovery.discover`;
    None as ``norm_set`` takes the one that came with the engines. ``output``: a folder, or a prefix of an object store;
    there each store and table appears whole. ``num_workers`` and ``num_gpus``: see `engine.run.plan.choose_workers`.
    ``report``: an HTML page of the matches to write. ``web``: what URLs of the web may do; None refuses them.
    """

    queries: Location
    references: Location
    norm_set: Location | None
    output: Location
    engines: EnginesDirectory
    preset: Preset
    use_score_norm: bool = True
    num_workers: int | None = None
    num_gpus: int | None = None
    decoder: DecoderName | None = None
    is_recursive: bool = True
    options: ExtractionOptions = DEFAULT_OPTIONS
    report: Location | None = None
    web: WebAccess | None = None

    @property
    def near_identical_cosine(self) -> float | None:
        """Above it, a query that the edit gate stopped still counts; None where the preset has no such rule."""
        gate = self.preset.gate
        return gate.near_identical_cosine if isinstance(gate, EnsembleGate) else None


@dataclass(frozen=True)
class RunResult:
    """What a run found, the videos that gave no descriptors, and the ids of all queries and references.

    ``known_failures``: videos that gave none before and were not tried again. ``verdicts``: on the pairs of
    ``candidates``, by query id and reference id; none where the preset is not calibrated or scores are not normalized.
    """

    candidates: list[CandidatePair]
    matches: list[Match]
    failures: tuple[Failure, ...]
    query_ids: frozenset[str]
    ref_ids: frozenset[str]
    known_failures: tuple[Failure, ...] = ()
    verdicts: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)


def run_protocol(settings: RunSettings, *, progress: Progress = no_progress) -> RunResult:
    """Do everything from video files to candidates and matches.

    Leaves in the output folder: ``norm_set/`` (raw embeddings), ``engines/`` (with the PCA folded in),
    ``references/`` and ``queries/`` (descriptors), ``candidates.csv``, ``matches.csv`` and ``run.json`` (the
    settings). The PCA is fitted on the norm set unless the engines have one. With the norm set that
    came with the engines, ``norm_set/`` and ``engines/`` are not made.

    Raises ``ConfigError`` or ``StoreError`` where nothing sensible can be computed, and ``RemoteError`` where an object
    store cannot be read or written; a video that fails is only recorded in the result.
    """
    run = _Run(settings, progress)
    engines, norm_rows = run.norm_set()
    references = run.describe("references", "reference", engines)
    queries = run.describe("queries", "query", engines)
    candidates, matches = _compare(settings, queries, references, norm_rows=norm_rows, device=run.device)
    paths = {name: {item.video_id: item.path for item in run.media[name]} for name in ("queries", "references")}
    candidates, matches = look_at_best(
        candidates, matches, paths["queries"], paths["references"], preset=settings.preset
    )
    write_candidates(settings.output / "candidates.csv", candidates)
    write_matches(settings.output / "matches.csv", matches)
    verdicts = _verdicts(settings, candidates, num_references=len(references))
    if settings.report is not None:
        rows = [{item.video_id: item for item in side} for side in (queries, references)]
        write_report(
            settings.report,
            matches,
            paths["queries"],
            paths["references"],
            verdicts=verdicts,
            query_rows=rows[0],
            ref_rows=rows[1],
        )
    query_ids, ref_ids = (frozenset(item.video_id for item in run.media[side]) for side in ("queries", "references"))
    known_failures = tuple(run.known_failures)
    return RunResult(candidates, matches, tuple(run.failures), query_ids, ref_ids, known_failures, verdicts)


class _Run:
    """The videos of a run, what describes them, and those that failed so far. Made before any work: refuses early."""

    def __init__(self, settings: RunSettings, progress: Progress) -> None:
        folders = {"norm_set": settings.norm_set, "references": settings.references, "queries": settings.queries}
        found = {
            name: discover([path], is_recursive=settings.is_recursive, web=settings.web)
            for name, path in folders.items()
            if path is not None
        }
        self.media = {name: side.media for name, side in found.items()}
        _check_norm_set(self.media.get("norm_set", []), self.media["references"])
        if settings.norm_set is not None and settings.engines.pca() is None:
            _fitted_folder(settings)
        self._workers = choose_workers(
            settings.engines.manifest, num_workers=settings.num_workers, num_gpus=settings.num_gpus
        )
        self.device = SearchDevice(num_gpus=settings.num_gpus or 0)
        self.device.check()
        logger.info("search: on %s", self.device)
        _claim(settings, self.media.get("norm_set"))
        self._settings = settings
        self._progress = progress
        self.failures: list[Failure] = [failure for side in found.values() for failure in side.failures]
        self.known_failures: list[Failure] = []

    def describe(
        self, name: str, role: Role, engines: EnginesDirectory, *, raw_embeddings: bool = False
    ) -> list[Descriptors]:
        preset, decoder = self._settings.preset, self._settings.decoder
        engine = Engine.open(engines, preset=preset, raw_embeddings=raw_embeddings, decoder=decoder)
        media, folder = self.media[name], self._settings.output / name
        with self._progress(name, len(media)) as advance:
            summary = extract_to_store(
                engine,
                media,
                role=role,
                output=folder,
                workers=self._workers,
                options=self._settings.options,
                on_done=advance,
            )
        self.failures.extend(summary.failures)
        self.known_failures.extend(summary.known_failures)
        inputs = {item.video_id for item in media}  # the store may hold more, from a run with other inputs
        found = [item for item in read_descriptors(folder) if item.video_id in inputs]
        if not found:
            raise ConfigError(f"none of {len(media)} videos in {media[0].path.parent} could be described")
        return found

    def norm_set(self) -> tuple[EnginesDirectory, FloatArray]:
        """Engines with a PCA, and rows of the norm set that they fit."""
        settings = self._settings
        if settings.norm_set is None:
            rows = settings.engines.norm_set()
            logger.info("norm set: the one that came with the engines, %d rows", len(rows))
            return settings.engines, rows
        raw = self.describe("norm_set", "reference", settings.engines, raw_embeddings=True)
        embeddings = np.concatenate([item.descriptors for item in raw])
        engines, pca = _with_pca(settings, embeddings)
        origin = "of the engines" if engines == settings.engines else "fitted on it"
        logger.info("norm set: %s, %d rows; PCA %s", settings.norm_set, len(embeddings), origin)
        return engines, pca.transform(embeddings)


def _compare(
    settings: RunSettings,
    queries: Sequence[Descriptors],
    references: Sequence[Descriptors],
    *,
    norm_rows: FloatArray,
    device: SearchDevice,
) -> tuple[list[CandidatePair], list[Match]]:
    preset = settings.preset
    cosine = settings.near_identical_cosine
    queries = resolve_stopped(queries, references, near_identical_cosine=cosine, device=device)
    if settings.use_score_norm:
        normalizer = ScoreNormalizer.fit(norm_rows, beta=preset.score_norm.beta, nk=preset.score_norm.nk)
        queries, references = normalizer.queries(queries, device=device), normalizer.references(references)
    else:
        queries, references = unit_length(queries), unit_length(references)
    search = partial(global_top_k, device=device)
    return compare(queries, references, preset=preset, use_score_norm=settings.use_score_norm, search=search)


def _verdicts(
    settings: RunSettings, candidates: Sequence[CandidatePair], *, num_references: int
) -> dict[tuple[str, str], Verdict]:
    """Those on all pairs; none where the scores are not those that the preset was calibrated on."""
    thresholds = VerdictScores.of_preset(
        settings.preset, num_references=num_references, use_score_norm=settings.use_score_norm
    )
    if thresholds is None:
        return {}
    return {(pair.query_id, pair.ref_id): thresholds.verdict(pair.score) for pair in candidates}


def _check_norm_set(norm_set: Sequence[Media], references: Sequence[Media]) -> None:
    """Refuse references in the norm set: normalization would lower the scores of their copies most of all."""
    shared = {str(item.path.resolve()) for item in norm_set} & {str(item.path.resolve()) for item in references}
    if shared:
        raise ConfigError(
            f"{len(shared)} videos are in the norm set and among the references, for example {min(shared)}; "
            "the norm set must be unrelated to both sides"
        )


def _claim(settings: RunSettings, norm_set: Sequence[Media] | None) -> None:
    """Mark the output folder with the settings and the norm set of this run; refuse one that holds another run.

    The norm set makes the PCA, and all descriptors depend on that.
    """
    identity = {
        "engines": settings.engines.manifest.identity,
        "preset": settings.preset.model_dump(mode="json"),
        "use_score_norm": settings.use_score_norm,
        "norm_set": None if norm_set is None else _content_of(norm_set),
    }
    path = settings.output / "run.json"
    if path.is_file():
        stored = _read_json(path)
        differing = sorted(key for key in identity if stored.get(key) != identity[key])
        if differing:
            raise ConfigError(
                f"{settings.output} holds a run with another {', '.join(differing)}; choose a new --output folder"
            )
        return
    with written_aside(path) as aside:
        aside.write_text(json.dumps(identity, indent=1), encoding="utf-8")


def _content_of(media: Sequence[Media]) -> str:
    """A hash of the ids and the bytes of files, of remote ones the versions."""
    digest = hashlib.sha256()
    for item in media:
        digest.update(f"{item.video_id}\0".encode())
        try:
            if isinstance(item.path, RemotePath):
                digest.update(item.path.stat().version.encode())
            else:
                digest.update(bytes.fromhex(file_sha256(item.path)))
        except OSError:  # it will fail when it is described
            digest.update(b"?")
    return digest.hexdigest()


def _read_json(path: Location) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not the settings of a run ({error}); choose a new --output folder") from error


def _with_pca(settings: RunSettings, embeddings: FloatArray) -> tuple[EnginesDirectory, Pca]:
    """Engines that have a PCA: the given ones, or a copy of them with one fitted on the norm set."""
    pca = settings.engines.pca()
    if pca is not None:
        return settings.engines, pca
    folder = _fitted_folder(settings)
    aside = folder.with_name(".engines.aside")
    fitted = EnginesDirectory.open(folder) if folder.is_dir() else None
    pca = None if fitted is None else fitted.pca()
    if fitted is None or pca is None:
        shutil.rmtree(aside, ignore_errors=True)
        _link_or_copy(settings.engines.folder, aside)
        pca = fit_pca(embeddings, num_components=_num_components(settings.preset, embeddings))
        manifest = set_pca(aside, pca)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        fitted = EnginesDirectory(folder, manifest)
    return fitted, pca


def _fitted_folder(settings: RunSettings) -> Path:
    """Where engines are put whose PCA is fitted here. Raises ``ConfigError`` for a URL: engines lie on this machine."""
    if isinstance(settings.output, RemotePath):
        raise ConfigError(
            f"{settings.engines.folder} has no PCA yet, and engines with one that is fitted on the norm set lie on "
            "this machine; fit one with `vsc-engine fit-pca`, or give --output a folder of this machine"
        )
    return settings.output / "engines"


def _num_components(preset: Preset, embeddings: FloatArray) -> int:
    """As many as the preset asks for, but no more than the norm set determines."""
    wanted, determined = preset.pca.num_components, min(len(embeddings) - 1, embeddings.shape[1])
    if determined < wanted:
        logger.warning(
            "the norm set has %d rows of %d dimensions: the PCA keeps %d components instead of %d",
            *embeddings.shape,
            determined,
            wanted,
        )
    return int(min(wanted, determined))


def _link_or_copy(source: Path, target: Path) -> None:
    """A folder as another one, of the same files where the disk can do that. `shutil.copytree` names no reason."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_dir():
            _link_or_copy(path, target / path.name)
            continue
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copy2(path, target / path.name)
