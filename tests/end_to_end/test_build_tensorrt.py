"""`vsc-engine build --backend tensorrt` as users call it, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli import main
from engine.runtime.engines_directory import EnginesDirectory
from tests.end_to_end.conftest import RunCli

BUILD = ("build", "--preset", "lite", "--output")
TENSORRT = ("--backend", "tensorrt", "--flavour", "tensorrt_rtx")


def test_lite_is_built_for_two_gpus_and_the_comparison_is_told(run_cli: RunCli, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path / "engines"
    result = run_cli(*BUILD, folder, *TENSORRT, "--compute-capability", "7.5", "8.9", "--max-batch", "8")
    assert result.stdout == f"{folder}\n"
    assert "largest change of the score" in result.stderr
    assert "lite stays float32: in float16 its edit_score is 0.00" in result.stderr
    facts = {name: engine.tensorrt for name, engine in EnginesDirectory.open(folder).manifest.engines.items()}
    assert {name: each and each.compute_capabilities for name, each in facts.items()} == {
        "ensemble": ("7.5", "8.9"),
        "edit_score": ("7.5", "8.9"),
    }
    assert {name: each and each.precisions for name, each in facts.items()} == {
        "ensemble": {"lite": "fp32"},
        "edit_score": {"edit_score": "fp16"},
    }
    cosine, score = next(facts.comparisons for facts in facts.values() if facts and len(facts.comparisons) == 2)
    assert 0.9999 < cosine.worst < 1
    assert 1e-3 < score.worst < 1e-2  # only edited pictures show that its features move the edit score too far
    assert {name: each and each.profile.max_rows for name, each in facts.items()} == {"ensemble": 8, "edit_score": 256}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TENSORRT, "--compute-capability", "9.0"), "does not build for compute capability 9.0; expected 7.5"),
        (("--precision", "fp16"), "--precision fp16 is for --backend tensorrt; on CPUs there are fp32, bf16 and auto"),
        ((*TENSORRT, "8.6"), "unexpected arguments: 8.6"),
        (("--backend", "abacus"), "'abacus' is not one of 'openvino', 'tensorrt'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(SystemExit) as status:
        main([*BUILD, str(tmp_path / "engines"), *arguments])
    assert status.value.code == 1
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "engines").exists()
