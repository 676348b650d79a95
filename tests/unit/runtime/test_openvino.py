"""What is OpenVINO's own; the promises of every runner are in tests/contracts/test_runner.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from engine.build.onnx_graph import fold_pca
from engine.errors import ConfigError
from engine.runtime import openvino
from engine.runtime.device_array import DeviceArray
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir, has_bfloat16
from tests import graphs
from tests.conftest import REPOSITORY

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")


@pytest.fixture
def ir(tmp_path: Path) -> Path:
    graphs.write_ensemble(tmp_path / "ensemble.onnx")
    compile_to_ir(tmp_path / "ensemble.onnx", tmp_path / "ensemble.xml")
    return tmp_path / "ensemble.xml"


def test_weights_stay_float32(ir: Path) -> None:
    weights = {
        numpy_helper.to_array(weight, str(ir.parent)).tobytes()
        for weight in onnx.load(ir.with_suffix(".onnx"), load_external_data=False).graph.initializer
    }
    stored = ir.with_suffix(".bin").read_bytes()
    assert len(weights) == 2
    assert all(weight in stored for weight in weights)


def test_the_number_of_threads_does_not_change_bits(ir: Path) -> None:
    frames = graphs.frames(5)
    with OpenVinoRunner(ir, num_threads=1) as one, OpenVinoRunner(ir, num_threads=2) as two, OpenVinoRunner(ir) as all_:
        expected = one.run(frames)["embedding"]
        np.testing.assert_array_equal(two.run(frames)["embedding"], expected)
        np.testing.assert_array_equal(all_.run(frames)["embedding"], expected)


@pytest.mark.parametrize("num_threads", [1, 2, None])
def test_no_request_has_a_row_alone(ir: Path, num_threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes other kernels, and gives other bits."""
    frames = graphs.frames(11)
    asked: list[int] = []
    run_requests = OpenVinoRunner._run_requests

    def noted(runner: OpenVinoRunner, pieces: list[dict[str, NDArray[Any]]]) -> list[dict[str, NDArray[Any]]]:
        asked.extend(len(next(iter(piece.values()))) for piece in pieces)
        return run_requests(runner, pieces)

    monkeypatch.setattr(OpenVinoRunner, "_run_requests", noted)
    with OpenVinoRunner(ir, num_threads=num_threads) as runner:
        expected = runner.run(frames)["embedding"]
        for size in range(1, 12):
            found = runner.run({name: array[:size] for name, array in frames.items()})
            np.testing.assert_array_equal(found["embedding"], expected[:size])
    assert set(asked) == {2, 3}


@needs_bfloat16
def test_in_bfloat16_bits_depend_neither_on_the_batch_nor_on_threads(ir: Path) -> None:
    frames = graphs.frames(11)
    with OpenVinoRunner(ir, num_threads=1, precision="bf16") as one, OpenVinoRunner(ir, precision="bf16") as all_:
        expected = one.run(frames)["embedding"]
        for size in (1, 2, 3, 5, 11):
            parts = [{name: array[k : k + size] for name, array in frames.items()} for k in range(0, 11, size)]
            for runner in (one, all_):
                rows = np.concatenate([runner.run(part)["embedding"] for part in parts])
                np.testing.assert_array_equal(rows, expected)


@needs_bfloat16
def test_bfloat16_is_what_is_computed(ir: Path) -> None:
    frames = graphs.frames(4)
    with OpenVinoRunner(ir, precision="bf16") as runner:
        found = runner.run(frames)["embedding"]
    error = np.abs(found - graphs.ensemble(frames)).max()
    assert 1e-4 < error < 2**-7 * np.abs(found).max()  # 8 bits of precision


def test_a_cpu_without_bfloat16_says_so(ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"has neither AVX512_BF16 nor AMX; take a machine .* --precision fp32$"):
        OpenVinoRunner(ir, precision="bf16")


def test_outputs_that_are_not_wanted_are_left_out_and_change_no_other(tmp_path: Path) -> None:
    graphs.write_ensemble(tmp_path / "e.onnx")
    fold_pca(tmp_path / "e.onnx", graphs.random_pca(), tmp_path / "e.onnx")
    compile_to_ir(tmp_path / "e.onnx", tmp_path / "e.xml")
    frames = graphs.frames(5)
    with OpenVinoRunner(tmp_path / "e.xml") as both, OpenVinoRunner(tmp_path / "e.xml", unwanted=["embedding"]) as one:
        assert [spec.name for spec in one.outputs] == ["descriptor"]
        found, expected = one.run(frames), both.run(frames)
    assert list(found) == ["descriptor"]
    np.testing.assert_array_equal(found["descriptor"], expected["descriptor"])


def test_rows_on_a_gpu_are_refused(ir: Path) -> None:
    frames = graphs.frames(2)
    on_gpu = DeviceArray(4096, frames["frames_8"].shape, frames["frames_8"].dtype, None, None)
    with OpenVinoRunner(ir) as runner, pytest.raises(ConfigError, match=r"'frames_8' lies on a GPU.*decode on the CPU"):
        runner.run({**frames, "frames_8": on_gpu})


@pytest.mark.parametrize("content", [None, b"", b"<net"])
def test_an_unreadable_graph_fails(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.xml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read .*broken\.xml; build the engines again"):
        OpenVinoRunner(path)


def test_compiling_a_file_that_is_no_graph_fails(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"cannot read the graph .*broken\.onnx"):
        compile_to_ir(tmp_path / "broken.onnx", tmp_path / "broken.xml")
    assert not (tmp_path / "broken.xml").exists()


def test_nothing_is_reported_and_nothing_written_to_the_home_folder(tmp_path: Path) -> None:
    script = (
        "import sys, socket\n"
        "socket.socket.connect = lambda *_: sys.exit('connects')\n"
        "import engine.runtime.openvino, openvino\n"
        "sys.exit('openvino_telemetry' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_missing_library_names_the_extra() -> None:
    script = "import sys; sys.modules['openvino'] = None; import engine.runtime.openvino"
    result = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "BackendUnavailable: " in result.stderr
    assert "pip install 'vsc-engine[cpu]'" in result.stderr


def test_a_signal_is_handled_after_graphs_were_freed(ir: Path) -> None:
    """OpenVINO (2026.4) changes the signal stack of the thread that compiles, and frees it in the wrong order."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom engine.runtime.openvino import OpenVinoRunner\n"
        "runners = [OpenVinoRunner(Path(sys.argv[1])) for _ in range(3)]\n"
        "for runner in runners:\n    with runner:\n        pass\n"
        "del runner\n"
        "while runners:\n    del runners[0]\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(ir)], cwd=REPOSITORY, check=False)
    assert result.returncode == 3
