"""How cost grows: scoring with selection against frames, tokens a frame and width; prefill against frames.

    python benchmarks/scaling.py [--device cuda --dtype float16 --largest 1024]

Random features and weights. Times are medians of interleaved rounds; the exponent b of t = a n^b is the slope of log t
over log n through the upper half of the sizes, where constant costs no longer show, with the 95 % interval of a
bootstrap over the rounds. Writes docs/results/scaling.{md,json,svg}.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from real_size import build, prompt, without_tower
from timing import RESULTS, interleaved, machine, publish
from transformers.modeling_outputs import BaseModelOutputWithPooling

import sharpv
from sharpv import SharpV
from sharpv.budget import Budget

BASE = {"frames": 64, "tokens": 196, "width": 896}
RESAMPLES = 2000


def main(
    largest: Annotated[int, typer.Option(min=64, help="Frames scored at most.")] = 1024,
    prefilled: Annotated[int, typer.Option(min=4, help="Frames prefilled at most.")] = 32,
    retention: Annotated[float, typer.Option(help="Kept share.")] = 0.12,
    layers: Annotated[int, typer.Option(help="Decoder layers of the width of LLaVA-OneVision 0.5B.")] = 2,
    rounds: Annotated[int, typer.Option(min=2, help="Times that each is run.")] = 7,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of features and model.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    sizes = {
        "frames": doubling(8, largest),
        "tokens": doubling(49, 1568),
        "width": doubling(256, 8192),
    }
    measured = {
        f"scoring against {name}": scoring(name, values, rounds, device, dtype) for name, values in sizes.items()
    }
    counts = doubling(2, prefilled)
    dense, pruned = prefill(counts, retention, layers, rounds, device, dtype)
    kept = f"prefill, kept {100 * retention:g} %, against frames"
    measured |= {"dense prefill against frames": dense, kept: pruned}
    lines = [
        "# How cost grows",
        "",
        f"{dtype}, {machine(device, threads)}; medians of {rounds} interleaved rounds. Scoring with selection around "
        f"{BASE['frames']} frames x {BASE['tokens']} tokens x {BASE['width']} channels, one of them varied; prefill on "
        f"{layers} decoder layers of the width of LLaVA-OneVision 0.5B, 196 tokens a frame, pruning included. t = a "
        "n^b through the upper half of the sizes, 95 % bootstrap intervals. Written by `python benchmarks/scaling.py`.",
        "",
        "| | sizes | milliseconds, smallest to largest | exponent b |",
        "| --- | --- | --- | --- |",
    ]
    facts: dict[str, Any] = {}
    for name, seconds in measured.items():
        slope, low, high = exponent(seconds)
        medians = {n: float(np.median(own)) for n, own in seconds.items()}
        facts[name] = {"seconds": medians, "exponent": slope, "interval": [low, high]}
        times = ", ".join(f"{1000 * value:.3g}" for value in medians.values())
        lines.append(f"| {name} | {', '.join(map(str, medians))} | {times} | {slope:.2f} [{low:.2f}, {high:.2f}] |")
    lines += ["", "![Time against size, both axes logarithmic](scaling.svg)"]
    draw({name: fact["seconds"] for name, fact in facts.items()})
    publish("scaling", lines, {"where": machine(device, threads), "dtype": dtype, "rounds": rounds, "growth": facts})


def doubling(first: int, last: int) -> list[int]:
    return [first * 2**i for i in range(20) if first * 2**i <= last]


def scoring(name: str, sizes: list[int], rounds: int, device: str, dtype: str) -> dict[int, NDArray[Any]]:
    """Seconds of scoring and selection, per size of one dimension."""
    shapes = {n: {**BASE, name: n} for n in sizes}
    # one buffer serves all sizes
    numbers = max(int(np.prod(list(shape.values()))) for shape in shapes.values())
    buffer = torch.randn(numbers, device=device).to(getattr(torch, dtype))
    method, budget = SharpV(), Budget(retention=0.25)

    def case(shape: dict[str, int]) -> Any:
        features = buffer[: int(np.prod(list(shape.values())))].view(*shape.values())
        return lambda: method.choose(features, budget)

    timed = interleaved({str(n): case(shape) for n, shape in shapes.items()}, rounds, device)
    return {n: timed[str(n)] for n in sizes}


def prefill(
    counts: list[int], retention: float, layers: int, rounds: int, device: str, dtype: str
) -> tuple[dict[int, NDArray[Any]], dict[int, NDArray[Any]]]:
    """Seconds of a prefill, dense and pruned, per number of frames; the tower's answer is at hand."""
    model = build("llava-onevision-0.5b", device, dtype, layers)
    width = model.config.text_config.hidden_size
    cases = {}

    def case(frames: int, pruned: bool) -> Any:
        inputs = prompt(model, frames)
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"][..., :1, :1]  # only their number counts
        rows = torch.randn(1, frames * 196 + 1, width, device=device).to(model.dtype)
        encoded = BaseModelOutputWithPooling(pooler_output=rows)

        @torch.no_grad()
        def run() -> None:
            with without_tower(model, encoded):
                if pruned:
                    with sharpv.apply(model, retention=retention, memory=None):
                        model(**inputs, use_cache=True, logits_to_keep=1)
                else:
                    model(**inputs, use_cache=True, logits_to_keep=1)

        return run

    for n in counts:
        cases |= {f"dense {n}": case(n, False), f"pruned {n}": case(n, True)}
    timed = interleaved(cases, rounds, device)
    return {n: timed[f"dense {n}"] for n in counts}, {n: timed[f"pruned {n}"] for n in counts}


def exponent(seconds: dict[int, NDArray[Any]]) -> tuple[float, float, float]:
    """b of t = a n^b over the upper half of the sizes, and its interval."""
    sizes = list(seconds)[-max(2, len(seconds) // 2) :]
    logs, times = np.log(sizes), np.stack([seconds[n] for n in sizes])
    slope = np.polyfit(logs, np.log(np.median(times, axis=1)), 1)[0]
    rng = np.random.default_rng(0)
    drawn = rng.integers(times.shape[1], size=(RESAMPLES, times.shape[1]))
    resampled = np.log(np.median(times[:, drawn], axis=2))  # (sizes, resamples)
    low, high = np.percentile(np.polyfit(logs, resampled, 1)[0], [2.5, 97.5])
    return float(slope), float(low), float(high)


def draw(curves: dict[str, dict[int, float]]) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, medians in curves.items():
        sizes = np.array(list(medians))
        axes.loglog(sizes / sizes[0], list(medians.values()), marker="o", markersize=3, label=name)
    axes.set(xlabel="size, as a multiple of the smallest", ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / "scaling.svg")


if __name__ == "__main__":
    typer.run(main)
