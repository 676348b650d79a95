"""What a training run did, for people: curves as PNG, and a page with the recipe and the final figures."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

from engine.files import written_aside
from engine.version import __version__

CURVES, PAGE = "curves.png", "report.html"
_SMOOTHED_STEPS = 25


def write_report(folder: Path, *, log: Path, recipe: dict[str, Any]) -> None:
    """Write ``curves.png`` and ``report.html`` into ``folder`` from the JSON lines of ``log``."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    with written_aside(folder / CURVES) as aside:
        _plot(lines, aside)
    validations = [(line["step"], line["validation_uap"]) for line in lines if "validation_uap" in line]
    facts = {
        "steps": lines[-1]["step"],
        "hours of steps": round(sum(line["seconds"] for line in lines) / 3600, 2),
        "last loss": round(lines[-1]["loss"], 4),
        "best validation uAP": max((uap for _, uap in validations), default=None),
        "vsc-engine": __version__,
    }
    rows = "".join(f"<tr><td>{html.escape(key)}</td><td>{value}</td></tr>" for key, value in facts.items())
    page = (
        "<!doctype html><meta charset=utf-8><title>Training report</title>"
        f"<h1>{html.escape(recipe['name'])}</h1><table>{rows}</table><img src={CURVES} alt='curves of the run'>"
        f"<h2>Recipe</h2><pre>{html.escape(json.dumps(recipe, indent=1))}</pre>\n"
    )
    with written_aside(folder / PAGE) as aside:
        aside.write_text(page, encoding="utf-8")


def _plot(lines: list[dict[str, float]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for axis, key in zip(axes.flat, ("info_nce", "entropy", "validation_uap", "lr"), strict=True):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if key in ("info_nce", "entropy"):
            points = _smoothed(points)
        axis.plot([step for step, _ in points], [value for _, value in points])
        axis.set(title=key, xlabel="step")
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(path, format="png", dpi=100)
    plt.close(figure)


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of consecutive points."""
    parts = [points[start : start + _SMOOTHED_STEPS] for start in range(0, len(points), _SMOOTHED_STEPS)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
