"""Accuracy against what is kept, a few lines that one can tell apart: needs ``pip install 'sharpv[plot]'``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Points = Sequence[tuple[float, ...]]
Curves = Mapping[str, Points]
"""Label -> points (x, y), or (x, y, low, high) with an interval."""
CONTROL = "control"
"""What begins with this is drawn as one grey band, from the lowest of them to the highest."""
MOST = 6
"""Lines of a plot: the first, and the highest of the others."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color/)."""


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
    path: Path,
    curves: Curves,
    x: str,
    y: str,
    level: tuple[str, float] | None = None,
    shares: bool = True,
    title: str = "",
) -> None:
    """Write the plot; the file's bytes depend on the figures alone.

    Args:
        path: .svg, .png or .pdf.
        curves: the first is always drawn, of the others the highest; all controls as one band.
        x, y: what the axes show.
        level: name and height of a horizontal line, the unpruned model say.
        shares: the x values are kept shares in [0, 1], shown as percent on a logarithmic axis.
        title: what the plot shows, in words.
    """
    check(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    scale = 100 if shares else 1
    drawn = chosen(curves)
    with rc_context({"svg.hashsalt": "sharpv", "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        _band(axes, [points for label, points in curves.items() if label.startswith(CONTROL)], scale)
        if level is not None:
            axes.axhline(level[1], color="#333333", linewidth=1, linestyle=":")
        for colour, label in zip(COLOURS, drawn, strict=False):
            ordered = sorted(curves[label])
            values, heights = [scale * point[0] for point in ordered], [point[1] for point in ordered]
            axes.plot(values, heights, marker="o", markersize=4, color=colour)
            if all(len(point) == 4 for point in ordered):
                axes.fill_between(
                    values, [point[2] for point in ordered], [point[3] for point in ordered],
                    color=colour, alpha=0.15, linewidth=0,
                )  # fmt: skip
        axes.set(xlabel=f"{x}, kept %" if shares else x, ylabel=y)
        if title:
            axes.set_title(title, loc="left", fontsize=11)
        values = [scale * point[0] for points in curves.values() for point in points]
        if shares:
            axes.set_xscale("log")
            axes.set_xticks([tick for tick in (1, 2, 5, 10, 20, 50, 100) if min(values) <= 2 * tick])
            axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        ends = [(sorted(curves[label])[-1], label, colour) for colour, label in zip(COLOURS, drawn, strict=False)]
        labels = [(scale * point[0], point[1], label, colour) for point, label, colour in ends]
        if level is not None:
            labels.append((max(values), level[1], level[0], "#333333"))
        _name(axes, labels)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def chosen(curves: Curves) -> list[str]:
    """The lines that are drawn, in their order: the first, then the highest on average."""
    able = [label for label in curves if not label.startswith(CONTROL)]
    heights = {label: sum(point[1] for point in curves[label]) / len(curves[label]) for label in able}
    best = sorted(able[1:], key=lambda label: -heights[label])[: MOST - 1]
    return [label for label in able if label == able[0] or label in best]


def _band(axes: Any, controls: Sequence[Points], scale: float) -> None:
    """From the lowest control to the highest, where there are any, at the values that all of them have."""
    heights: dict[float, list[float]] = {}
    for points in controls:
        for point in points:
            heights.setdefault(round(scale * point[0], 3), []).append(point[1])
    values = sorted(value for value, found in heights.items() if len(found) == len(controls))
    if values:
        low, high = ([pick(heights[value]) for value in values] for pick in (min, max))
        axes.fill_between(values, low, high, color="#999999", alpha=0.25, linewidth=0)
        axes.annotate("controls", (values[0], (low[0] + high[0]) / 2), color="#666666", fontsize=9, ha="left")


def _name(axes: Any, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Names at the ends of the lines, to the right, moved apart where they would lie over each other."""
    bottom, top = axes.get_ylim()
    least, place = (top - bottom) / 20, float("inf")
    for x, y, label, colour in sorted(labels, key=lambda entry: -entry[1]):
        place = min(y, place - least)
        axes.annotate(
            label, (x, y), xytext=(1.02, (place - bottom) / (top - bottom)), textcoords="axes fraction",
            color=colour, fontsize=9, va="center", annotation_clip=False,
        )  # fmt: skip
