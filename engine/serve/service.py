"""What a service does with videos: matches, additions and removals, each in its turn. Knows nothing of HTTP requests.

Matches have several threads, each with a process that opens files for it; all changes of the catalogue have one. The
catalogue itself is compared in this process, which holds its rows once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, TypeVar

from engine.catalog.catalog import Catalog
from engine.catalog.documents import AnswerDocument, VideoDocument
from engine.catalog.records import CatalogVideo, Snapshot
from engine.console import log_format
from engine.errors import EngineError, MediaError
from engine.evaluate.calibration import VerdictScores
from engine.files import file_sha256
from engine.run.plan import Workers
from engine.serve.metrics import Metrics
from engine.serve.reader import DeadlineReader, ReaderProcess, ReaderSettings
from engine.serve.refusals import Refused
from engine.serve.uploads import UploadFolder
from engine.version import __version__

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_GUESS_S = 1.0
_MEMORY_OF_MEAN = 0.9
_MAX_RETRY_S = 60


@dataclass(frozen=True)
class Limits:
    """``max_upload_bytes``: of one video that is sent. ``timeout_s``: from a complete upload to its answer.

    ``queue``: uploads that may be received or wait, beyond those that are worked on.
    """

    max_upload_bytes: int
    timeout_s: float
    queue: int


@dataclass(frozen=True)
class Upload:
    """A video that a client sent, or named. ``name``: what the client calls it; ``is_sent``: its file is passing."""

    path: Path
    name: str
    video_id: str
    is_sent: bool


@dataclass(frozen=True)
class MatchAnswer(AnswerDocument):
    """The document that `vsc-engine catalog match` prints. ``seconds``: from the complete upload to the answer.

    ``report``: the address of a page with pictures on this service, if one was asked for.
    """

    seconds: float
    report: str | None


@dataclass(frozen=True)
class Addition:
    """What became of one added video, as `vsc-engine catalog add` counts it."""

    outcome: Literal["added", "replaced", "kept"]
    video: VideoDocument


@dataclass(frozen=True)
class Status:
    """What the page at ``/`` shows. ``waiting``: uploads that are being received or wait for a worker."""

    version: str
    engines: str
    preset: str
    num_videos: int
    num_rows: int
    duration_s: float
    thresholds: VerdictScores | None
    workers: int
    running: int
    waiting: int
    queue: int
    max_upload_bytes: int
    timeout_s: float
    uptime_s: float


class Lane:
    """Threads for one kind of work, and a limited number of places on the way to them."""

    def __init__(self, name: str, *, num_threads: int, queue: int) -> None:
        self.num_threads = num_threads
        self._num_places = num_threads + queue
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._num_taken = 0
        self._num_running = 0
        self._mean_s = _FIRST_GUESS_S

    @property
    def num_running(self) -> int:
        """How many are worked on."""
        return self._num_running

    @property
    def num_waiting(self) -> int:
        """How many hold a place without being worked on."""
        return max(0, self._num_taken - self._num_running)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises ``Refused`` (429) where there is none."""
        with self._lock:
            if self._num_taken >= self._num_places:
                wait_s = self._mean_s * self._num_taken / self.num_threads
                raise Refused(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{self._num_taken} uploads are being received, wait or are worked on, which is the limit",
                    retry_after_s=min(_MAX_RETRY_S, max(1, round(wait_s))),
                )
            self._num_taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_taken -= 1

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Do this as soon as a thread is free; whoever asks holds a place."""
        return self._pool.submit(self._run, work)

    def each(self, work: Callable[[], object]) -> None:
        """Do this once for each thread, at once, and wait for all of it."""
        for future in [self._pool.submit(work) for _ in range(self.num_threads)]:
            future.result()

    def close(self) -> None:
        """Wait for what runs; what waits is not begun."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, work: Callable[[], Result]) -> Result:
        start_s = time.monotonic()
        with self._lock:
            self._num_running += 1
        try:
            return work()
        finally:
            with self._lock:
                self._num_running -= 1
                self._mean_s += (1 - _MEMORY_OF_MEAN) * (time.monotonic() - start_s - self._mean_s)


