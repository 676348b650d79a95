"""What is compared, on which pictures, and what is accepted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.build.comparison import (
    Sample,
    accepted_models,
    compare_descriptors,
    compare_scores,
    graph_models,
    with_edits,
)
from engine.build.onnx_runtime import run_graph
from engine.build.parity import Case
from engine.config import load_preset
from engine.runtime.manifest import Precision
from tests import graphs

VSC22, LITE = load_preset("vsc22"), load_preset("lite")


def test_models_of_the_presets() -> None:
    assert graph_models(VSC22) == {
        "ensemble": ("v115", "v107", "v106", "v68"),
        "edit_features": ("edit_features",),
        "edit_score": ("edit_score",),
    }
    assert graph_models(LITE) == {"ensemble": ("lite",), "edit_score": ("edit_score",)}


def test_edits_are_more_videos_of_one_picture_with_what_the_graph_gives_for_them(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    graphs.write_ensemble(path)
    run = partial(run_graph, path)
    inputs = [graphs.frames(1), graphs.frames(2)]
    found = with_edits(Sample(path, list(map(Case, inputs, run(inputs)))), run).cases
    assert [len(case.inputs["frames_8"]) for case in found] == [1, 2, *[1] * 8]
    assert len({case.inputs["frames_8"].tobytes() for case in found}) == len(found)
    for case in found:
        assert {name: frames.shape[1:] for name, frames in case.inputs.items()} == {
            "frames_4": (4, 4, 3),
            "frames_8": (8, 8, 3),
        }
        np.testing.assert_allclose(case.outputs["embedding"], graphs.ensemble(case.inputs), atol=1e-4)


@pytest.mark.parametrize(("precision", "cosine", "chosen"), [
    ("fp16", 0.9991, "fp16"),
    ("fp16", 0.998, "fp32"),
    ("bf16", 0.991, "bf16"),
    ("bf16", 0.989, "fp32"),
])  # fmt: skip
def test_the_worst_cosine_decides(tmp_path: Path, precision: Precision, cosine: float, chosen: Precision) -> None:
    graphs.write_ensemble(tmp_path / "g.onnx")
    wanted = np.eye(2, graphs.NUM_DIMS, dtype=np.float32)
    got = wanted.copy()
    got[1, 1:3] = cosine, np.sqrt(1 - cosine**2)
    sample = Sample(tmp_path / "g.onnx", [Case({}, {"embedding": wanted})])
    [found] = compare_descriptors(sample, [{"embedding": got}], ["lite"], precision=precision)
    assert found.worst == pytest.approx(cosine, abs=1e-6)
    assert found.precision == chosen
    assert accepted_models([found]) == ({"lite"} if chosen != "fp32" else set())


@pytest.mark.parametrize(("got", "chosen"), [(0.59, "bf16"), (0.61, "fp32"), (np.nan, "fp32")])
def test_the_largest_change_of_a_score_decides(got: float, chosen: Precision) -> None:
    scores = [[{"score": np.array([value], np.float32)} for value in values] for values in ((0.5, got), (0.5, 0.5))]
    assert compare_scores("lite", *scores, precision="bf16").precision == chosen
