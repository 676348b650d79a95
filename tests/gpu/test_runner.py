"""The contract of runners on TensorRT engines that are built here, for the GPU of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.runtime.batching import SharedRunner
from engine.runtime.manifest import RowProfile
from engine.runtime.runner import Runner
from tests import graphs
from tests.contracts.test_runner import *  # noqa: F403 - the whole suite; `open_runner` below takes the place of its own
from tests.contracts.test_runner import OpenRunner, openvino_runner

pytestmark = pytest.mark.gpu

BATCH_SIZE = 4


def tensorrt_runner(onnx_path: Path) -> Runner:
    from engine.build.tensorrt_builder import build_engine
    from engine.runtime.cuda import Gpu, devices
    from engine.runtime.device_runner import DeviceRunner
    from engine.runtime.tensorrt import TensorRtExecution
    from engine.runtime.tensorrt_library import import_tensorrt

    gpu, tensorrt = Gpu(devices()[0]), import_tensorrt()
    profile = RowProfile(min_rows=1, opt_rows=BATCH_SIZE, max_rows=64)
    targets = [gpu.device.capability] if tensorrt.compute_capabilities else []
    engine_path = onnx_path.with_suffix(".engine")
    if not engine_path.exists():
        build_engine(tensorrt, onnx_path, engine_path, profile=profile, compute_capabilities=targets)
    specs = openvino_runner(onnx_path)
    return DeviceRunner(
        lambda: TensorRtExecution(engine_path, tensorrt=tensorrt, inputs=specs.inputs, gpu=gpu),
        gpu=gpu,
        name=onnx_path.stem,
        inputs=specs.inputs,
        outputs=specs.outputs,
        profile=profile,
    )


@pytest.fixture
def open_runner() -> OpenRunner:
    return tensorrt_runner


@pytest.mark.parametrize("num_rows", [1, BATCH_SIZE, 9])
def test_rows_on_the_device_give_the_bits_of_rows_on_the_host(ensemble: Runner, num_rows: int) -> None:
    from tests.unit.runtime.test_device_runner import on_device

    frames = graphs.frames(num_rows)
    with ensemble as runner, on_device(frames) as arrays:
        with SharedRunner(runner).open_stream() as stream:
            stream.submit(arrays)
            found = stream.results()
        np.testing.assert_array_equal(found["embedding"], runner.run(frames)["embedding"])
