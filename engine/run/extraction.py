"""An extraction: the videos of one side, through worker processes, into a store or a challenge file; resumable.

The workers send rows, and this process alone writes them: a video is on the disk as soon as it is described.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.build.cache import cache_folder
from engine.console import log_failure
from engine.describe.engine import Engine, log_warnings
from engine.errors import BackendUnavailable, ConfigError, StoreError
from engine.files import exclusive
from engine.gate_placeholder import without_kept_rows
from engine.records import Descriptors, Failure, Media, Role
from engine.run.executor import Executor
from engine.run.known_bad import known_failures, remember
from engine.run.messages import Described, Job, Probed
from engine.run.plan import ClusterWorkers, Workers
from engine.run.remote_worker import RemoteSettings, RemoteWorker
from engine.run.supervisor import Supervisor
from engine.run.worker import WorkerSettings, serve, serve_probes
from engine.storage.location import Location, RemotePath
from engine.storage.ranged import Traffic
from engine.store.challenge_npz import write_npz
from engine.store.input_shard import InputShard
from engine.store.shards import Fingerprint, StoreDtype
from engine.store.staging import staged, staging_folder
from engine.store.store import StoreWriter, read_descriptors, read_manifest
from engine.timing import stages_line
from engine.video.decoder import decoders_line

logger = logging.getLogger(__name__)


VIDEO_TIMEOUT_S = 600.0
"""Seconds that the description of a video of up to a minute may take; a longer one may take so much for each minute."""

_MIN_BYTES_PER_S = 1_000
_USUAL_BYTES_PER_S = 100_000
"""Of a video whose header claims no length."""


@dataclass(frozen=True)
class ExtractionOptions:
    """``video_timeout_s``: see `VIDEO_TIMEOUT_S`; ``retry_failed``: try files again that are known to give nothing;
    ``prune``: drop stored videos that are not among the inputs; ``shard``: the share of all inputs that these are;
    ``dtype``: the type in which descriptors are kept, None for that of the store, float32 for a new one.
    """

    video_timeout_s: float = VIDEO_TIMEOUT_S
    retry_failed: bool = False
    prune: bool = False
    shard: InputShard | None = None
    dtype: StoreDtype | None = None

    def limit_s(self, duration_s: float, *, size_bytes: int) -> float:
        """Seconds that a video may take whose header claims a length (0: none); headers lie, sizes do not."""
        length_s = min(duration_s, size_bytes / _MIN_BYTES_PER_S) or size_bytes / _USUAL_BYTES_PER_S
        return self.video_timeout_s * max(1.0, length_s / 60)


DEFAULT_OPTIONS = ExtractionOptions()


@dataclass(frozen=True)
class ExtractionSummary:
    """What became of the videos of one extraction; ``num_kept`` were in the store already.

    ``failures``, of this extraction, are in the order of the video ids, ``known_failures`` those of before that were
    not tried again. ``num_dropped``: stored videos that were not among the inputs, where that was asked for.
    ``stages_s``: seconds per stage, added up over all workers.
    ``refusals``: how many of the described videos the chosen decoder left to PyAV, by reason.
    ``traffic``: what was read of the described videos that are not on this machine, None where all are.
    """

    num_described: int
    num_kept: int
    failures: tuple[Failure, ...]
    stages_s: Mapping[str, float] = field(default_factory=dict, compare=False)
    refusals: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic | None = None
    known_failures: tuple[Failure, ...] = ()
    num_dropped: int = 0


def extract_to_store(
    engine: Engine,
    media: Sequence[Media],
    *,
    role: Role,
    output: Location,
    workers: Workers | ClusterWorkers,
    options: ExtractionOptions = DEFAULT_OPTIONS,
    on_done: Callable[[], None] = lambda: None,
) -> ExtractionSummary:
    """Describe videos into a store, beside those that are there, and go on where an interrupted extraction stopped.

    ``engine`` need not be entered: each worker process opens its own. Results do not depend on ``workers``. Videos
    whose file is unchanged since they were stored are not described again; those of a changed file are replaced. A file
    that gave nothing for a reason that lies in its content is not tried again under any name, until it or the version
    of what reads it changes, or the options ask for it. Raises ``StoreError`` if ``output`` holds descriptors of other
    engines or settings, or keeps them in another type. One in an object store is written as
    `engine.store.staging.staged` says.
    """
    fingerprints = _fingerprints(media)
    with (
        staged(output, cache=cache_folder) as folder,
        StoreWriter(folder, identity=engine.identity(role=role), shard=options.shard, dtype=options.dtype) as writer,
    ):
        inputs = {item.video_id for item in media}
        dropped = [key for key in writer.finished if options.prune and key not in inputs]
        changed = [key for key, now in fingerprints.items() if writer.finished.get(key, now) != now]
        writer.discard([*dropped, *changed])
        kept = writer.finished.keys() & fingerprints  # a file that cannot be looked at now keeps its rows, but fails
        missing = [item for item in media if item.video_id not in kept]
        known = {} if options.retry_failed else known_failures(missing, fingerprints, writer.known_bad)
        tried = [item for item in missing if item.video_id not in known]
        for _ in range(len(media) - len(tried)):
            on_done()
        failures: tuple[Failure, ...] = ()
        refusals: Counter[str] = Counter()
        stages_s: dict[str, float] = {}
        traffic: Traffic | None = None
        if tried:
            with _open_workers(engine, workers, role=role, num_videos=len(tried)) as executor:
                for item, result in _describe(executor, tried, fingerprints, options=options):
                    if isinstance(result, Failure):
                        log_failure(result)
                        failures += (result,)
                    else:
                        writer.discard([item.video_id])  # rows of a file that could not be looked at before
                        writer.add(result.descriptors, fingerprints.get(item.video_id) or Fingerprint.of(item.path))
                        log_warnings(item.video_id, result.descriptors.warnings)
                        refusals.update([result.refusal] if result.refusal else [])
                        if result.traffic is not None:
                            logger.debug("%s: %s", item.video_id, result.traffic)
                            traffic = result.traffic + traffic
                    on_done()
            stages_s = executor.stages_s
            logger.info(stages_line(stages_s))
            if traffic is not None:
                logger.info("object storage and web: %s", traffic)
        num_described = len(tried) - len(failures)
        if engine.decoder.leaves_to_pyav and tried:
            logger.info(decoders_line(num_described - refusals.total(), refusals))
        failures = tuple(sorted(failures, key=lambda failure: failure.video_id))
        tried_paths = {item.path for item in tried}
        known_bad = [entry for entry in writer.known_bad if entry.failure.path not in tried_paths]
        known_bad += remember(failures, fingerprints)
        writer.finish(failures=[*failures, *known.values()], known_bad=known_bad)
    return ExtractionSummary(
        num_described=num_described,
        num_kept=len(media) - len(missing),
        failures=failures,
        known_failures=tuple(known.values()),
        num_dropped=len(dropped),
        stages_s=stages_s,
        refusals=refusals,
        traffic=traffic,
    )


def extract_to_npz(
    engine: Engine,
    media: Sequence[Media],
    *,
    role: Role,
    output: Location,
    workers: Workers | ClusterWorkers,
    options: ExtractionOptions = DEFAULT_OPTIONS,
    on_done: Callable[[], None] = lambda: None,
) -> ExtractionSummary:
    """Describe videos into one challenge ``.npz``, written when all are done.

    What an interrupted run described is kept until then in a hidden folder beside ``output``, of an object in the cache
    of this machine, and gone on with if engines and settings are the same. A placeholder stands for each query that the
    gate stopped, because other programs search all rows of the file.

    Raises ``ConfigError``, and writes nothing, if no video could be described or ``output`` is a folder, ``StoreError``
    while another process of this machine writes it, and ``RemoteError`` where an object cannot be written.
    """
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file for the descriptors, or the folder of a store")
    options = replace(options, prune=True, retry_failed=True)  # the file has what was asked for this time
    store = _partial_store(output)
    with _alone_with(output, lock=store.with_suffix(".lock")):
        if store.exists() and not _is_store_of(store, engine.identity(role=role)):
            shutil.rmtree(store)
        summary = extract_to_store(
            engine, media, role=role, output=store, workers=workers, options=options, on_done=on_done
        )
        found = read_descriptors(store)
        if found:
            write_npz(output, [without_kept_rows(item) for item in found])
        shutil.rmtree(store)
    if not found:
        raise ConfigError(f"none of {len(media)} videos could be described; {output} is not written")
    return summary


def _partial_store(output: Location) -> Path:
    """Where what was described for an ``.npz`` is kept until that is written; the folder around it is made."""
    beside = staging_folder(output, cache=cache_folder) if isinstance(output, RemotePath) else output
    beside.parent.mkdir(parents=True, exist_ok=True)
    return beside.with_name(f".{beside.name}.partial")


@contextmanager
def _alone_with(output: Location, *, lock: Path) -> Iterator[None]:
    try:
        with exclusive(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise StoreError(f"another process is writing {output}; wait for it or choose another file") from error


def _is_store_of(folder: Path, identity: Mapping[str, object]) -> bool:
    try:
        return bool(read_manifest(folder).identity == json.loads(json.dumps(identity)))
    except StoreError:
        return False


def describe_in_workers(
    engine: Engine, media: Sequence[Media], *, role: Role, workers: Workers | ClusterWorkers
) -> Iterator[tuple[Media, Descriptors | Failure]]:
    """Describe at least one video; yields each as it is done, the longest ones first. Failures are logged.

    ``engine`` need not be entered: each worker process opens its own.
    """
    with _open_workers(engine, workers, role=role, num_videos=len(media)) as executor:
        for item, result in _describe(executor, media, _fingerprints(media), options=DEFAULT_OPTIONS):
            if isinstance(result, Failure):
                log_failure(result)
                yield item, result
            else:
                log_warnings(item.video_id, result.descriptors.warnings)
                yield item, result.descriptors


def probe_durations(media: Sequence[Media], *, num_workers: int) -> dict[str, float]:
    """Seconds that the headers of videos claim, by video id; 0 where they say nothing, or end the process that asks."""
    with Supervisor(serve_probes, [None] * num_workers, jobs_at_once=1) as executor:
        return {
            job.media.video_id: result.duration_s if isinstance(result, Probed) else 0.0
            for job, result in executor.run(Job("probe", item, limit_s=VIDEO_TIMEOUT_S) for item in media)
        }


def _fingerprints(media: Sequence[Media]) -> dict[str, Fingerprint]:
    """By video id; without those of files that cannot be looked at, which will fail when they are described."""
    found = {}
    for item in media:
        with suppress(OSError):
            found[item.video_id] = Fingerprint.of(item.path)
    return found


def _open_workers(engine: Engine, workers: Workers | ClusterWorkers, *, role: Role, num_videos: int) -> Executor:
    settings = WorkerSettings(
        engines=engine.engines.folder,
        preset=engine.preset,
        raw_embeddings=not engine.use_pca,
        role=role,
        videos_at_once=1,
        num_threads=None,
        log_level=logging.getLogger("engine").getEffectiveLevel(),
        decoder=engine.decoder.name,
    )
    if isinstance(workers, ClusterWorkers):
        return _open_cluster(settings, workers)
    workers = workers.at_most(num_videos)
    settings = replace(settings, videos_at_once=workers.videos_at_once, num_threads=workers.num_threads)
    gpus = workers.gpus or (None,) * workers.count
    return Supervisor(serve, [replace(settings, gpu=gpu) for gpu in gpus], jobs_at_once=workers.videos_at_once)


def _open_cluster(settings: WorkerSettings, workers: ClusterWorkers) -> Executor:
    try:
        from engine.run.ray_executor import RayExecutor
    except ModuleNotFoundError as error:
        raise BackendUnavailable("--cluster needs Ray: pip install 'vsc-engine[cluster]'") from error
    path = Path(os.path.abspath(settings.engines))  # noqa: PTH100 - an actor has another current folder
    remote = RemoteSettings.of(replace(settings, engines=path))
    return RayExecutor(RemoteWorker, remote.with_threads, workers=workers)


def _describe(
    executor: Executor, media: Sequence[Media], fingerprints: Mapping[str, Fingerprint], *, options: ExtractionOptions
) -> Iterator[tuple[Media, Described | Failure]]:
    """Describe all, the longest first, so that no worker is left alone with a long video at the end.

    Where lengths are equal, or not known, the larger file comes first.
    """
    lengths: dict[str, tuple[float, int]] = {}
    for job, result in executor.run(Job("probe", item, limit_s=options.video_timeout_s) for item in media):
        video_id = job.media.video_id
        if isinstance(result, Probed):
            known = fingerprints.get(video_id)
            lengths[video_id] = result.duration_s, 0 if known is None else known.size_bytes
        elif isinstance(result, Failure):
            yield job.media, result
    queue = [item for item in media if item.video_id in lengths]
    queue.sort(key=lambda item: lengths[item.video_id], reverse=True)
    limits_s = {key: options.limit_s(length_s, size_bytes=size) for key, (length_s, size) in lengths.items()}
    for job, result in executor.run(Job("describe", item, limit_s=limits_s[item.video_id]) for item in queue):
        if not isinstance(result, Probed):
            yield job.media, result
