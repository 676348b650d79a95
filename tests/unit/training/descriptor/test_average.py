"""Averages of weights, and what cannot be averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from training.descriptor.average import app, average  # noqa: E402

pytestmark = pytest.mark.torch


def write(folder: Path, **runs: dict[str, torch.Tensor]) -> list[str]:
    for name, tensors in runs.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return [str(folder / f"{name}.safetensors") for name in runs]


def test_weights_are_averaged(tmp_path: Path) -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[1.0]], dtype=torch.float16)}
    second = {"a": torch.tensor([3.0, -2.0]), "b": torch.tensor([[2.0]], dtype=torch.float16)}
    paths = write(tmp_path, first=first, second=second)
    output = tmp_path / "new" / "mean.safetensors"
    assert CliRunner().invoke(app, [*paths, "--output", str(output)]).exit_code == 0
    mean = load_file(output)
    torch.testing.assert_close(mean["a"], torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(mean["b"], torch.tensor([[1.5]], dtype=torch.float16))


def test_every_run_counts_as_much_and_the_files_stay_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dtypes = (np.float64, np.float32, np.float16)
    runs = [{str(np.dtype(kind)): rng.standard_normal((4, 5)).astype(kind) for kind in dtypes} for _ in range(3)]
    found = average([{name: torch.from_numpy(rows) for name, rows in run.items()} for run in runs])
    for kind in map(str, map(np.dtype, dtypes)):
        expected = np.mean([run[kind].astype(np.float64) for run in runs], axis=0)
        assert str(found[kind].numpy().dtype) == kind
        tolerance = {"float64": 1e-15, "float32": 1e-7, "float16": 1e-3}[kind]
        np.testing.assert_allclose(found[kind].numpy(), expected, rtol=tolerance, atol=tolerance)
    again = np.random.default_rng(0)
    assert all((again.standard_normal((4, 5)).astype(kind) == runs[0][str(np.dtype(kind))]).all() for kind in dtypes)


def test_what_cannot_be_averaged_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = write(tmp_path, first={"a": torch.zeros(2)}, other={"a": torch.zeros(3)}, more={"c": torch.zeros(2)})
    (tmp_path / "text.safetensors").write_text("no weights")
    output = tmp_path / "mean.safetensors"
    for chosen, message in (
        (paths[:1], "needs two checkpoints or more, got 1"),
        (paths[:2], "1 tensors differ, such as a"),
        (paths[::2], "2 tensors differ, such as a"),
        ([paths[0], str(tmp_path / "text.safetensors")], "is not a readable safetensors file"),
        ([paths[0], str(tmp_path / "absent.safetensors")], "is not a readable safetensors file"),
    ):
        result = CliRunner().invoke(app, [*chosen, "--output", str(output)])
        assert result.exit_code == 1
        assert message in capfd.readouterr().err + result.output
    assert not output.exists()
