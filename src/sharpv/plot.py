"""Accuracy against what is kept, one line a method: needs ``pip install 'sharpv[plot]'``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Label -> points (kept share in [0, 1], accuracy)."""
CONTROL = "control"
"""Labels that begin with this are drawn dashed."""


def check(path: Path) -> None:
    """Refuse what :func:`draw` could not write, before anything long is run for it.

    Raises:
        ValueError: matplotlib is not installed, or a file that is neither svg, png nor pdf.
    """
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"a plot is an .svg, .png or .pdf file, got {str(path)!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install 'sharpv[plot]'") from error


def draw(path: Path, curves: Curves, level: float, kept: str, accuracy: str, legend: str = "unpruned") -> None:
    """Write the plot; the file's bytes depend on the figures alone.

    Args:
        path: .svg, .png or .pdf.
        curves: in the order of the legend.
        level: the accuracy of what ``legend`` names, a horizontal line.
        kept, accuracy: what the axes show, without units.
    """
    check(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "sharpv"}):
        figure = Figure(figsize=(8, 5), layout="tight")
        axes = figure.add_subplot()
        axes.axhline(level, color="black", linewidth=0.8, label=legend)
        shares: set[float] = set()
        for label, points in curves.items():
            ordered = sorted(points)
            shares.update(share for share, _ in ordered)
            style = "--" if label.startswith(CONTROL) else "-"
            percent = [100 * share for share, _ in ordered]
            axes.plot(percent, [value for _, value in ordered], style, marker="o", markersize=3, label=label)
        axes.set(xlabel=f"{kept}, kept %", ylabel=accuracy, xscale="log")
        ticks = [1, 2, 5, 10, 20, 50, 100]
        axes.set_xticks([tick for tick in ticks if 50 * min(shares) <= tick], minor=False)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(fontsize=7)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
