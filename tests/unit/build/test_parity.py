"""A runner is compared with recorded outputs, and a difference is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.build.parity import TOLERANCE, Case, check_parity, load_cases, save_cases
from engine.errors import ConfigError, EngineError
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from tests import graphs


@pytest.fixture
def runner(tmp_path: Path) -> OpenVinoRunner:
    graphs.write_ensemble(tmp_path / "ensemble.onnx")
    compile_to_ir(tmp_path / "ensemble.onnx", tmp_path / "ensemble.xml")
    return OpenVinoRunner(tmp_path / "ensemble.xml", num_threads=1)


def recorded(num_rows: int, **changes: Any) -> Case:
    frames = graphs.frames(num_rows)
    return Case(dict(frames), {"embedding": graphs.ensemble(frames)} | changes)


def check(runner: OpenVinoRunner, *cases: Case) -> float:
    return check_parity([runner.run(case.inputs) for case in cases], cases, name="it")


def test_agreement_gives_the_difference(runner: OpenVinoRunner) -> None:
    with runner:
        assert 0 < check(runner, recorded(1), recorded(3)) <= TOLERANCE


@pytest.mark.parametrize("excess", [1.5 * TOLERANCE, np.nan])
def test_a_single_wrong_value_in_any_case_fails(runner: OpenVinoRunner, excess: float) -> None:
    wrong = recorded(2)
    embedding = wrong.outputs["embedding"]
    embedding[1, 7] += excess * np.abs(embedding).max()
    with runner, pytest.raises(EngineError, match=r"it differs by .* more than 5e-06"):
        check(runner, recorded(1), wrong)


def test_another_shape_fails(runner: OpenVinoRunner) -> None:
    with runner, pytest.raises(EngineError, match="differs by inf"):
        check(runner, recorded(2, embedding=np.zeros((2, 23))))


def test_cases_survive_the_disk(tmp_path: Path) -> None:
    cases = [recorded(1), recorded(3, extra=np.float32([1]))]
    save_cases(cases, tmp_path / "x.check.npz")
    for case, loaded in zip(cases, load_cases(tmp_path / "x.check.npz"), strict=True):
        for side in ("inputs", "outputs"):
            want, got = getattr(case, side), getattr(loaded, side)
            assert list(got) == list(want)
            assert all(got[name].dtype == want[name].dtype and (got[name] == want[name]).all() for name in want)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", embedding=np.zeros(3))
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(ConfigError, match="cannot read the recorded outputs"):
            load_cases(tmp_path / name)
