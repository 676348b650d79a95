"""Many videos in one process: threads decode, one set of graphs infers, results come back in the order of the input.

The border of a video is here: whatever goes wrong with one becomes a `Failure`, and costs no other video its result.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from engine.build.cache import user_engines
from engine.config import ClipGate, EnsembleGate, Preset, graph_parts
from engine.console import log_failure
from engine.describe.describer import Describer, GateRunners
from engine.errors import ConfigError, EngineError, MediaError
from engine.records import Descriptors, Failure, Frames, Media, Role
from engine.runtime.batching import SharedRunner
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.runner import Runner
from engine.storage.location import Location, RemotePath, location
from engine.storage.ranged import Traffic, held
from engine.timing import StageClock, StageTimes, stages_line
from engine.video import DecoderName
from engine.video.arrays import ArrayFrameSource
from engine.video.decoder import Decoder, default_decoder
from engine.video.discovery import discover, one_video

logger = logging.getLogger(__name__)

_LOOKAHEAD_PER_THREAD = 8

Result = Descriptors | Failure


class Engine:
    """Turns video files into descriptors with the engines of one directory. A context manager.

    ``failures`` lists the videos that gave no result so far, ``times`` the seconds per stage, ``traffic`` what was read
    of those that are not on this machine, by id.

    >>> with Engine.open("engines") as engine:
    ...     for descriptors in engine.extract(["videos/"], role="query"):
    ...         print(descriptors.video_id, descriptors.timestamps, descriptors.descriptors)
    """

    def __init__(
        self,
        engines: EnginesDirectory,
        *,
        preset: Preset,
        num_threads: int | None,
        raw_embeddings: bool,
        decoder: DecoderName | None,
    ) -> None:
        if num_threads is not None and num_threads < 1:
            raise ConfigError(f"expected at least one thread, got {num_threads}")
        self.engines = engines
        self.preset = preset
        self.num_threads = num_threads
        self.use_pca = engines.manifest.pca is not None and not raw_embeddings
        device = engines.manifest.device
        self.decoder = Decoder(
            decoder or default_decoder(device),
            device=device,
            fps=preset.sampling.fps,
            max_pixels=preset.decoding.max_pixels,
            working_pixels=preset.decoding.working_pixels,
            maps_hdr=preset.decoding.hdr == "tone_map",
            resizes_planes=preset.decoding.resize == "planes",
            replaces_blank=preset.decoding.blank == "replace",
            max_keyframe_gap_s=preset.sampling.max_gap_s if preset.sampling.frames == "keyframes" else None,
        )
        self.failures: list[Failure] = []
        self.times = StageTimes()
        self.traffic: dict[str, Traffic] = {}
        self._resources = ExitStack()
        self._describer: Describer | None = None

    @classmethod
    def open(
        cls,
        engines: str | Path | EnginesDirectory | None = None,
        *,
        preset: Preset | None = None,
        fps: float | None = None,
        num_threads: int | None = None,
        raw_embeddings: bool = False,
        decoder: DecoderName | None = None,
    ) -> Engine:
        """Read the manifest of an engines directory; graphs are loaded on entering the context.

        Without ``engines`` the preset ``lite`` is used, built into the user's cache folder on first use. ``preset``
        replaces the settings the engines were built with, for example to turn frame scenes off; its models must be
        the same, those of the gate too if it is on. ``fps`` replaces the preset's. ``num_threads`` decode, and as many
        compute on a CPU (default: all cores). ``raw_embeddings`` leaves the PCA out, which is what a PCA is fitted on.
        ``decoder``: ``dali`` decodes on the device that the engines run on, and is the default where that is a GPU.
        Raises ``ConfigError``; entering the context raises ``BackendUnavailable`` for a library or device that is not
        there.
        """
        if engines is None:
            engines = user_engines("lite")
        elif not isinstance(engines, EnginesDirectory):
            engines = EnginesDirectory.open(Path(engines))
        manifest = engines.manifest
        if preset is not None and not _has_models(manifest.preset, preset):
            raise ConfigError(
                f"{engines.folder} was built for the models of preset {manifest.preset.name!r}, not for those of "
                f"{preset.name!r}; build engines for it with `vsc-engine build --preset {preset.name} --output DIR`"
            )
        chosen = preset or manifest.preset
        return cls(
            engines,
            preset=chosen if fps is None else chosen.with_fps(fps),
            num_threads=num_threads,
            raw_embeddings=raw_embeddings,
            decoder=decoder,
        )

    def __enter__(self) -> Self:
        self.decoder.start()
        with ExitStack() as stack:
            ensemble = self._enter(stack, "ensemble", unwanted=() if self._takes_gate_features else ("edit_features",))
            shared = SharedRunner(ensemble)
            output = "descriptor" if self.use_pca else "embedding"
            num_dims = next(spec.shape[-1] for spec in ensemble.outputs if spec.name == output)
            self._describer = Describer(
                preset=self.preset,
                ensemble=shared,
                gate=self._enter_gate(stack, shared),
                num_dims=int(num_dims or 0),
                use_pca=self.use_pca,
            )
            self._resources = stack.pop_all()
        return self

    @property
    def _takes_gate_features(self) -> bool:
        """The ensemble gives the features that the gate looks at."""
        return isinstance(self.preset.gate, EnsembleGate) and self.preset.gate.mode != "off"

    def _enter(self, stack: ExitStack, name: str, *, unwanted: Collection[str] = ()) -> Runner:
        return stack.enter_context(self.engines.open_runner(name, num_threads=self.num_threads, unwanted=unwanted))

    def _enter_gate(self, stack: ExitStack, ensemble: SharedRunner) -> GateRunners | None:
        config = self.preset.gate
        if config.mode == "off":
            return None
        features = SharedRunner(self._enter(stack, "edit_features")) if isinstance(config, ClipGate) else ensemble
        return GateRunners(config, features, self._enter(stack, "edit_score"))

    def __exit__(self, *_: object) -> None:
        self._describer = None
        self._resources.close()
        logger.info(stages_line(self.times.as_dict()))

    def extract(
        self, paths: str | Location | Iterable[str | Location], *, role: Role, is_recursive: bool = True
    ) -> Iterator[Descriptors]:
        """Describe the videos at one path or several, as `engine.video.discovery.discover` finds them, ordered by id.

        A video that gives no result is added to ``failures`` and logged; the others are not concerned. Raises
        ``ConfigError`` before any work for a missing path, no video at all, or two videos with one id.
        """
        check_role(role)
        given = [paths] if isinstance(paths, str | Path | RemotePath) else paths
        found = discover([location(path) for path in given], is_recursive=is_recursive)
        self.failures.extend(found.failures)
        for result in self.describe_media(found.media, role=role):
            if isinstance(result, Descriptors):
                yield result

    def describe_media(self, media: Sequence[Media], *, role: Role) -> Iterator[Result]:
        """Describe known videos; yields one result for each, in order."""
        self._opened()
        waiting: deque[Future[Result]] = deque()
        num_threads = self.num_threads or os.cpu_count() or 1
        pool = ThreadPoolExecutor(num_threads, thread_name_prefix="video")
        try:
            for item in media:
                waiting.append(pool.submit(self.describe, item, role=role))
                if len(waiting) > _LOOKAHEAD_PER_THREAD * num_threads:
                    yield self._note(waiting.popleft().result())
            while waiting:
                yield self._note(waiting.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def describe(self, media: Media, *, role: Role) -> Result:
        """Describe one video. Several threads may do so at once, and then share batches."""
        check_role(role)
        describer = self._opened()
        clock = StageClock(self.times)
        try:
            with self._held(media) as item, closing(self.decoder.open(item)) as source:
                return describer.describe(source, video_id=media.video_id, role=role, clock=clock)
        except EngineError as error:
            is_of_content = isinstance(error, MediaError)
            return Failure(media.video_id, media.path, clock.current, str(error), is_of_content=is_of_content)
        except Exception as error:
            logger.debug("unexpected error in %s", media.path, exc_info=True)
            return Failure(media.video_id, media.path, clock.current, f"{type(error).__name__}: {error}")

    @contextmanager
    def _held(self, media: Media) -> Iterator[Media]:
        """The video, for all passes over it; of a remote one it is counted what they read."""
        if not isinstance(media.path, RemotePath):
            yield media
            return
        with held(media.path) as path:
            try:
                yield replace(media, path=path)
            finally:
                self.traffic[media.video_id] = path.file.traffic

    def describe_file(self, path: str | Location, *, role: Role, video_id: str | None = None) -> Descriptors:
        """Describe one file, whatever its name; its id is its name without the last suffix, or ``video_id``.

        Raises ``MediaError`` where it gives no descriptors, and ``ConfigError`` for a folder or a path that is none.
        """
        media = one_video(location(path))
        result = self.describe(Media(video_id or media.video_id, media.path), role=role)
        if isinstance(result, Failure):
            raise MediaError(result.reason if str(path) in result.reason else f"{path}: {result.reason}")
        log_warnings(result.video_id, result.warnings)
        return result

    def describe_frames(
        self,
        frames: Frames,
        timestamps_s: NDArray[np.floating[Any]] | Sequence[float],
        *,
        role: Role,
        video_id: str = "frames",
    ) -> Descriptors:
        """Describe decoded frames, RGB uint8 ``(N, H, W, 3)``, as one video; each is a row, none is left out.

        ``timestamps_s``: float ``(N,)``, when each frame begins, from 0 up, strictly rising; a frame lasts until the
        next one, the last one as long as the one before it (a single one ``1 / fps`` of the preset). Frames at the
        preset's rate, by default one a second, give the descriptors that files have (where the preset resizes planes,
        as `lite`, nearly: cosines of 0.999). Raises ``ConfigError`` for other
        shapes, types or times.
        """
        check_role(role)
        source = ArrayFrameSource(frames, timestamps_s, fps=self.preset.sampling.fps)
        return self._opened().describe(source, video_id=video_id, role=role, clock=StageClock(self.times))

    def identity(self, *, role: Role) -> dict[str, Any]:
        """What decides the descriptors of a video besides its file; stored with them, so that they never mix."""
        check_role(role)
        of_queries = {"gate", "scenes", "near_duplicates"} if role == "reference" else set[str]()
        other = {"pca", "score_norm", "search", "localization", "false_matches", *of_queries}
        exclude: dict[str, Any] = {**dict.fromkeys(other, True), "decoding": {"max_pixels"}}
        decoding = self.preset.decoding
        if decoding.resize == "rgb":  # nor of those from before it could be chosen
            exclude["decoding"].add("resize")
        if decoding.blank == "keep":
            exclude["decoding"].add("blank")
        if self.preset.sampling.frames == "all":  # the stores from before key frames could be chosen stay what they are
            exclude["sampling"] = {"frames", "max_gap_s"}
        settings = self.preset.model_dump(mode="json", exclude=exclude)
        found = {
            "engines": self.engines.manifest.identity,
            "settings": settings,
            "pca": self.use_pca,
            "role": role,
        }
        if "ensemble" in self.engines.manifest.bfloat16:
            # Operations are joined otherwise where the features are wanted, and then round elsewhere.
            found["precision"] = "bf16 with the gate's features" if self._takes_gate_features else "bf16"
        return found

    def _opened(self) -> Describer:
        if self._describer is None:
            raise RuntimeError("the engine is closed; use it inside `with Engine.open(...) as engine:`")
        return self._describer

    def _note(self, result: Result) -> Result:
        if isinstance(result, Failure):
            self.failures.append(result)
            log_failure(result)
        else:
            log_warnings(result.video_id, result.warnings)
        return result


def check_role(role: str) -> None:
    """Raise ``ConfigError`` for a role that there is not."""
    if role not in get_args(Role):
        raise ConfigError(
            f"got the role {role!r}; expected 'query' (a video that is asked about) or 'reference' (one that may have "
            "been copied)"
        )


def log_warnings(video_id: str, warnings: Sequence[str]) -> None:
    """Say what was lost or assumed in a video that was described."""
    for warning in warnings:
        logger.warning("%s: %s", video_id, warning)


def _has_models(built: Preset, wanted: Preset) -> bool:
    has_gate = wanted.gate.mode == "off" or graph_parts(built) == graph_parts(wanted)
    return built.models == wanted.models and has_gate
