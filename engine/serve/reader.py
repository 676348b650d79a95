"""Processes that open video files for the service: one that dies of a file, or takes too long, is replaced.

Everything that reads what a stranger sent happens there, one file at a time: decoding, describing, looking at pictures.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from engine.catalog.documents import write_answers_report
from engine.catalog.reading import EngineReader
from engine.catalog.records import CatalogAnswer
from engine.config import Preset
from engine.console import LogFormat, start_logging
from engine.describe.engine import Engine
from engine.errors import EngineError, MediaError
from engine.evidence.frames import Viewer
from engine.isolation import CallEndedError, IsolatedProcess, ThisProcess
from engine.records import CandidatePair, Descriptors, Match, Role
from engine.run.messages import die_with_parent
from engine.serve.refusals import Refused
from engine.storage.location import Location
from engine.video import DecoderName

logger = logging.getLogger(__name__)

_ATTEMPTS = 2
_START_S = 600.0
_OOM_SCORE = Path("/proc/self/oom_score_adj")

Result = TypeVar("Result")
OnStage = Callable[[str, float], None]


@dataclass(frozen=True)
class ReaderSettings:
    """What a reader's process needs to know. ``num_threads``: of engines on a CPU; ``gpu``: the only one it sees."""

    engines: Path
    preset: Preset
    decoder: DecoderName
    num_threads: int | None
    gpu: str | None
    log_level: int
    log_format: LogFormat


class ReaderProcess:
    """A process with engines of its own. One thread may use it at a time.

    It dies with the thread that started it, too, so threads that use it must live as long as the service.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._process = IsolatedProcess()

    def start(self) -> None:
        """Start the process and load its engines. Raises ``EngineError`` where that fails."""
        try:
            self._process.call(_start, self._settings, limit_s=_START_S)
        except CallEndedError as error:
            raise EngineError(f"the engines could not be loaded: {error}") from error

    def close(self) -> None:
        """End the process, when it has done what it is doing."""
        self._process.close()

    def run(self, task: Callable[..., Result], deadline_s: float, *arguments: object) -> Result:
        """The result of a function of a module in the process; what it raises is raised here.

        ``deadline_s``: of ``time.monotonic``; the process is ended then, and ``Refused`` (504) raised. If the process
        dies, another tries once more; if that dies, too, ``MediaError`` is raised.
        """
        reason: CallEndedError | None = None
        for _ in range(_ATTEMPTS):
            limit_s = deadline_s - time.monotonic()
            if limit_s <= 0:
                break
            try:
                found: Result = self._process.call(_run, self._settings, task, arguments, limit_s=limit_s)
            except CallEndedError as error:
                reason = error
                logger.warning("a file could not be read: %s; another process takes its place", error)
            else:
                return found
        if time.monotonic() >= deadline_s:
            raise Refused(HTTPStatus.GATEWAY_TIMEOUT, "it took longer than the time limit of this service")
        raise MediaError(f"{reason}; it was tried {_ATTEMPTS} times") from reason


@dataclass(frozen=True)
class DeadlineReader:
    """The `engine.catalog.reading.FileReader` of a process, until a deadline. ``on_stage`` gets seconds by stage."""

    process: ReaderProcess
    deadline_s: float
    on_stage: OnStage

    def describe(self, path: Location, *, role: Role, video_id: str | None) -> Descriptors:
        """See `FileReader.describe`."""
        described, stages_s = self.process.run(_describe, self.deadline_s, path, role, video_id)
        for stage, seconds in stages_s.items():
            self.on_stage(stage, seconds)
        return described

    def verified(
        self,
        matches: Sequence[Match],
        candidates: Sequence[CandidatePair],
        query_paths: Mapping[str, Location],
        ref_paths: Mapping[str, Location],
    ) -> list[Match]:
        """See `FileReader.verified`."""
        start_s = time.monotonic()
        found = self.process.run(_verified, self.deadline_s, matches, candidates, query_paths, ref_paths)
        self.on_stage("verify", time.monotonic() - start_s)
        return found

    def write_report(self, output: Path, answer: CatalogAnswer, upload: Path, *, every: bool) -> None:
        """Write the page of an answer."""
        start_s = time.monotonic()
        self.process.run(_write_report, self.deadline_s, output, answer, upload, every)
        self.on_stage("report", time.monotonic() - start_s)


_engine: Engine | None = None  # that of a reader's process


def _start(settings: ReaderSettings) -> None:
    """Open the engines, if this process has none yet: it may have been started anew."""
    global _engine
    if _engine is not None:
        return
    die_with_parent()
    with suppress(OSError):  # where memory runs out, it is not the service that is ended
        _OOM_SCORE.write_text("1000")
    if settings.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu
    start_logging(level=settings.log_level, log_format=settings.log_format)
    _engine = Engine.open(
        settings.engines, preset=settings.preset, num_threads=settings.num_threads, decoder=settings.decoder
    ).__enter__()


def _run(settings: ReaderSettings, task: Callable[..., Result], arguments: Sequence[object]) -> Result:
    _start(settings)
    return task(*arguments)


def _loaded() -> Engine:
    assert _engine is not None  # noqa: S101 - `_run` has opened it
    return _engine


def _describe(path: Location, role: Role, video_id: str | None) -> tuple[Descriptors, dict[str, float]]:
    engine = _loaded()
    before_s = engine.times.as_dict()
    described = engine.describe_file(path, role=role, video_id=video_id)
    return described, {stage: s - before_s.get(stage, 0.0) for stage, s in engine.times.as_dict().items()}


def _verified(
    matches: Sequence[Match],
    candidates: Sequence[CandidatePair],
    query_paths: Mapping[str, Location],
    ref_paths: Mapping[str, Location],
) -> list[Match]:
    return EngineReader(_loaded(), Viewer(process=ThisProcess())).verified(matches, candidates, query_paths, ref_paths)


def _write_report(output: Path, answer: CatalogAnswer, upload: Path, every: bool) -> None:
    paths = {answer.query_id: upload}
    viewer = Viewer(process=ThisProcess())
    write_answers_report(output, [answer], paths, every=every, names_queries=False, viewer=viewer)
