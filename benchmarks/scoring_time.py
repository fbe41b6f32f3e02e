"""What choosing costs: every method on the same features, and the limits of the machine beside them, in one run.

    python benchmarks/scoring_time.py [--frames 32] [--tokens 196] [--width 3584] [--device cuda] [--dtype float16]

Random features, retention 25 %, scoring and selection together as ``sharpv.apply`` runs them. Writes
docs/results/scoring_time.{md,json}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import typer
from timing import Ratio, interleaved, machine, publish
from torch import Tensor
from torch.nn import functional

from sharpv import Random, SharpV, Uniform
from sharpv.budget import Budget
from sharpv.methods import EVS, CDPruner, DivPrune, DyCoke, FastVID, Method, Pool, SharpVPlus, Subsample, VidCom2

RETENTION = 0.25
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
PLAIN, COPY, READ = "EVS, as plainly as it can be written", "a copy of the features", "a sum over the features"


def plain_evs(features: Tensor) -> Tensor:
    """EVS's rule (https://arxiv.org/abs/2510.14624) in two calls of torch; the first frame comes first."""
    change = 1 - functional.cosine_similarity(features[1:], features[:-1], dim=-1)
    scores = torch.cat([torch.full_like(change[:1], 255.0), change]).flatten()
    keep = torch.zeros_like(scores, dtype=torch.bool)
    keep[scores.argsort(descending=True, stable=True)[: int(RETENTION * len(scores))]] = True
    return keep


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
    budget, target = Budget(RETENTION), torch.empty_like(features)

    def choosing(method: Method) -> Callable[[], Any]:
        return lambda: method.choose(features, budget)

    cases = {name: choosing(method) for name, method in METHODS.items()}
    cases |= {PLAIN: lambda: plain_evs(features), COPY: lambda: target.copy_(features), READ: features.sum}
    seconds = interleaved(cases, rounds, device)
    own = seconds["SharpV"]
    # the copy reads and writes every byte, scoring must read each once
    bandwidth = {"copy": Ratio.of(seconds[COPY], 2 * own), "sum": Ratio.of(seconds[READ], own)}
    lines = [
        "# Scoring and selection, relative to SharpV",
        "",
        f"{frames} x {tokens} x {width} random {dtype} features, {100 * RETENTION:g} % kept, {machine(device, threads)}"
        f"; median of {rounds} interleaved rounds, the middle half of them in brackets. Written by `python "
        "benchmarks/scoring_time.py`.",
        "",
        "| method | time to SharpV's | grows as | milliseconds, this machine |",
        "| --- | --- | --- | --- |",
    ]
    facts = {}
    for name in cases:
        ratio, median = Ratio.of(seconds[name], own), float(np.median(seconds[name]))
        facts[name] = {**vars(ratio), "seconds": median}
        cost = METHODS[name].cost if name in METHODS else "T N D"
        lines.append(f"| {name} | {ratio} | {cost} | {1000 * median:.4g} |")
    share = {
        name: f"{100 * ratio.median:.0f} % [{100 * ratio.low:.0f}, {100 * ratio.high:.0f}]"
        for name, ratio in bandwidth.items()
    }
    lines += [
        "",
        f"SharpV reads the features, which it must do once, at {share['copy']} of the bandwidth of a copy, which reads "
        f"and writes them, and at {share['sum']} of that of a sum, which only reads.",
    ]
    what = {
        "frames": frames,
        "tokens": tokens,
        "width": width,
        "dtype": dtype,
        "where": machine(device, threads),
        "rounds": rounds,
    }
    shares = {name: vars(ratio) for name, ratio in bandwidth.items()}
    publish("scoring_time", lines, {**what, "cases": facts, "bandwidth_share": shares})


if __name__ == "__main__":
    typer.run(main)
