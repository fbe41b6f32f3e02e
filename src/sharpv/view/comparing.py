"""Methods side by side: accuracy against what is kept, as a page in the look of the others.

What is shown are the figures that ``sharpv eval --json`` and the benchmarks write.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .page import templates

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 684, 16, 330
COLOURS, DASHES = 8, ("none", "7 4", "2 3")
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def comparison_page(facts: Mapping[str, Any], title: str) -> str:
    """A page with a line for each method, intervals, and tables that can be sorted.

    Args:
        facts: ``rows``, each with ``label``, ``kept`` and ``accuracy`` (shares in [0, 1]), ``difference`` to the dense
            model (points, with the ends of its 95 % interval) and ``families`` (accuracy by kind of question); beside
            them ``videos``, ``frames``, ``questions``, and ``dense`` where it is not one of the rows.
        title: of the page.

    Raises:
        ValueError: no rows, or no dense accuracy among them.
    """
    rows = list(facts.get("rows", ()))
    dense = facts.get("dense", next((row["accuracy"] for row in rows if row["label"] == "dense"), None))
    if not rows or dense is None:
        raise ValueError("a comparison needs rows, and the accuracy of the dense model")
    pruned = [row for row in rows if row["label"] != "dense"]
    labels = list(dict.fromkeys(row["label"] for row in pruned))
    environment = templates()
    source, _, _ = environment.loader.get_source(environment, "sort.js")  # type: ignore[union-attr]
    script = Markup(source)
    return environment.get_template("comparison.html").render(
        title=title,
        facts=facts,
        dense=dense,
        rows=rows,
        labels=labels,
        plot=_plot(pruned, labels, dense),
        families=sorted({name for row in rows for name in row.get("families", ())}),
        colours=COLOURS,
        dashes=DASHES,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _plot(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], dense: float) -> Markup:
    """Accuracy against the kept share on a logarithmic axis; bars are intervals of the paired difference to dense."""
    least = min((row["kept"] for row in rows), default=1.0)
    left = max((tick for tick in TICKS if tick <= least), default=TICKS[0])
    ends = [dense + end / 100 for row in rows for end in row["difference"][1:]] + [dense]
    low, high = math.floor(20 * min(ends)) / 20, math.ceil(20 * max(ends)) / 20

    def x(kept: float) -> float:
        return LEFT + (RIGHT - LEFT) * (1 - math.log(kept) / math.log(left) if left < 1 else 0.5)

    def y(accuracy: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (accuracy - low) / (high - low or 1)

    parts = []
    step = 0.05 if high - low <= 0.4 else 0.1
    for index in range(round((high - low) / step) + 1):
        value = low + index * step
        parts.append(
            Markup(
                '<path class="axis" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{:.2f}</text>'
            ).format(LEFT, y(value), RIGHT, LEFT - 6, y(value) + 4, value)
        )
    parts += [
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:g} %</text>').format(x(tick), BOTTOM + 20, 100 * tick)
        for tick in TICKS
        if tick >= left
    ]
    parts.append(
        Markup(
            '<path class="dense" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}">dense {:.3f}</text>'
            '<text x="{}" y="{}" text-anchor="middle">kept before the language model</text>'
        ).format(LEFT, y(dense), RIGHT, LEFT + 6, y(dense) - 5, dense, (LEFT + RIGHT) / 2, HEIGHT - 6)
    )
    for number, label in enumerate(labels):
        some = sorted((row for row in rows if row["label"] == label), key=lambda row: row["kept"])
        points = [(x(row["kept"]), y(row["accuracy"])) for row in some]
        shapes = [
            Markup('<polyline stroke-dasharray="{}" points="{}"/>').format(
                DASHES[number // COLOURS % len(DASHES)], " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            )
        ]
        for row, (a, b) in zip(some, points, strict=True):
            bottom, top = (y(dense + end / 100) for end in row["difference"][1:])
            shapes.append(
                Markup(
                    '<g><path d="M{:.1f} {:.1f}V{:.1f}"/><circle cx="{:.1f}" cy="{:.1f}" r="4"/>'
                    "<title>{}, kept {:.1f} %: {:.3f}</title></g>"
                ).format(a, bottom, top, a, b, label, 100 * row["kept"], row["accuracy"])
            )
        parts.append(Markup('<g class="line c{} m{}">{}</g>').format(number % COLOURS, number, Markup("").join(shapes)))
    words = f"Accuracy against the kept share, {len(labels)} methods; the same figures are in the table below"
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, words, Markup("").join(parts)
    )
