"""An extraction: the videos of one side, through worker processes, into a store or a challenge file; resumable.

The workers send rows, and this process alone writes them: a video is on the disk as soon as it is described.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.describe.engine import Engine, log_failure, log_warnings
from engine.errors import ConfigError
from engine.gate_placeholder import without_kept_rows
from engine.records import Descriptors, Failure, Media, Role
from engine.run.executor import Executor
from engine.run.messages import Described, Job, Probed
from engine.run.plan import Workers
from engine.run.supervisor import Supervisor
from engine.run.worker import WorkerSettings, serve, serve_probes
from engine.store.challenge_npz import write_npz
from engine.store.shards import Fingerprint
from engine.store.store import StoreWriter, read_descriptors
from engine.timing import stages_line
from engine.video.decoder import decoders_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionSummary:
    """What became of the videos of one extraction; ``num_kept`` were in the store already.

    ``failures`` are in the order of the video ids. ``stages_s``: seconds per stage, added up over all workers.
    ``refusals``: how many of the described videos the chosen decoder left to PyAV, by reason.
    """

    num_described: int
    num_kept: int
    failures: tuple[Failure, ...]
    stages_s: Mapping[str, float] = field(default_factory=dict, compare=False)
    refusals: Mapping[str, int] = field(default_factory=dict)


def extract_to_store(
    engine: Engine,
    media: Sequence[Media],
    *,
    role: Role,
    output: Path,
    workers: Workers,
    on_done: Callable[[], None] = lambda: None,
) -> ExtractionSummary:
    """Describe videos into a store, and go on where an interrupted extraction stopped.

    ``engine`` need not be entered: each worker process opens its own. Results do not depend on ``workers``. Videos
    whose file is unchanged since they were stored are not described again; stored videos that are not among ``media``
    any more are dropped. Failed videos are tried again each time. Raises ``StoreError`` if ``output`` holds descriptors
    of other engines or settings.
    """
    fingerprints = _fingerprints(media)
    with StoreWriter(output, identity=engine.identity(role=role)) as writer:
        writer.discard([key for key, stored in writer.finished.items() if fingerprints.get(key) != stored])
        missing = [item for item in media if item.video_id not in writer.finished]
        failures: tuple[Failure, ...] = ()
        refusals: Counter[str] = Counter()
        stages_s: dict[str, float] = {}
        if missing:
            with _open_workers(engine, workers.at_most(len(missing)), role=role) as executor:
                for item, result in _describe(executor, missing, fingerprints):
                    if isinstance(result, Failure):
                        log_failure(result)
                        failures += (result,)
                    else:
                        writer.add(result.descriptors, fingerprints.get(item.video_id) or Fingerprint.of(item.path))
                        log_warnings(item.video_id, result.descriptors.warnings)
                        refusals.update([result.refusal] if result.refusal else [])
                    on_done()
            stages_s = executor.stages_s
            logger.info(stages_line(stages_s))
        num_described = len(missing) - len(failures)
        if engine.decoder.leaves_to_pyav and missing:
            logger.info(decoders_line(num_described - refusals.total(), refusals))
        failures = tuple(sorted(failures, key=lambda failure: failure.video_id))
        writer.finish(failures=failures)
    return ExtractionSummary(num_described, len(media) - len(missing), failures, stages_s, refusals)


def extract_to_npz(
    engine: Engine,
    media: Sequence[Media],
    *,
    role: Role,
    output: Path,
    workers: Workers,
    on_done: Callable[[], None] = lambda: None,
) -> ExtractionSummary:
    """Describe videos into one challenge ``.npz``, written when all are done; nothing is kept of an interrupted run.

    A placeholder stands for each query that the gate stopped, because other programs search all rows of the file.
    Raises ``ConfigError``, and writes nothing, if no video could be described or ``output`` is a folder.
    """
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file for the descriptors, or the folder of a store")
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        store = Path(folder)
        summary = extract_to_store(engine, media, role=role, output=store, workers=workers, on_done=on_done)
        found = read_descriptors(store)
    if not found:
        raise ConfigError(f"none of {len(media)} videos could be described; {output} is not written")
    write_npz(output, [without_kept_rows(item) for item in found])
    return summary


def describe_in_workers(
    engine: Engine, media: Sequence[Media], *, role: Role, workers: Workers
) -> Iterator[tuple[Media, Descriptors | Failure]]:
    """Describe at least one video; yields each as it is done, the longest ones first. Failures are logged.

    ``engine`` need not be entered: each worker process opens its own.
    """
    with _open_workers(engine, workers.at_most(len(media)), role=role) as executor:
        for item, result in _describe(executor, media, _fingerprints(media)):
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
            for job, result in executor.run(Job("probe", item) for item in media)
        }


def _fingerprints(media: Sequence[Media]) -> dict[str, Fingerprint]:
    """By video id; without those of files that cannot be looked at, which will fail when they are described."""
    found = {}
    for item in media:
        with suppress(OSError):
            found[item.video_id] = Fingerprint.of(item.path)
    return found


def _open_workers(engine: Engine, workers: Workers, *, role: Role) -> Executor:
    settings = [
        WorkerSettings(
            engines=engine.engines.folder,
            preset=engine.preset,
            raw_embeddings=not engine.use_pca,
            role=role,
            videos_at_once=workers.videos_at_once,
            num_threads=workers.num_threads,
            gpu=workers.gpus[place] if workers.gpus else None,
            log_level=logging.getLogger("engine").getEffectiveLevel(),
            decoder=engine.decoder.name,
        )
        for place in range(workers.count)
    ]
    return Supervisor(serve, settings, jobs_at_once=workers.videos_at_once)


def _describe(
    executor: Executor, media: Sequence[Media], fingerprints: Mapping[str, Fingerprint]
) -> Iterator[tuple[Media, Described | Failure]]:
    """Describe all, the longest first, so that no worker is left alone with a long video at the end.

    Where lengths are equal, or not known, the larger file comes first.
    """
    lengths: dict[str, tuple[float, int]] = {}
    for job, result in executor.run(Job("probe", item) for item in media):
        video_id = job.media.video_id
        if isinstance(result, Probed):
            known = fingerprints.get(video_id)
            lengths[video_id] = result.duration_s, 0 if known is None else known.size_bytes
        elif isinstance(result, Failure):
            yield job.media, result
    queue = [item for item in media if item.video_id in lengths]
    queue.sort(key=lambda item: lengths[item.video_id], reverse=True)
    for job, result in executor.run(Job("describe", item) for item in queue):
        if not isinstance(result, Probed):
            yield job.media, result
