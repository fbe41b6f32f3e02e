"""What choosing costs: every method on the same features, relative to SharpV, in one run.

    python benchmarks/scoring_time.py [--frames 32] [--tokens 196] [--width 3584] [--device cuda] [--dtype float16]

Random features, retention 25 %, scoring and selection together as ``sharpv.apply`` runs them. Rounds are interleaved:
each times every method once, in a new order; the ratio is the median over rounds of a method's time to SharpV's in the
same round, with the middle half of the rounds in brackets. Writes docs/results/scoring_time.{md,json}.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from sharpv import Random, SharpV, Uniform
from sharpv.budget import Budget
from sharpv.methods import EVS, CDPruner, DivPrune, DyCoke, FastVID, Method, Pool, SharpVPlus, Subsample, VidCom2

RESULTS = Path(__file__).parents[1] / "docs" / "results"
METHODS: dict[str, Method] = {
    "SharpV": SharpV(),
    "SharpV+ (ours)": SharpVPlus(),
    "EVS": EVS(),
    "VidCom2": VidCom2(),
    "DyCoke, first step": DyCoke(),
    "DivPrune, frame by frame": DivPrune(),
    "DivPrune, whole video": DivPrune(scope="video"),
    "CDPruner": CDPruner(),
    "FastVID": FastVID(),
    "control: random": Random(),
    "control: uniform grid": Uniform(),
    "control: whole frames": Subsample(),
    "control: means of frames": Pool(),
}


def main(
    frames: Annotated[int, typer.Option(help="Frames of the video.")] = 32,
    tokens: Annotated[int, typer.Option(help="Tokens a frame.")] = 196,
    width: Annotated[int, typer.Option(help="Channels: the language model's width.")] = 3584,
    rounds: Annotated[int, typer.Option(help="Times that each method is run.")] = 9,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the features.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    features = torch.randn(frames, tokens, width, generator=torch.Generator().manual_seed(0))
    features = features.to(device, getattr(torch, dtype))
    budget, rng = Budget(retention=0.25), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for index in track(range(rounds + 1), "timing"):
        for name in rng.permutation(list(METHODS)):
            wait(device)
            start = time.perf_counter()
            METHODS[name].choose(features, budget)
            wait(device)
            if index:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    cpu = f"{platform.machine()} CPU, {threads} threads"
    where = torch.cuda.get_device_name() if device.startswith("cuda") else cpu
    lines = [
        "# Scoring and selection, relative to SharpV",
        "",
        f"{frames} x {tokens} x {width} random {dtype} features, 25 % kept, on {where}, torch {torch.__version__}; "
        f"median of {rounds} interleaved rounds, the middle half of them in brackets. Written by "
        "`python benchmarks/scoring_time.py`.",
        "",
        "| method | time to SharpV's | grows as | seconds, this machine |",
        "| --- | --- | --- | --- |",
    ]
    facts = {}
    for name, method in METHODS.items():
        ratio = np.array(seconds[name]) / np.array(seconds["SharpV"])
        low, middle, high = np.percentile(ratio, [25, 50, 75])
        own = float(np.median(seconds[name]))
        facts[name] = {"ratio": float(middle), "quartiles": [float(low), float(high)], "seconds": own}
        lines.append(f"| {name} | {middle:.2f} [{low:.2f}, {high:.2f}] | {method.cost} | {own:.4f} |")
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (RESULTS / "scoring_time.md").write_text(text)
    what = {"frames": frames, "tokens": tokens, "width": width, "dtype": dtype, "device": where, "rounds": rounds}
    (RESULTS / "scoring_time.json").write_text(json.dumps({**what, "methods": facts}, indent=1) + "\n")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    typer.run(main)
