"""What is special to runners on a GPU, on the stub driver; the promises of every runner are in tests/contracts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import ConfigError, EngineError
from engine.runtime.batching import SharedRunner
from engine.runtime.cuda import Gpu, OutOfDeviceMemory, Stream, devices, free_pinned
from engine.runtime.device_runner import DeviceRunner
from tests import graphs
from tests.host_execution import WORKSPACE_BYTES_PER_ROW, HostExecution, device_runner
from tests.stub_driver.control import StubDriver

pytestmark = pytest.mark.stub_driver

ROW_BYTES = 4 * 4 * 3 + 8 * 8 * 3
RESULT_BYTES = 4 * graphs.NUM_DIMS
BATCH_BYTES_PER_ROW = 2 * (ROW_BYTES + RESULT_BYTES) + WORKSPACE_BYTES_PER_ROW


class OnDevice:
    """Frames that a decoder left in device memory, with nothing but the interface."""

    def __init__(self, address: int, shape: tuple[int, ...], *, stream: int | None = None) -> None:
        data = {"shape": shape, "typestr": "|u1", "data": (address, False), "version": 3, "stream": stream}
        self.__cuda_array_interface__ = data


@contextmanager
def on_device(
    frames: dict[str, NDArray[np.uint8]], *, finished: bool = True, offset: int = 0
) -> Iterator[dict[str, Any]]:
    """The frames in device memory, ``offset`` bytes behind the start of a block.

    Unless ``finished``, a stream that nobody has waited for still has to bring them there.
    """
    gpu = Gpu(devices()[0])
    with gpu.current():
        stream, held = Stream(), []
        arrays = {}
        for name, array in frames.items():
            memory, host = gpu.allocate(array.nbytes + offset), gpu.allocate_pinned(array.shape, "uint8")
            host[:] = array
            stream.upload(memory.address + offset, host)
            held += [(memory, host)]
            arrays[name] = OnDevice(memory.address + offset, array.shape, stream=None if finished else stream.handle)
        if finished:
            stream.synchronize()
    yield arrays
    with gpu.current():
        stream.synchronize()
        for memory, host in held:
            memory.free()
            free_pinned(host)
        stream.free()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "ensemble.onnx"
    graphs.write_ensemble(path)
    return path


@pytest.fixture
def graph(ensemble: Path, stub_driver: StubDriver) -> Path:
    stub_driver.configure(lazy=1)
    return ensemble


def check(result: dict[str, NDArray[Any]], frames: dict[str, NDArray[np.uint8]]) -> None:
    np.testing.assert_allclose(result["embedding"], graphs.ensemble(frames), atol=1e-4, rtol=0)


def run_one_video(runner: DeviceRunner, arrays: dict[str, Any]) -> dict[str, NDArray[Any]]:
    with SharedRunner(runner).open_stream() as stream:
        stream.submit(arrays)
        return stream.results()


def test_batches_are_whole_and_captured_once(graph: Path, stub_driver: StubDriver) -> None:
    execution, frames = HostExecution(graph), graphs.frames(9)
    with device_runner(execution) as runner:
        for _ in range(3):
            check(runner.run(frames), frames)
    assert execution.num_rows == [4] * 4  # for each set of buffers one to set things up, and one captured
    assert stub_driver.count("num_graph_launches") == 3 * 3


def test_what_cannot_be_captured_is_submitted_each_time(graph: Path, stub_driver: StubDriver) -> None:
    execution, frames = HostExecution(graph, is_capturable=False), graphs.frames(9)
    with device_runner(execution) as runner:
        check(runner.run(frames), frames)
    assert execution.num_rows == [4, 4, 4]
    assert stub_driver.count("num_graph_launches") == 0


def test_buffers_are_used_again_and_given_back(graph: Path, stub_driver: StubDriver) -> None:
    frames = graphs.frames(10)
    with device_runner(HostExecution(graph)) as runner:
        held = [stub_driver.count(f"num_{kind}_allocations") for kind in ("device", "pinned")]
        assert held == [2 * 3 + 1, 2 * 3]
        for _ in range(5):
            runner.run(frames)
        assert [stub_driver.count(f"num_{kind}_allocations") for kind in ("device", "pinned")] == held
    assert [stub_driver.count(f"num_{kind}_allocations") for kind in ("device", "pinned")] == [0, 0]


def test_only_the_rows_that_came_are_copied(graph: Path, stub_driver: StubDriver) -> None:
    with device_runner(HostExecution(graph)) as runner:
        runner.run(graphs.frames(5))
    assert stub_driver.count("bytes_htod") == 5 * ROW_BYTES
    assert stub_driver.count("bytes_dtoh") == 5 * RESULT_BYTES


@pytest.mark.parametrize("is_capturable", [True, False])
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("num_rows", [1, 4, 11])
def test_frames_on_the_device_never_visit_the_host(
    graph: Path, stub_driver: StubDriver, num_rows: int, finished: bool, is_capturable: bool
) -> None:
    frames = graphs.frames(num_rows)
    runner = device_runner(HostExecution(graph, is_capturable=is_capturable))
    with runner, on_device(frames, finished=finished) as arrays:
        before = stub_driver.count("bytes_htod")
        check(run_one_video(runner, arrays), frames)
        assert stub_driver.count("bytes_htod") == before
        assert stub_driver.count("bytes_dtoh") == num_rows * RESULT_BYTES


def test_a_whole_batch_on_the_device_is_not_copied_at_all(graph: Path, stub_driver: StubDriver) -> None:
    frames = graphs.frames(4)
    with device_runner(HostExecution(graph)) as runner, on_device(frames) as arrays:
        check(run_one_video(runner, arrays), frames)
    assert stub_driver.count("bytes_dtod") == 0


def test_a_batch_at_an_odd_address_is_copied(graph: Path, stub_driver: StubDriver) -> None:
    frames = graphs.frames(4)
    with device_runner(HostExecution(graph)) as runner, on_device(frames, offset=48) as arrays:
        check(run_one_video(runner, arrays), frames)
    assert stub_driver.count("bytes_dtod") == 4 * ROW_BYTES


def test_videos_on_the_device_and_on_the_host_share_a_batch(graph: Path, stub_driver: StubDriver) -> None:
    videos = [graphs.frames(count, seed=count) for count in (1, 2, 3)]
    with device_runner(HostExecution(graph), batch_size=6) as runner:
        shared = SharedRunner(runner)
        with (
            on_device(videos[0]) as one,
            on_device(videos[2]) as three,
            shared.open_stream() as first,
            shared.open_stream() as second,
            shared.open_stream() as third,
        ):
            before = stub_driver.count("bytes_htod")
            first.submit(one)
            second.submit(videos[1])
            third.submit(three)
            for stream, frames in zip((first, second, third), videos, strict=True):
                check(stream.results(), frames)
            assert stub_driver.count("bytes_htod") - before == 2 * ROW_BYTES
            assert stub_driver.count("bytes_dtod") == (1 + 3) * ROW_BYTES


def test_the_next_batch_is_copied_while_one_is_computed(graph: Path, stub_driver: StubDriver) -> None:
    stub_driver.configure(lazy=0)
    is_computing, may_finish = threading.Event(), threading.Event()
    first, second = graphs.frames(4, seed=1), graphs.frames(4, seed=2)

    def wait() -> None:
        is_computing.set()
        may_finish.wait(60)

    execution = HostExecution(graph, is_capturable=False, on_compute=wait)
    with device_runner(execution) as runner, ThreadPoolExecutor(2) as pool:
        one = pool.submit(runner.run, first)
        assert is_computing.wait(60)
        other = pool.submit(runner.run, second)
        deadline_s = time.monotonic() + 60
        while stub_driver.count("bytes_htod") < 8 * ROW_BYTES:
            assert time.monotonic() < deadline_s, "the second batch waits for the first"
            time.sleep(0.001)
        assert not one.done()
        may_finish.set()
        check(one.result(), first)
        check(other.result(), second)


def test_more_threads_than_buffers(graph: Path, stub_driver: StubDriver) -> None:
    stub_driver.configure(lazy=0)
    with device_runner(HostExecution(graph)) as runner, ThreadPoolExecutor(8) as pool:
        videos = [graphs.frames(1 + seed % 13, seed=seed) for seed in range(60)]
        for result, frames in zip(pool.map(runner.run, videos), videos, strict=True):
            check(result, frames)


def test_half_a_batch_is_taken_once_where_memory_is_short(
    graph: Path, stub_driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    total = 20 * BATCH_BYTES_PER_ROW
    stub_driver.devices([((8, 6), total)])
    execution, frames = HostExecution(graph), graphs.frames(40)
    runner = device_runner(execution, batch_size=32)
    with caplog.at_level(logging.WARNING), runner:
        assert runner.batch_size == 16
        check(runner.run(frames), frames)
    assert set(execution.num_rows) == {16}
    assert (
        "batches of 16 instead of 32 rows: ensemble needs 0.05 MiB besides its weights for batches of 32" in caplog.text
    )
    assert stub_driver.count("num_device_allocations") == 0


def test_too_little_memory_for_half_a_batch(graph: Path, stub_driver: StubDriver) -> None:
    stub_driver.devices([((8, 6), 1 << 13)])
    message = (
        r"^ensemble needs 0\.03 MiB besides its weights for batches of 16 rows; "
        r"GPU 0, Stub 8\.6: asked for 0\.02 MiB, 0\.01 of 0\.01 MiB are free$"
    )
    runner = device_runner(HostExecution(graph), batch_size=32)
    for _ in range(2):
        with pytest.raises(OutOfDeviceMemory, match=message):
            runner.__enter__()
        assert stub_driver.count("num_device_allocations") == stub_driver.count("num_pinned_allocations") == 0
    stub_driver.devices([((8, 6), 1 << 20)])
    with runner:
        assert runner.batch_size == 32


def test_an_engine_without_rows_gets_no_smaller_batch(tmp_path: Path, stub_driver: StubDriver) -> None:
    graphs.write_score(tmp_path / "score.onnx")
    stub_driver.devices([((8, 6), 20 * WORKSPACE_BYTES_PER_ROW)])
    with (
        pytest.raises(OutOfDeviceMemory, match="batches of 32 rows"),
        device_runner(HostExecution(tmp_path / "score.onnx")),
    ):
        pass


def test_an_engine_without_rows_takes_what_its_profile_takes(tmp_path: Path, stub_driver: StubDriver) -> None:
    graphs.write_score(tmp_path / "score.onnx")
    execution = HostExecution(tmp_path / "score.onnx")
    with device_runner(execution) as runner:
        assert runner.run({"features": np.zeros((32, 6), np.float32)})["score"].tolist() == [0.5]
        with pytest.raises(ConfigError, match="ensemble: the engine takes 1 to 32 rows, got 33"):
            runner.run({"features": np.zeros((33, 6), np.float32)})
    assert execution.num_rows == [32]


@pytest.mark.parametrize("batch_size", [33, -1])
def test_a_batch_that_the_engine_does_not_take(graph: Path, batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"takes 1 to 32 rows, not batches of {batch_size}; choose another"):
        device_runner(HostExecution(graph), batch_size=batch_size)


def test_batches_are_what_the_engine_is_tuned_for_unless_chosen(graph: Path) -> None:
    assert device_runner(HostExecution(graph), batch_size=None).batch_size == 4


def test_a_failed_computation_costs_no_later_call_its_result(graph: Path, stub_driver: StubDriver) -> None:
    answers = iter([None, None, EngineError("no"), None, EngineError("no"), *[None] * 20])

    def fail() -> None:
        if (answer := next(answers)) is not None:
            raise answer

    frames = graphs.frames(9)
    with device_runner(HostExecution(graph, is_capturable=False, on_enqueue=fail)) as runner:
        for _ in range(2):  # with an earlier batch of the same call under way, and without
            with pytest.raises(EngineError, match="no"):
                runner.run(frames)
        for _ in range(3):
            check(runner.run(frames), frames)
    assert stub_driver.count("num_device_allocations") == 0
