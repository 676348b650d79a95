"""An extraction: the videos of one side, through worker processes, into a store or a challenge file; resumable.

Knows nothing of how a video is described and of how workers are kept alive.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from engine.describe.engine import Engine, log_failure, log_warnings
from engine.errors import ConfigError
from engine.gate_placeholder import without_kept_rows
from engine.records import Failure, Media, Role
from engine.run.messages import Described, Job, Probed
from engine.run.plan import Workers
from engine.run.supervisor import Supervisor
from engine.run.worker import WorkerSettings, serve, serve_probes
from engine.store.store import Fingerprint, StoreWriter, read_descriptors, write_npz
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
    fingerprints = {item.video_id: Fingerprint.of(item.path) for item in media}
    with StoreWriter.open(output, identity=engine.identity(role=role)) as writer:
        writer.discard([key for key, stored in writer.finished.items() if fingerprints.get(key) != stored])
        missing = [item for item in media if item.video_id not in writer.finished]
        sizes = {item.video_id: fingerprints[item.video_id].size_bytes for item in missing}
        results: dict[str, Described | Failure] = {}
        stages_s: dict[str, float] = {}
        if missing:
            workers = workers.at_most(len(missing))
            supervisor = Supervisor(
                serve,
                _settings(engine, workers, role=role, folder=output),
                jobs_at_once=workers.videos_at_once,
                new_number=writer.new_writer,
                saved=writer.adopt,
            )
            with supervisor:
                results = _describe(supervisor, missing, sizes, on_done)
            stages_s = supervisor.stages_s
            logger.info(stages_line(stages_s))
        failures = tuple(result for _, result in sorted(results.items()) if isinstance(result, Failure))
        refusals = Counter(result.refusal for result in results.values() if isinstance(result, Described))
        num_by_decoder = refusals.pop(None, 0)
        if engine.decoder.leaves_to_pyav and missing:
            logger.info(decoders_line(num_by_decoder, refusals))
        writer.finish(failures=failures)
    return ExtractionSummary(
        len(missing) - len(failures), len(media) - len(missing), failures, stages_s, cast(dict[str, int], refusals)
    )


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
    Raises ``ConfigError``, and writes nothing, if no video could be described.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        store = Path(folder)
        summary = extract_to_store(engine, media, role=role, output=store, workers=workers, on_done=on_done)
        found = read_descriptors(store)
    if not found:
        raise ConfigError(f"none of {len(media)} videos could be described; {output} is not written")
    write_npz(output, [without_kept_rows(item) for item in found])
    return summary


def probe_durations(media: Sequence[Media], *, num_workers: int) -> dict[str, float]:
    """Seconds that the headers of videos claim, by video id; 0 where they say nothing, or end the process that asks."""
    jobs = [Job("probe", item) for item in media]
    numbers = iter(range(2**31))
    with Supervisor(
        serve_probes, [None] * num_workers, jobs_at_once=1, new_number=lambda: next(numbers), saved=lambda: ()
    ) as supervisor:
        return {
            job.media.video_id: result.duration_s if isinstance(result, Probed) else 0.0
            for job, result in supervisor.run(jobs)
        }


def _settings(engine: Engine, workers: Workers, *, role: Role, folder: Path) -> list[WorkerSettings]:
    return [
        WorkerSettings(
            engines=engine.engines.folder,
            preset=engine.preset,
            raw_embeddings=not engine.use_pca,
            role=role,
            folder=folder,
            videos_at_once=workers.videos_at_once,
            num_threads=workers.num_threads,
            gpu=workers.gpus[place] if workers.gpus else None,
            log_level=logging.getLogger("engine").getEffectiveLevel(),
            decoder=engine.decoder.name,
        )
        for place in range(workers.count)
    ]


def _describe(
    supervisor: Supervisor[WorkerSettings],
    media: Sequence[Media],
    sizes: Mapping[str, int],
    on_done: Callable[[], None],
) -> dict[str, Described | Failure]:
    """Describe all, the longest first, so that no worker is left alone with a long video at the end; results by id.

    ``sizes``: of the files, in bytes, by video id. Where lengths are equal, or not known, the larger file comes first.
    """
    results: dict[str, Described | Failure] = {}

    def note(video_id: str, result: Described | Failure) -> None:
        if video_id not in results:
            on_done()
        if results.get(video_id) != result:
            log_failure(result) if isinstance(result, Failure) else log_warnings(video_id, result.warnings)
        results[video_id] = result

    lengths: dict[str, tuple[float, int]] = {}
    for job, result in supervisor.run(Job("probe", item) for item in media):
        video_id = job.media.video_id
        if isinstance(result, Probed):
            lengths[video_id] = result.duration_s, sizes[video_id]
        else:
            note(video_id, result)
    queue = [item for item in media if item.video_id in lengths]
    queue.sort(key=lambda item: lengths[item.video_id], reverse=True)
    for job, result in supervisor.run(Job("describe", item) for item in queue):
        if not isinstance(result, Probed):
            note(job.media.video_id, result)
    return results
