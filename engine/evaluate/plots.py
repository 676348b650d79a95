"""Draws precision-recall curves. Needs matplotlib, which nothing else in the package does."""

from __future__ import annotations

from engine.errors import BackendUnavailable
from engine.evaluate.metrics import PrecisionRecall
from engine.files import written_aside
from engine.storage.location import Location


def save_precision_recall_plot(curve: PrecisionRecall, path: Location, *, title: str) -> None:
    """Write a PNG of precision over recall, with the average precision and the largest recall in its legend.

    Works without a display. Raises ``BackendUnavailable`` where matplotlib is missing, ``RemoteError`` where an object
    cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable("a plot needs matplotlib; install it with: pip install vsc-engine[plot]") from error
    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.subplots()
    label = f"average precision {curve.average_precision:.4f}, recall up to {curve.max_recall:.4f}"
    axes.plot(curve.recall, curve.precision, label=label)
    axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=150)
