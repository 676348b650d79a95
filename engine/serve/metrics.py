"""What a service has done so far, for Prometheus."""

from __future__ import annotations

from typing import get_args

from engine.evaluate.calibration import Verdict

try:
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        ProcessCollector,
        generate_latest,
    )
except ImportError as _error:
    from engine.errors import BackendUnavailable

    raise BackendUnavailable("a service needs prometheus-client: pip install 'vsc-engine[serve]'") from _error

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)


class Metrics:
    """Counts and times since the service started; threads may write at once."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = self._counter("requests", "Requests that were answered.", "endpoint", "status")
        self.uploads = self._counter("uploads", "Videos that were taken to be compared or added.", "kind")
        self.upload_bytes = self._counter("upload_bytes", "Bytes of videos that were received.")
        self.failures = self._counter("failures", "Videos that gave no result.", "reason")
        self.verdicts = self._counter("verdicts", "Verdicts on uploads.", "verdict")
        self.stage_seconds = self._counter("stage_seconds", "Seconds spent in a stage.", "stage")
        self.answer_seconds = Histogram(
            "vsc_engine_answer_seconds",
            "Seconds from a complete upload to its answer, waiting included.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self.waiting = self._gauge("queue_length", "Videos that are being received or wait.")
        self.running = self._gauge("running", "Videos that are worked on.")
        self.videos = self._gauge("catalog_videos", "Videos in the catalogue.")
        self._start_at_zero()

    def add_stage(self, stage: str, seconds: float) -> None:
        """Count seconds of a stage."""
        self.stage_seconds.labels(stage).inc(max(0.0, seconds))

    def page(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._registry)

    def _start_at_zero(self) -> None:
        """Tell the usual counts before there is anything to count: Prometheus sees no rise from nothing to 1."""
        for kind in ("match", "add"):
            self.uploads.labels(kind)
        for reason in ("file", "service", "conflict", "gateway_timeout"):
            self.failures.labels(reason)
        for verdict in get_args(Verdict):
            self.verdicts.labels(verdict)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"vsc_engine_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vsc_engine_{name}", text, registry=self._registry)
