"""Which worker processes an extraction gets, and a forecast of what each will have to do and to hold."""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from engine.config import Preset
from engine.errors import ConfigError
from engine.runtime.manifest import CompiledEngine, Manifest
from engine.runtime.runner import HOST_BATCH_SIZE

_NUM_SLOTS = 2  # sets of buffers of a runner on a GPU (`engine.runtime.device_runner`)


@dataclass(frozen=True)
class Workers:
    """The worker processes of an extraction.

    ``videos_at_once``: threads of each that decode. ``num_threads``: threads of one engine on a CPU, None for all
    cores. ``gpus``: for each worker the only GPU that it sees (as in ``CUDA_VISIBLE_DEVICES``); empty on a CPU.
    """

    count: int
    videos_at_once: int
    num_threads: int | None
    gpus: tuple[str, ...] = ()

    @classmethod
    def share_cores(cls, count: int, *, gpus: tuple[str, ...] = ()) -> Self:
        """As many workers as asked for, with equal shares of the cores of this machine."""
        share = max(1, (os.cpu_count() or 1) // count)
        return cls(count, videos_at_once=share, num_threads=share if count > 1 else None, gpus=gpus)

    def at_most(self, count: int) -> Self:
        """No more workers than there are videos."""
        return self.share_cores(min(self.count, count), gpus=self.gpus[:count])

    def name(self, place: int) -> str:
        """What people call one of the workers."""
        return f"GPU {self.gpus[place]}" if self.gpus else f"worker {place}"


@dataclass(frozen=True)
class ClusterWorkers:
    """The workers of an extraction on a Ray cluster.

    ``address``: ``auto`` for the cluster of this machine, or ``HOST:PORT`` of its head. ``per_node``: how many of a
    node share its cores, or how many of its GPUs are used; None for one, or all GPUs.
    """

    address: str
    per_node: int | None
    on_gpus: bool


def choose_cluster_workers(
    manifest: Manifest, address: str, *, num_workers: int | None, num_gpus: int | None
) -> ClusterWorkers:
    """The workers on each node for engines of a backend. Raises ``ConfigError`` where the numbers do not fit those."""
    _check_numbers(manifest, num_workers=num_workers, num_gpus=num_gpus)
    return ClusterWorkers(address, per_node=num_workers or num_gpus, on_gpus=manifest.device == "gpu")


def choose_workers(manifest: Manifest, *, num_workers: int | None, num_gpus: int | None) -> Workers:
    """The workers for engines of a backend; by default one process on the CPU, or one GPU.

    Raises ``ConfigError`` where the numbers do not fit the engines or this machine has fewer GPUs, and
    ``BackendUnavailable`` where it has no driver.
    """
    _check_numbers(manifest, num_workers=num_workers, num_gpus=num_gpus)
    if manifest.device == "cpu":
        return Workers.share_cores(num_workers or 1)
    return Workers.share_cores(num_gpus or 1, gpus=_gpu_names(manifest, num_gpus or 1))


def _check_numbers(manifest: Manifest, *, num_workers: int | None, num_gpus: int | None) -> None:
    if num_workers is not None and num_gpus is not None:
        raise ConfigError("--workers and --gpus exclude each other: each GPU has one worker process")
    if manifest.device == "cpu" and num_gpus is not None:
        raise ConfigError(
            f"--gpus {num_gpus}: these engines are for the CPU (backend {manifest.backend}); build some for GPUs with "
            f"`vsc-engine build --preset {manifest.preset.name} --backend tensorrt --output DIR`"
        )
    if manifest.device == "gpu" and num_workers is not None:
        raise ConfigError(f"--workers is for engines on a CPU, these are for GPUs ({manifest.backend}); use --gpus")


def _gpu_names(manifest: Manifest, num_gpus: int) -> tuple[str, ...]:
    from engine.runtime.cuda import choose_devices

    facts = [engine.tensorrt for engine in manifest.engines.values() if engine.tensorrt is not None]
    capable = sorted(set.intersection(*(set(fact.compute_capabilities) for fact in facts))) if facts else None
    chosen = choose_devices(num_gpus, built_for=capable)
    # The driver counts the GPUs that this process sees; a worker is told the name of one.
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(visible[device.index] if visible else str(device.index) for device in chosen)


def imagined_workers(*, num_workers: int | None, num_gpus: int | None) -> Workers:
    """The workers of a machine that need not be this one, for a plan."""
    count = num_gpus or num_workers or 1
    return Workers.share_cores(count, gpus=tuple(map(str, range(count))) if num_gpus else ())


@dataclass(frozen=True)
class Share:
    """What one worker is expected to do."""

    num_videos: int
    footage_s: float
    longest_s: float


def forecast(durations_s: Mapping[str, float], *, num_workers: int) -> list[Share]:
    """How a queue with the longest video first spreads over workers of equal speed.

    Whoever has done the least footage takes the next video. The real queue goes by time, which also depends on the
    size of pictures and on scenes.
    """
    shares = [Share(0, 0.0, 0.0) for _ in range(num_workers)]
    free = [(0.0, place) for place in range(num_workers)]
    for duration_s in sorted(durations_s.values(), reverse=True):
        _, place = heapq.heappop(free)
        before = shares[place]
        shares[place] = Share(before.num_videos + 1, before.footage_s + duration_s, max(before.longest_s, duration_s))
        heapq.heappush(free, (shares[place].footage_s, place))
    return shares


@dataclass(frozen=True)
class Memory:
    """Bytes that one worker's engines are known to take: files as loaded, and buffers of inputs and outputs.

    What an engine needs while it runs, decoders and libraries come on top; nothing is recorded of them.
    """

    engine_bytes: int
    buffer_bytes: int

    @classmethod
    def of(cls, manifest: Manifest, preset: Preset) -> Self:
        """From the sizes in a manifest, for the engines that ``preset`` uses.

        Buffers hold two batches of the rows that a TensorRT engine is tuned for, or one of those of OpenVINO.
        """
        names = {"ensemble"} if preset.gate.mode == "off" else set(manifest.engines)
        engines = [manifest.engines[name] for name in sorted(names)]
        return cls(
            engine_bytes=sum(file.size_bytes for engine in engines for file in engine.files),
            buffer_bytes=sum(map(_buffer_bytes, engines)),
        )


def _buffer_bytes(engine: CompiledEngine) -> int:
    num_slots, num_rows = 1, HOST_BATCH_SIZE
    if engine.tensorrt is not None:
        num_slots, num_rows = _NUM_SLOTS, engine.tensorrt.profile.opt_rows
    return num_slots * sum(spec.num_bytes(num_rows) for spec in (*engine.inputs, *engine.outputs))
