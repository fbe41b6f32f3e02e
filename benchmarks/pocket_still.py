"""Stage 0 on pocket: how many frames it leaves out, and what the answers lose.

    python benchmarks/pocket_still.py [--videos 300] [--frames 8]

Frames within a threshold of the last encoded one take its features (``still=`` of sharpv.apply); then all tokens are
kept, or SharpV's. Writes docs/results/pocket_still.{md,json}.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any

import torch
import typer
from timing import publish

from sharpv import SharpV
from sharpv.comparison import Comparison, Outcome, Row, prepare
from sharpv.pocket.model import pixel_values
from sharpv.vision import repeated

THRESHOLDS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
ROWS = {
    "all tokens": Row("dense"),
    "SharpV, adaptive": Row("adaptive", SharpV()),
    "SharpV, kept 25 %": Row("25", SharpV(), 0.25),
}


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 300,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    comparison = prepare("pocket", videos, frames)
    pixels = [pixel_values(comparison.evaluation.video(index)) for index in range(videos)]
    every = dict(zip(ROWS, comparison.run(list(ROWS.values())), strict=True))
    accuracies = ", ".join(f"{name} {comparison.accuracy(outcome):.3f}" for name, outcome in every.items())
    lines = [
        "# Pocket: stage 0",
        "",
        f"{videos} videos of {frames} frames, {len(comparison.video):,} questions, original positions, first stage. "
        "A frame in which no patch of 14 x 14 pixels differs by more than the threshold (root mean square, pixels in "
        "[-1, 1]) from the last encoded frame is not encoded. Accuracy in points against the same row with every frame "
        f"encoded, paired 95 % intervals. With every frame encoded: {accuracies}. Written by `python "
        "benchmarks/pocket_still.py`.",
        "",
        f"| threshold | frames encoded | {' | '.join(ROWS)} | tokens that SharpV keeps |",
        f"| --- | --- |{' --- |' * len(ROWS)} --- |",
    ]
    rows: list[dict[str, Any]] = []
    for threshold in THRESHOLDS:
        sources = torch.stack([repeated(video, threshold) for video in pixels])
        encoded = float((sources == torch.arange(frames)).float().mean())
        outcomes = dict(zip(ROWS, substituted(comparison, sources).run(list(ROWS.values())), strict=True))
        differences = {name: comparison.difference(outcome, every[name]) for name, outcome in outcomes.items()}
        cells = [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in differences.values()]
        kept = f"{100 * outcomes['SharpV, adaptive'].kept:.1f} % (was {100 * every['SharpV, adaptive'].kept:.1f} %)"
        lines.append(f"| {threshold:g} | {100 * encoded:.0f} % | {' | '.join(cells)} | {kept} |")
        rows.append({"threshold": threshold, "encoded": encoded, "differences": differences,
                     "kept": {name: outcome.kept for name, outcome in outcomes.items()}})  # fmt: skip
    publish("pocket_still", lines, {**comparison.about, "rows": rows, "every_frame": facts(comparison, every)})


def substituted(comparison: Comparison, sources: torch.Tensor) -> Comparison:
    """The same comparison with the features that stage 0 gives."""
    other = copy.copy(comparison)
    other.finished, other.store = {}, None
    other.features = torch.stack([video[source] for video, source in zip(comparison.features, sources, strict=True)])
    return other


def facts(comparison: Comparison, outcomes: dict[str, Outcome]) -> dict[str, float]:
    return {name: comparison.accuracy(outcome) for name, outcome in outcomes.items()}


if __name__ == "__main__":
    typer.run(main)
