"""Graphs on the CPU exactly as they are written; that rounding takes place is shown in `test_half`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.build.onnx_runtime import run_graph
from engine.errors import ConfigError
from tests import graphs
from tests.conftest import REPOSITORY


def test_each_call_gives_what_the_graph_computes(tmp_path: Path) -> None:
    graphs.write_ensemble(tmp_path / "g.onnx")
    inputs = [graphs.frames(num, seed=num) for num in (1, 3)]
    for given, outputs in zip(inputs, run_graph(tmp_path / "g.onnx", inputs), strict=True):
        assert list(outputs) == ["embedding"]
        np.testing.assert_allclose(outputs["embedding"], graphs.ensemble(given), atol=1e-4, rtol=0)


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(ConfigError, match=r"cannot read the graph .*g\.onnx"):
        run_graph(tmp_path / "g.onnx", [])


def test_without_the_package_its_extra_is_named() -> None:
    script = "import sys; sys.modules['onnxruntime'] = None; import engine.build.onnx_runtime"
    result = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "BackendUnavailable: building TensorRT engines needs onnxruntime: pip install" in result.stderr
