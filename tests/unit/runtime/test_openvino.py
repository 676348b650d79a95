"""What is OpenVINO's own; the promises of every runner are in tests/contracts/test_runner.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine.errors import ConfigError
from engine.runtime.device_array import DeviceArray
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from tests import graphs
from tests.conftest import REPOSITORY


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
