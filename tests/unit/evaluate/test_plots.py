"""Plots: the file is a picture with a curve in it, and a missing matplotlib is explained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import BackendUnavailable
from engine.evaluate.metrics import PrecisionRecall
from engine.evaluate.plots import save_precision_recall_plot

CURVE = PrecisionRecall(
    average_precision=0.55,
    precision=np.array([1.0, 0.8, 0.5]),
    recall=np.array([0.2, 0.5, 0.8]),
    score=np.array([0.9, 0.3, -0.2]),
)
NOTHING_FOUND = PrecisionRecall(0.0, np.zeros(0), np.zeros(0), np.zeros(0))


def dark_share(path: Path) -> float:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return float((np.asarray(picture.convert("L")) < 200).mean())


def test_the_picture_shows_the_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_precision_recall_plot(CURVE, tmp_path / "curve.png", title="candidates")
    save_precision_recall_plot(NOTHING_FOUND, tmp_path / "nothing.png", title="candidates")
    assert 0 < dark_share(tmp_path / "nothing.png") < dark_share(tmp_path / "curve.png") < 0.2


def test_no_display_and_no_global_state_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.delenv("DISPLAY", raising=False)
    save_precision_recall_plot(CURVE, tmp_path / "curve.png", title="candidates")
    assert dark_share(tmp_path / "curve.png") > 0


def test_without_matplotlib_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"pip install vsc-engine\[plot\]"):
        save_precision_recall_plot(CURVE, tmp_path / "curve.png", title="candidates")