class Service:
    """A catalogue with warm engines. Use `open`; methods that return a ``Future`` do their work in threads."""

    def __init__(self, catalog: Catalog, uploads: UploadFolder, *, workers: Workers, limits: Limits) -> None:
        self.uploads = uploads
        self.limits = limits
        self.metrics = Metrics()
        self.matches = Lane("match", num_threads=workers.count, queue=limits.queue)
        self.changes = Lane("change", num_threads=1, queue=limits.queue)
        self._catalog = catalog
        self._writer = Catalog.open(catalog.folder)  # with handles of its own: what is compared stays at its version
        settings = _reader_settings(catalog, workers)
        self._matchers = [ReaderProcess(each) for each in settings]
        self._adder = ReaderProcess(settings[0])
        self._idle: SimpleQueue[ReaderProcess] = SimpleQueue()
        self._since_s = time.monotonic()
        self.metrics.waiting.set_function(lambda: self.matches.num_waiting + self.changes.num_waiting)
        self.metrics.running.set_function(lambda: self.matches.num_running + self.changes.num_running)

    @classmethod
    @contextmanager
    def open(cls, catalog: Catalog, *, uploads: Path, workers: Workers, limits: Limits) -> Iterator[Service]:
        """Yield the service of an open catalogue, ready to answer.

        Raises ``EngineError`` where catalogue and engines do not fit, or ``uploads`` is in use.
        """
        catalog.described_by()
        with ExitStack() as stack:
            upload_folder = stack.enter_context(UploadFolder.open(uploads))
            service = cls(catalog, upload_folder, workers=workers, limits=limits)
            stack.callback(service._close)
            service._start()
            yield service

    def _start(self) -> None:
        readers = iter(self._matchers)
        self.matches.each(lambda: next(readers).start())  # by threads that live as long as the processes should
        for reader in self._matchers:
            self._idle.put(reader)
        self.snapshot()

    def _close(self) -> None:
        self.matches.close()
        self.changes.close()
        for reader in (*self._matchers, self._adder):
            reader.close()

    def snapshot(self) -> Snapshot:
        """The videos of the catalogue now. Raises ``StoreError`` for damaged tables."""
        found = self._catalog.snapshot()
        self.metrics.videos.set(len(found.videos))
        return found

    def video(self, video_id: str) -> CatalogVideo:
        """One video of the catalogue. Raises ``Refused`` (404)."""
        found = self.snapshot().videos.get(video_id)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"the catalogue has no video '{video_id}'")
        return found

    def status(self) -> Status:
        """How things are now."""
        now = self.snapshot()
        return Status(
            version=__version__,
            engines=str(self._catalog.manifest.identity["engines"]),
            preset=self._catalog.manifest.preset.name,
            num_videos=len(now.videos),
            num_rows=sum(video.num_rows for video in now.videos.values()),
            duration_s=sum(video.duration_s for video in now.videos.values()),
            thresholds=now.thresholds,
            workers=self.matches.num_threads,
            running=self.matches.num_running + self.changes.num_running,
            waiting=self.matches.num_waiting + self.changes.num_waiting,
            queue=self.limits.queue,
            max_upload_bytes=self.limits.max_upload_bytes,
            timeout_s=self.limits.timeout_s,
            uptime_s=time.monotonic() - self._since_s,
        )

    def match(self, upload: Upload, *, every: bool, with_report: bool) -> Future[MatchAnswer]:
        """Compare an upload with the catalogue."""
        asked_s = time.monotonic()
        self._take(upload, "match")
        return self.matches.submit(
            lambda: self._counted(upload, lambda: self._match(upload, asked_s, every=every, with_report=with_report))
        )

    def add(self, upload: Upload) -> Future[Addition]:
        """Add a reference; one that was sent is kept in the folder of uploads."""
        asked_s = time.monotonic()
        self._take(upload, "add")
        return self.changes.submit(lambda: self._counted(upload, lambda: self._add(upload, asked_s)))

    def remove(self, video_id: str) -> Future[CatalogVideo]:
        """Take a video out of the catalogue; the file of one that was sent is deleted."""

        def remove() -> CatalogVideo:
            known = self.video(video_id)
            self._writer.remove([video_id])
            self.uploads.forget(known.path)
            return known

        return self.changes.submit(remove)

    def _take(self, upload: Upload, kind: str) -> None:
        self.metrics.uploads.labels(kind).inc()
        if upload.is_sent:
            self.metrics.upload_bytes.inc(upload.path.stat().st_size)

    def _counted(self, upload: Upload, work: Callable[[], Result]) -> Result:
        """Do the work for one upload; failures are counted, and do not tell where its file lies."""
        try:
            return work()
        except MediaError as error:
            self.metrics.failures.labels("file").inc()
            told = str(error).replace(str(upload.path), upload.name)
            logger.warning("failed: %s: %s", upload.video_id, told)
            raise MediaError(told) from error
        except Refused as error:
            self.metrics.failures.labels(error.status.name.lower()).inc()
            raise
        except (EngineError, OSError):
            self.metrics.failures.labels("service").inc()
            raise

    def _until(self, reader: ReaderProcess, asked_s: float) -> DeadlineReader:
        self.metrics.add_stage("wait", time.monotonic() - asked_s)
        return DeadlineReader(reader, asked_s + self.limits.timeout_s, self.metrics.add_stage)

    def _match(self, upload: Upload, asked_s: float, *, every: bool, with_report: bool) -> MatchAnswer:
        process = self._idle.get()
        try:
            reader = self._until(process, asked_s)
            answer = self._catalog.match(upload.path, video_id=upload.video_id, reader=reader)
            report = None
            if with_report:
                token, page = self.uploads.new_report()
                reader.write_report(page, answer, upload.path, every=every)
                report = f"/v1/reports/{token}"
        finally:
            self._idle.put(process)
        seconds = time.monotonic() - asked_s
        self.metrics.answer_seconds.observe(seconds)
        self.metrics.verdicts.labels(answer.verdict or "none").inc()
        document = AnswerDocument.of(answer, path=upload.name, every=every)
        return MatchAnswer(**vars(document), seconds=round(seconds, 3), report=report)

    def _add(self, upload: Upload, asked_s: float) -> Addition:
        reader = self._until(self._adder, asked_s)
        video_id = upload.video_id
        if not upload.is_sent:
            report = self._writer.add_file(
                upload.path,
                video_id=video_id,
                describe=lambda media: (
                    (item, reader.describe(item.path, role="reference", video_id=item.video_id)) for item in media
                ),
            )
        else:
            known = self.snapshot().videos.get(video_id)
            if known is not None and known.sha256 == file_sha256(upload.path):
                return Addition("kept", VideoDocument.of(known))
            if known is not None:
                raise Refused(
                    HTTPStatus.CONFLICT,
                    f"the id '{video_id}' is that of {known.path} already, which has other contents; choose another "
                    "id, or delete that video first",
                )
            described = reader.describe(upload.path, role="reference", video_id=video_id)
            kept = self.uploads.keep(upload.path, video_id)
            try:
                report = self._writer.add_file(
                    kept, video_id=video_id, describe=lambda media: ((item, described) for item in media)
                )
                if report.failures:
                    self.uploads.forget(kept)
            except BaseException:
                self.uploads.forget(kept)
                raise
        if report.failures:
            raise Refused(HTTPStatus.CONFLICT, report.failures[0].reason)
        outcome: Literal["added", "replaced", "kept"] = (
            "added" if report.added else "replaced" if report.replaced else "kept"
        )
        return Addition(outcome, VideoDocument.of(self.video(video_id)))


def _reader_settings(catalog: Catalog, workers: Workers) -> Sequence[ReaderSettings]:
    engine = catalog.described_by()
    return [
        ReaderSettings(
            engines=engine.engines.folder,
            preset=engine.preset,
            decoder=engine.decoder.name,
            num_threads=workers.num_threads,
            gpu=workers.gpus[place] if workers.gpus else None,
            log_level=logging.getLogger("engine").getEffectiveLevel(),
            log_format=log_format(),
        )
        for place in range(workers.count)
    ]
