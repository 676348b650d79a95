"""What the stub driver answers, good and bad; what users without a driver read, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BackendUnavailable, ConfigError, EngineError
from engine.run.machine import capabilities
from engine.runtime.cuda import Device, Gpu, OutOfDeviceMemory, Stream, choose_devices, devices, free_pinned
from tests.conftest import REPOSITORY
from tests.stub_driver.control import MIB, VARIABLE, StubDriver

pytestmark = pytest.mark.stub_driver

AMPERE, HOPPER = (8, 6), (9, 0)
NO_DEVICE, MISMATCH = 100, 803


def on_import(script: str, *, library_path: Path | None = None) -> str:
    """The last line that a process without the stub prints when it imports the module."""
    environment = {key: value for key, value in os.environ.items() if key not in {VARIABLE, "LD_LIBRARY_PATH"}}
    if library_path is not None:
        environment["LD_LIBRARY_PATH"] = str(library_path)
    command = [sys.executable, "-c", f"{script}\nimport engine.runtime.cuda"]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    return result.stderr.strip().splitlines()[-1]


def has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


@pytest.mark.skipif(has_driver(), reason="this machine has a driver")
def test_without_a_driver() -> None:
    line = on_import("")
    assert "BackendUnavailable: no NVIDIA driver on this machine (libcuda.so.1" in line
    assert line.endswith("engines for the CPU need neither")


def test_a_driver_that_lacks_functions_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "old.c").write_text("int cuInit(unsigned flags) { return 0; }\n")
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "old.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=tmp_path, check=True)
    line = on_import("", library_path=tmp_path)
    assert "BackendUnavailable: the NVIDIA driver is too old for this PyCUDA" in line
    assert line.endswith("update the NVIDIA driver")


def test_without_pycuda() -> None:
    line = on_import("import sys; sys.modules['pycuda'] = None")
    assert line.endswith("BackendUnavailable: engines on a GPU need pycuda: pip install 'vsc-engine[gpu]'")


def test_lists_devices(stub_driver: StubDriver) -> None:
    stub_driver.devices([(AMPERE, 100 * MIB), (HOPPER, 200 * MIB)])
    assert devices() == (Device(0, "Stub 8.6", "8.6", 100 * MIB), Device(1, "Stub 9.0", "9.0", 200 * MIB))
    assert [str(device) for device in devices()] == ["Stub 8.6 (8.6, 100 MiB)", "Stub 9.0 (9.0, 200 MiB)"]


def test_info_lists_them_too_or_says_why_not(stub_driver: StubDriver) -> None:
    part = capabilities()[-1]
    assert (part.available, part.detail) == (True, "Stub 8.6 (8.6, 1024 MiB)")
    stub_driver.configure(init=NO_DEVICE)
    part = capabilities()[-1]
    assert not part.available
    assert "finds no GPU" in part.detail


def test_a_driver_for_an_older_cuda(stub_driver: StubDriver) -> None:
    stub_driver.configure(version=12040)
    with pytest.raises(BackendUnavailable, match=r"too old: it runs CUDA 12\.4, .* need CUDA 13\.0; update the NVIDIA"):
        devices()


def test_no_device(stub_driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    stub_driver.configure(init=NO_DEVICE)
    with pytest.raises(BackendUnavailable, match=r"finds no GPU: .* container one \(.*CUDA_ERROR_NO_DEVICE\)$"):
        devices()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(BackendUnavailable, match="CUDA_VISIBLE_DEVICES is '7'"):
        devices()


def test_an_empty_list_is_no_device(stub_driver: StubDriver) -> None:
    stub_driver.devices([])
    with pytest.raises(BackendUnavailable, match="finds no GPU"):
        devices()


def test_a_driver_that_does_not_start(stub_driver: StubDriver) -> None:
    stub_driver.configure(init=MISMATCH)
    with pytest.raises(BackendUnavailable, match=r"does not start: restart .*CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"):
        devices()


def test_more_gpus_than_there_are(stub_driver: StubDriver) -> None:
    stub_driver.devices([(AMPERE, 100 * MIB)] * 2)
    assert [device.index for device in choose_devices(2)] == [0, 1]
    for wrong in (0, 3, 8):
        with pytest.raises(ConfigError, match=rf"--gpus {wrong}: this machine has 2 \(0: Stub .*1: .*\); ask for 1"):
            choose_devices(wrong)


def test_gpus_of_several_generations(stub_driver: StubDriver) -> None:
    stub_driver.devices([(AMPERE, 100 * MIB), (HOPPER, 200 * MIB)])
    assert len(choose_devices(2, built_for=["8.6", "9.0"])) == 2
    assert len(choose_devices(1, built_for=["8.6"])) == 1
    with pytest.raises(ConfigError, match=r"8\.6, which GPUs 1 do not have .*--compute-capability 8\.6 9\.0"):
        choose_devices(2, built_for=["8.6"])


def test_memory_goes_there_and_back(stub_driver: StubDriver) -> None:
    gpu = Gpu(devices()[0])
    with gpu.current():
        stream, host = Stream(), gpu.allocate_pinned((3, 5), "float32")
        first, second = gpu.allocate(host.nbytes), gpu.allocate(host.nbytes)
        host[:] = np.arange(15).reshape(3, 5)
        stream.upload(first.address, host)
        stream.copy(second.address, first.address, host.nbytes)
        stream.synchronize()
        host[:] = 0
        stream.clear(first)
        stream.download(host, second.address)
        stream.synchronize()
        np.testing.assert_array_equal(host, np.arange(15).reshape(3, 5))
        stream.download(host, first.address)
        stream.synchronize()
        assert not host.any()
        for memory in (first, second):
            memory.free()
        free_pinned(host)
        stream.free()
    assert stub_driver.count("num_device_allocations") == stub_driver.count("num_pinned_allocations") == 0


def test_out_of_memory_has_the_numbers(stub_driver: StubDriver) -> None:
    stub_driver.devices([(AMPERE, 10 * MIB)])
    gpu = Gpu(devices()[0])
    with gpu.current():
        held = gpu.allocate(4 * MIB)
        with pytest.raises(OutOfDeviceMemory, match=r"GPU 0, Stub 8.6: asked for 8.00 MiB, 6.00 of 10.00 MiB are free"):
            gpu.allocate(8 * MIB)
        held.free()


def test_other_errors_of_the_driver_name_the_gpu(stub_driver: StubDriver) -> None:
    gpu = Gpu(devices()[0])
    message = r"GPU 0, Stub 8\.6 .*: cuMemcpyDtoDAsync failed: CUDA_ERROR_INVALID_VALUE"
    with pytest.raises(EngineError, match=message), gpu.current():
        Stream().copy(64, 128, 1)


def test_captured_work_is_done_at_each_launch_and_not_before(stub_driver: StubDriver) -> None:
    gpu = Gpu(devices()[0])
    with gpu.current():
        stream, host = Stream(), gpu.allocate_pinned((4,), "uint8")
        one, other = gpu.allocate(4), gpu.allocate(4)
        stream.clear(other)
        graph = stream.capture(lambda: stream.copy(other.address, one.address, 4))
        for value in (3, 5):
            host[:] = value
            stream.upload(one.address, host)
            stream.synchronize()
            stream.download(host, other.address)
            stream.synchronize()
            assert host.tolist() == [0 if value == 3 else 3] * 4
            graph.launch(stream)
            stream.download(host, other.address)
            stream.synchronize()
            assert host.tolist() == [value] * 4
        graph.free()
        one.free()
        other.free()
        free_pinned(host)
        stream.free()


def test_a_capture_that_cannot_begin_says_so(stub_driver: StubDriver) -> None:
    gpu = Gpu(devices()[0])
    with gpu.current():
        stream = Stream()
        with pytest.raises(EngineError, match="cuStreamBeginCapture_v2 failed"):
            stream.capture(lambda: stream.capture(lambda: None))
        stream.free()
