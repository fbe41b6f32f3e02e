"""Accuracy against what is kept, one line a method: needs ``pip install 'sharpv[plot]'``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Label -> points (x, accuracy)."""
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


def draw(
    path: Path, curves: Curves, x: str, y: str, level: tuple[str, float] | None = None, shares: bool = True
) -> None:
    """Write the plot; the file's bytes depend on the figures alone.

    Args:
        path: .svg, .png or .pdf.
        curves: in the order of the legend.
        x, y: what the axes show.
        level: name and height of a horizontal line, the unpruned model say.
        shares: the x values are kept shares in [0, 1], shown as percent on a logarithmic axis.
    """
    check(path)
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "sharpv"}):
        figure = Figure(figsize=(8, 5), layout="tight")
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=colormaps["tab20"].colors)  # type: ignore[attr-defined]  # untyped
        if level is not None:
            axes.axhline(level[1], color="black", linewidth=0.8, label=level[0])
        scale = 100 if shares else 1
        values: set[float] = set()
        for label, points in curves.items():
            ordered = sorted(points)
            values.update(scale * value for value, _ in ordered)
            style = "--" if label.startswith(CONTROL) else "-"
            heights = [height for _, height in ordered]
            axes.plot([scale * value for value, _ in ordered], heights, style, marker="o", markersize=3, label=label)
        axes.set(xlabel=f"{x}, kept %" if shares else x, ylabel=y)
        if shares:
            axes.set_xscale("log")
            axes.set_xticks([tick for tick in (1, 2, 5, 10, 20, 50, 100) if min(values) <= 2 * tick])
            axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(fontsize=7)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
