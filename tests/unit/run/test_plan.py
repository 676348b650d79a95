from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from engine.config import load_preset
from engine.errors import ConfigError
from engine.run.plan import Memory, Share, Workers, choose_workers, forecast, imagined_workers
from engine.runtime.manifest import Manifest, RowProfile, TensorRtFacts
from engine.runtime.runner import HOST_BATCH_SIZE
from tests.manifests import make_manifest
from tests.stub_driver.control import StubDriver


def for_gpus(folder: Path) -> Manifest:
    manifest = make_manifest(folder)
    facts = TensorRtFacts.model_construct(
        compute_capabilities=("8.6",), profile=RowProfile(min_rows=1, opt_rows=5, max_rows=9)
    )
    engines = {name: engine.model_copy(update={"tensorrt": facts}) for name, engine in manifest.engines.items()}
    return manifest.model_copy(update={"backend": "tensorrt", "engines": engines})


class TestForecast:
    def test_the_longest_video_goes_first_to_whoever_is_free(self) -> None:
        durations_s = {"a": 10.0, "b": 70.0, "c": 30.0, "d": 20.0, "e": 5.0}
        assert forecast(durations_s, num_workers=2) == [Share(1, 70.0, 70.0), Share(4, 65.0, 30.0)]

    def test_it_is_never_worse_than_four_thirds_of_the_best(self) -> None:
        """The bound of Graham (1969) for this order, against every possible placement."""
        lengths = np.random.default_rng(0).integers(1, 50, 7)
        best = min(
            max(lengths[np.array(places) == place].sum() for place in range(3))
            for places in itertools.product(range(3), repeat=7)
        )
        shares = forecast({str(number): float(value) for number, value in enumerate(lengths)}, num_workers=3)
        assert max(share.footage_s for share in shares) <= best * 4 / 3
        assert sum(share.footage_s for share in shares) == lengths.sum()

    def test_more_workers_than_videos(self) -> None:
        assert forecast({"a": 3.0}, num_workers=2) == [Share(1, 3.0, 3.0), Share(0, 0.0, 0.0)]


class TestWorkers:
    def test_one_worker_has_all_cores(self) -> None:
        workers = Workers.share_cores(1)
        assert (workers.count, workers.videos_at_once, workers.num_threads) == (1, os.cpu_count(), None)

    def test_several_share_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        workers = Workers.share_cores(6)
        assert (workers.videos_at_once, workers.num_threads) == (10, 10)
        assert Workers.share_cores(100).num_threads == 1

    def test_there_are_no_more_than_videos(self) -> None:
        workers = Workers.share_cores(4, gpus=("3", "5", "6", "7")).at_most(2)
        assert (workers.count, workers.gpus) == (2, ("3", "5"))
        assert [workers.name(place) for place in range(2)] == ["GPU 3", "GPU 5"]


class TestChoice:
    def test_engines_for_the_cpu(self, tmp_path: Path) -> None:
        manifest = make_manifest(tmp_path)
        assert choose_workers(manifest, num_workers=None, num_gpus=None) == Workers.share_cores(1)
        assert choose_workers(manifest, num_workers=3, num_gpus=None) == Workers.share_cores(3)
        with pytest.raises(ConfigError, match=r"--gpus 8: these engines are for the CPU .* --backend tensorrt"):
            choose_workers(manifest, num_workers=None, num_gpus=8)
        with pytest.raises(ConfigError, match="exclude each other"):
            choose_workers(manifest, num_workers=2, num_gpus=8)

    def test_engines_for_gpus_are_not_for_workers_on_a_cpu(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"these are for GPUs \(tensorrt\); use --gpus"):
            choose_workers(for_gpus(tmp_path), num_workers=2, num_gpus=None)

    @pytest.mark.stub_driver
    def test_engines_for_gpus(self, tmp_path: Path, stub_driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        manifest = for_gpus(tmp_path)
        stub_driver.devices([((8, 6), 1 << 30)] * 3)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert choose_workers(manifest, num_workers=None, num_gpus=None).gpus == ("0",)
        assert choose_workers(manifest, num_workers=None, num_gpus=2).gpus == ("0", "1")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6,7")
        assert choose_workers(manifest, num_workers=None, num_gpus=2).gpus == ("4", "6")
        with pytest.raises(ConfigError, match=r"--gpus 8: this machine has 3 \("):
            choose_workers(manifest, num_workers=None, num_gpus=8)
        stub_driver.devices([((8, 6), 1 << 30), ((9, 0), 1 << 30)])
        with pytest.raises(ConfigError, match=r"built for compute capability 8\.6, which GPUs 1 do not have"):
            choose_workers(manifest, num_workers=None, num_gpus=2)

    def test_a_plan_is_for_any_machine(self) -> None:
        assert imagined_workers(num_workers=None, num_gpus=8).gpus == tuple("01234567")
        assert imagined_workers(num_workers=3, num_gpus=None) == Workers.share_cores(3)


ROW_BYTES = 224 * 224 * 3 + 1280 * 4


def test_memory_on_a_cpu_is_that_of_the_files_and_of_one_batch(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    memory = Memory.of(manifest, load_preset("lite"))
    assert memory.engine_bytes == sum((tmp_path / name).stat().st_size for name in ("engine.xml", "engine.bin"))
    assert memory.buffer_bytes == HOST_BATCH_SIZE * ROW_BYTES


def test_memory_on_a_gpu_has_two_batches_of_the_rows_that_an_engine_is_tuned_for(tmp_path: Path) -> None:
    memory = Memory.of(for_gpus(tmp_path), load_preset("lite"))
    assert memory.buffer_bytes == 2 * 5 * ROW_BYTES


def test_a_gate_that_is_on_counts(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    with_gate = manifest.model_copy(update={"engines": manifest.engines | {"edit_score": manifest.engines["ensemble"]}})
    off, on = (Memory.of(with_gate, load_preset("lite").with_gate(enabled=enabled)) for enabled in (False, True))
    assert on.engine_bytes == 2 * off.engine_bytes
