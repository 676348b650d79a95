"""Many videos: worker threads decode, one set of graphs infers, results come back in the order of the input.

The border of a video is here: whatever goes wrong with one becomes a `Failure`, and costs no other video its result.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.config import ClipGate, Preset
from engine.describe import Describer, GateRunners
from engine.errors import ConfigError, EngineError
from engine.frames.decoder import Decoder, DecoderName
from engine.gated import shut_out
from engine.media import find_videos
from engine.records import Descriptors, Failure, Media, Role
from engine.runtime import Runner, open_runner
from engine.runtime.batching import SharedRunner
from engine.runtime.cache import user_engines
from engine.runtime.manifest import Manifest, graph_parts, read_manifest
from engine.store import Fingerprint, StoreWriter, write_npz
from engine.timing import StageClock, StageTimes

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
_LOOKAHEAD_PER_WORKER = 8
_FLUSH_INTERVAL_S = 20.0

Result = Descriptors | Failure


class Engine:
    """Turns video files into descriptors with the engines of one directory. A context manager.

    ``failures`` lists the videos that gave no result so far, ``times`` the seconds per stage.

    >>> with Engine.open("engines") as engine:
    ...     for descriptors in engine.extract(["videos/"], role="query"):
    ...         print(descriptors.video_id, descriptors.timestamps, descriptors.descriptors)
    """

    def __init__(
        self,
        directory: Path,
        *,
        manifest: Manifest,
        preset: Preset,
        fps: float,
        num_workers: int,
        raw_embeddings: bool,
        decoder: DecoderName,
    ) -> None:
        if fps <= 0 or num_workers < 1:
            raise ConfigError(f"expected fps > 0 and at least one worker, got fps {fps} and {num_workers} workers")
        self.directory = directory
        self.manifest = manifest
        self.preset = preset
        self.fps = fps
        self.num_workers = num_workers
        self.use_pca = manifest.pca is not None and not raw_embeddings
        self.decoder = Decoder(decoder, device="cpu" if manifest.backend == "openvino" else "gpu", fps=fps)
        self.failures: list[Failure] = []
        self.times = StageTimes()
        self._resources = ExitStack()
        self._describer: Describer | None = None

    @classmethod
    def open(
        cls,
        directory: str | Path | None = None,
        *,
        preset: Preset | None = None,
        fps: float = 1.0,
        num_workers: int | None = None,
        raw_embeddings: bool = False,
        decoder: DecoderName | None = None,
    ) -> Engine:
        """Read the manifest of an engines directory; graphs are loaded on entering the context.

        Without ``directory`` the preset ``lite`` is used, built into the user's cache folder on first use. ``preset``
        replaces the settings the engines were built with, for example to turn frame scenes off; its models must be
        the same, those of the gate too if it is on. ``num_workers`` threads decode (default: one per core).
        ``raw_embeddings`` leaves the PCA out, which is what a PCA is fitted on. ``decoder``: ``dali`` decodes on the
        device that the engines run on, and is the default where that is a GPU. Raises ``ConfigError``, and
        ``BackendUnavailable`` for a decoder that this machine does not have.
        """
        folder = Path(directory) if directory is not None else user_engines("lite")
        manifest = read_manifest(folder)
        if preset is not None and not _has_models(manifest.preset, preset):
            raise ConfigError(
                f"{folder} was built for the models of preset {manifest.preset.name!r}, not for those of "
                f"{preset.name!r}; build engines for it with `vsc-engine build --preset {preset.name} --output DIR`"
            )
        return cls(
            folder,
            manifest=manifest,
            preset=preset or manifest.preset,
            fps=fps,
            num_workers=num_workers if num_workers is not None else os.cpu_count() or 1,
            raw_embeddings=raw_embeddings,
            decoder=decoder or ("pyav" if manifest.backend == "openvino" else "dali"),
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            ensemble = self._enter(stack, "ensemble")
            shared = SharedRunner(ensemble, batch_size=BATCH_SIZE)
            output = "descriptor" if self.use_pca else "embedding"
            num_dims = next(spec.shape[-1] for spec in ensemble.outputs if spec.name == output)
            self._describer = Describer(
                preset=self.preset,
                ensemble=shared,
                gate=self._enter_gate(stack, shared),
                num_dims=int(num_dims or 0),
                use_pca=self.use_pca,
                fps=self.fps,
            )
            self._resources = stack.pop_all()
        return self

    def _enter(self, stack: ExitStack, name: str) -> Runner:
        return stack.enter_context(open_runner(self.manifest, self.directory, name))

    def _enter_gate(self, stack: ExitStack, ensemble: SharedRunner) -> GateRunners | None:
        config = self.preset.gate
        if config.mode == "off":
            return None
        features = ensemble
        if isinstance(config, ClipGate):
            features = SharedRunner(self._enter(stack, "edit_features"), batch_size=BATCH_SIZE)
        return GateRunners(config, features, self._enter(stack, "edit_score"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._describer = None
        self._resources.close()
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.times.as_dict().items())
        logger.info("seconds per stage, all workers: %s", stages or "nothing to do")
        if summary := self.decoder.summary():
            logger.info("%s", summary)

    def extract(self, paths: Iterable[str | Path], *, role: Role) -> Iterator[Descriptors]:
        """Describe video files and the videos of folders, in the order of their ids.

        A video that gives no result is added to ``failures`` and logged; the others are not concerned. Raises
        ``ConfigError`` before any work for a missing path, a folder without videos, or two videos with one id.
        """
        for result in self.describe_media(find_videos([Path(path) for path in paths]), role=role):
            if isinstance(result, Descriptors):
                yield result

    def describe_media(self, media: Sequence[Media], *, role: Role) -> Iterator[Result]:
        """Describe known videos; yields one result for each, in order."""
        if self._describer is None:
            raise RuntimeError("the engine is closed; use it inside `with Engine.open(...) as engine:`")
        waiting: deque[Future[Result]] = deque()
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="video")
        try:
            for item in media:
                waiting.append(pool.submit(self._describe_one, self._describer, item, role))
                if len(waiting) > _LOOKAHEAD_PER_WORKER * self.num_workers:
                    yield self._note(waiting.popleft().result())
            while waiting:
                yield self._note(waiting.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def identity(self, *, role: Role) -> dict[str, Any]:
        """What decides the descriptors of a video besides its file; stored with them, so that they never mix."""
        of_queries = {"gate", "scenes", "near_duplicates"} if role == "reference" else set[str]()
        settings = self.preset.model_dump(mode="json", exclude={"pca", "score_norm", *of_queries})
        return {
            "engines": self.manifest.identity,
            "settings": settings,
            "pca": self.use_pca,
            "fps": self.fps,
            "role": role,
        }

    def _note(self, result: Result) -> Result:
        if isinstance(result, Failure):
            self.failures.append(result)
            logger.warning("failed: %s (%s): %s", result.video_id, result.stage, result.reason)
        else:
            for warning in result.warnings:
                logger.warning("%s: %s", result.video_id, warning)
        return result

    def _describe_one(self, describer: Describer, media: Media, role: Role) -> Result:
        clock = StageClock(self.times)
        try:
            with closing(self.decoder.open(media)) as source:
                return describer.describe(source, video_id=media.video_id, role=role, clock=clock)
        except EngineError as error:
            return Failure(media.video_id, media.path, clock.current, str(error))
        except Exception as error:
            logger.debug("unexpected error in %s", media.path, exc_info=True)
            return Failure(media.video_id, media.path, clock.current, f"{type(error).__name__}: {error}")


def _has_models(built: Preset, wanted: Preset) -> bool:
    has_gate = wanted.gate.mode == "off" or graph_parts(built) == graph_parts(wanted)
    return built.models == wanted.models and has_gate


@dataclass(frozen=True)
class ExtractionSummary:
    """What became of the videos of one extraction; ``num_kept`` were in the store already."""

    num_described: int
    num_kept: int
    failures: tuple[Failure, ...]


def extract_to_store(
    engine: Engine,
    media: Sequence[Media],
    *,
    role: Role,
    output: Path,
    on_result: Callable[[Result], None] = lambda _: None,
) -> ExtractionSummary:
    """Describe videos into a store, and go on where an interrupted extraction stopped.

    Videos whose file is unchanged since they were stored are not described again; stored videos that are not among
    ``media`` any more are dropped. Failed videos are tried again each time. Raises ``StoreError`` if ``output`` holds
    descriptors of other engines or settings.
    """
    fingerprints = {item.video_id: Fingerprint.of(item.path) for item in media}
    failures: list[Failure] = []
    with StoreWriter.open(output, identity=engine.identity(role=role)) as writer:
        writer.discard([key for key, stored in writer.finished.items() if fingerprints.get(key) != stored])
        missing = [item for item in media if item.video_id not in writer.finished]
        flushed_s = time.monotonic()
        for result in engine.describe_media(missing, role=role):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                writer.add(result, fingerprints[result.video_id])
            if time.monotonic() - flushed_s > _FLUSH_INTERVAL_S:
                writer.flush()
                flushed_s = time.monotonic()
            on_result(result)
        writer.finish(failures=failures)
    return ExtractionSummary(len(missing) - len(failures), len(media) - len(missing), tuple(failures))


def extract_to_npz(
    engine: Engine,
    media: Sequence[Media],
    *,
    role: Role,
    output: Path,
    on_result: Callable[[Result], None] = lambda _: None,
) -> ExtractionSummary:
    """Describe videos into one challenge ``.npz``, written when all are done; nothing is kept of an interrupted run.

    A placeholder stands for each query that the gate stopped, because other programs search all rows of the file.
    Raises ``ConfigError``, and writes nothing, if no video could be described.
    """
    found: list[Descriptors] = []
    failures: list[Failure] = []
    for result in engine.describe_media(media, role=role):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            found.append(result)
        on_result(result)
    if not found:
        raise ConfigError(f"none of {len(media)} videos could be described; {output} is not written")
    write_npz(output, [shut_out(item) for item in found])
    return ExtractionSummary(len(found), 0, tuple(failures))
