"""The second way in: what is said where Torch-TensorRT is not installed. The rest needs a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.build.compiler import TensorRtOptions
from engine.build.engines import build_engines
from engine.config import load_preset
from engine.errors import BackendUnavailable
from tests.conftest import IMAGENET_PRESET

pytestmark = pytest.mark.torch


def test_a_missing_package_is_named_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    monkeypatch.delitem(sys.modules, "engine.build.torch_tensorrt", raising=False)
    with pytest.raises(BackendUnavailable, match=r"--frontend torch-tensorrt .*vsc-engine\[build,torch-tensorrt\]"):
        build_engines(
            load_preset(IMAGENET_PRESET),
            tmp_path / "engines",
            backend="tensorrt",
            tensorrt=TensorRtOptions(frontend="torch-tensorrt"),
        )
    assert not (tmp_path / "engines").exists()
