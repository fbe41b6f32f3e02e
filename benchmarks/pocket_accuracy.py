"""Accuracy of the first stage on pocket's evaluation set: what is kept against what is still answered.

    python benchmarks/pocket_accuracy.py [--videos 1000] [--frames 8] [--model DIR]

Every row scores the same questions on the same videos; differences to dense and between rows are paired by video, with
95 % bootstrap intervals over videos. Writes docs/results/pocket_accuracy.{md,json} and prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import typer
from rich.console import Console
from timing import publish
from torch import Tensor

from sharpv import Random, SharpV
from sharpv.comparison import Row, keep_masks, prepare
from sharpv.importance import spatial_importance
from sharpv.methods import Scores

BUDGETS = (None, 0.5, 0.25, 0.12)


@dataclass(frozen=True)
class EqualFrames(SharpV):
    """SharpV's ranking within a frame, the same number of tokens from every frame."""

    name: ClassVar[str] = "equal-frames"

    def score(self, features: Tensor) -> Scores:
        tokens = super().score(features).tokens
        return Scores(tokens, torch.ones(len(tokens)))


@dataclass(frozen=True)
class SpatialRanking(SharpV):
    """SharpV's counts, ranked by S alone."""

    name: ClassVar[str] = "spatial-ranking"

    def score(self, features: Tensor) -> Scores:
        return Scores(spatial_importance(features), super().score(features).demand)


def block(budget: float | None, adaptive: float) -> list[Row]:
    """The rows of one budget; None: the content decides, and rows that need a number get what it kept."""
    return [
        Row("SharpV", SharpV(), budget),
        Row("SharpV, packed positions", SharpV(), budget, "packed"),
        Row("random at SharpV's counts", Random(counts_of=SharpV()), budget),
        Row("SharpV's ranking, equal counts a frame", EqualFrames(), budget or adaptive),
        Row("T only (w = 0), SharpV's counts", SharpV(weight=0.0), budget),
        Row("S only, SharpV's counts", SpatialRanking(), budget),
    ]


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 1000,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    model: Annotated[str, typer.Option(help="'pocket', 'smol', or a checkpoint of either.")] = "pocket",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    console = Console()
    comparison = prepare(model, videos, frames)

    adaptive = round(keep_masks(SharpV(), comparison.features, None)[0].float().mean().item(), 4)
    (dense,) = comparison.run([Row("dense")])
    lines = [comparison.facts(dense, dense)]
    for budget in BUDGETS:
        for outcome in comparison.run(block(budget, adaptive)):
            if outcome.row.label == "SharpV":
                sharpv = outcome
            to_sharpv = comparison.difference(outcome, sharpv)
            lines.append({**comparison.facts(outcome, dense), "budget": budget, "to_sharpv": to_sharpv})
            console.print(f"{outcome.kept:.1%}  {outcome.row.label}: {lines[-1]['accuracy']:.3f}", highlight=False)
    what = f"{videos:,} videos of {frames} frames, {len(dense.correct):,} questions"
    publish("pocket_accuracy", report(lines, what, adaptive), {**comparison.about, "rows": lines})


def interval(line: dict, name: str) -> str:
    """A difference in points with its 95 % interval; nothing beside what is compared with itself."""
    if line["label"] == "dense" or (name == "to_sharpv" and line["label"] == "SharpV"):
        return ""
    mean, low, high = line[name]
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def report(lines: list[dict], what: str, adaptive: float) -> list[str]:
    """The Markdown page, line by line."""
    families = {"dense": lines[0]["families"]}
    for line in lines:
        if line["label"] == "SharpV":
            share = "adaptive" if line["retention"] is None else f"{line['retention']:.0%} kept"
            families[f"SharpV {share}"] = line["families"]
    page = [
        "# Pocket: what is kept, what is still answered",
        "",
        f"{what}; mean exact-match accuracy over {len(families['dense'])} question families; teacher-forced scoring, "
        "which equals greedy generation. First stage only. Differences are in points, paired by video, with 95 % "
        f"bootstrap intervals. SharpV adaptive keeps {adaptive:.1%} here, unprompted; rows of the first block that "
        "need a number get that one. Written by `python benchmarks/pocket_accuracy.py`.",
        "",
        "| kept before the LLM | what | accuracy | to dense | to SharpV at this budget |",
        "| --- | --- | --- | --- | --- |",
    ]
    page += [
        f"| {line['kept']:.1%} | {line['label']} | {line['accuracy']:.3f} | {interval(line, 'difference')} | "
        f"{interval(line, 'to_sharpv')} |"
        for line in lines
    ]
    page += ["", "## By family", "", "| family | " + " | ".join(families) + " |", "| --- |" + " --- |" * len(families)]
    for name in families["dense"]:
        page.append(f"| {name} | " + " | ".join(f"{column[name]:.3f}" for column in families.values()) + " |")
    return [line.replace("%", " %").replace("  %", " %") for line in page]


if __name__ == "__main__":
    typer.run(main)
