"""Methods and controls side by side on an embedded model: one table, one plot, exactly equal numbers of tokens.

    python benchmarks/methods.py [--model pocket] [--videos 1000] [--frames 8] [--folder runs/bench]

Finished rows are kept in FOLDER, so a run that was stopped goes on where it was. Writes
docs/results/MODEL_methods.{md,json,svg}; the plot needs sharpv[plot].
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from timing import RESULTS, publish

from sharpv import Random, SharpV, Uniform
from sharpv.comparison import Row, curves, prepare, versus_first
from sharpv.methods import EVS, CDPruner, DivPrune, DyCoke, FastVID, Method, Pool, SharpVPlus, Subsample, VidCom2
from sharpv.plot import check, draw

METHODS: dict[str, Method] = {
    "SharpV": SharpV(),
    "SharpV+ (ours)": SharpVPlus(),
    "EVS": EVS(),
    "EVS without its anchor frame": EVS(anchor_frame=False),
    "VidCom2": VidCom2(),
    "DyCoke, first step": DyCoke(),
    "DivPrune, frame by frame": DivPrune(),
    "DivPrune, whole video": DivPrune(scope="video"),
    "CDPruner, told no question": CDPruner(),
    "FastVID (merges)": FastVID(),
    "control: random at SharpV's counts": Random(counts_of=SharpV()),
    "control: random": Random(),
    "control: uniform grid": Uniform(),
    "control: whole frames": Subsample(),
    "control: means of frames (merges)": Pool(),
}


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 1000,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    model: Annotated[str, typer.Option(help="'pocket', 'smol', or a checkpoint of either.")] = "pocket",
    retentions: Annotated[str, typer.Option(help="Kept shares, with commas.")] = "0.5,0.25,0.12,0.06",
    folder: Annotated[Path, typer.Option(help="Where finished rows are kept.")] = Path("runs/bench"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    name = Path(model).name
    stem = f"{name}_methods"
    check(RESULTS / f"{stem}.svg")
    torch.set_num_threads(threads)
    console = Console()
    comparison = prepare(model, videos, frames, folder)
    (dense,) = comparison.run([Row("dense")])
    columns = []
    for retention in map(float, retentions.split(",")):
        columns.append(list(comparison.run([Row(label, method, retention) for label, method in METHODS.items()])))
        console.print(f"kept {retention:.0%}: done", highlight=False)
    top = comparison.accuracy(dense)
    lines = [
        f"# {name.capitalize()}: methods side by side",
        "",
        f"{videos:,} videos of {frames} frames, {len(comparison.video):,} questions; mean exact match over the "
        f"question families, first stage only, exactly the same number of tokens in each column. Dense: {top:.3f}. In "
        "brackets the difference to SharpV in points, paired by video, with its 95 % bootstrap interval. Written by "
        f"`python benchmarks/methods.py --model {name} --videos {videos} --retentions {retentions}`.",
        "",
        *versus_first(comparison, columns),
    ]
    every = [outcome for column in columns for outcome in column]
    rows = [comparison.facts(outcome, dense) for outcome in every]
    publish(stem, lines, {**comparison.about, "dense": top, "rows": rows})
    points = curves(comparison, every)
    draw(RESULTS / f"{stem}.svg", points, "visual tokens before the LLM", "mean accuracy", ("dense", top))


if __name__ == "__main__":
    typer.run(main)
