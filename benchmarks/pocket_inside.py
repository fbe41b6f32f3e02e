"""What happens inside the model, on pocket, the way a user runs it: FastV, VTW, and the criteria of the second stage.

    python benchmarks/pocket_inside.py [--videos 100] [--model DIR]

Every question goes through processor, ``sharpv.apply``, ``generate`` and exact match of the decoded text. Each row is
placed by what all layers together keep of visual tokens x layers, which is the same unit for all. Writes
docs/results/pocket_inside.{md,json}.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from timing import publish

import sharpv
from sharpv import Contribution, pocket
from sharpv.asking import answer
from sharpv.methods import VTW, FastV
from sharpv.pocket.evaluate import evaluation_set, prompt_inputs

RESAMPLES = 2000
GROUPS = ("1 token", "2 to 9 tokens", "10 tokens and more")
SHARE_OF_SHORT = 0.25
"""Answers of one token are many: they are asked about so many of the videos only."""
WHOLE: dict[str, Any] = {"method": "sharpv", "retention": 1.0, "memory": None}
ROWS: dict[str, dict[str, Any]] = {
    "dense": WHOLE,
    **{
        f"FastV, layer {k}, keeps {r:.0%}": {"method": FastV(k), "retention": r} for k in (1, 2, 3) for r in (0.5, 0.25)
    },
    **{f"VTW, layer {k}": {"method": VTW(k)} for k in (2, 3, 4)},
    **{f"paper's rule, M = {m}": {**WHOLE, "memory": m} for m in (0.2, 0.25, 0.3)},
    **{
        f"contribution, {rows} row{'s' * (rows > 1)}, keeps {share:.0%} of the layers": {
            **WHOLE,
            "memory": Contribution(kv_budget=share, rows=rows),
        }
        for rows in (1, 4)
        for share in (0.8, 0.6)
    },
    **{f"contribution below {t}": {**WHOLE, "memory": Contribution(threshold=t, rows=4)} for t in (0.1, 0.2)},
    "SharpV first stage alone, keeps 50%": {**WHOLE, "retention": 0.5},
    "SharpV first stage alone, keeps 25%": {**WHOLE, "retention": 0.25},
}


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 100,
    model: Annotated[str | None, typer.Option(help="Another checkpoint of pocket.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    console = Console()
    network, processor = pocket.load(directory=model)
    evaluation = evaluation_set(videos, 8)
    right = {name: np.zeros((videos, len(GROUPS))) for name in ROWS}
    kept: dict[str, list[tuple[float, float]]] = {name: [] for name in ROWS}
    asked = np.zeros((videos, len(GROUPS)))
    for index in track(range(videos), "asking", console=console, disable=not console.is_terminal):
        clip = evaluation.video(index)
        for question in evaluation.questions[index]:
            length = len(processor.tokenizer(question.answer)["input_ids"])
            group = 0 if length == 1 else 1 if length < 10 else 2
            if group == 0 and index >= videos * SHARE_OF_SHORT:
                continue
            inputs = prompt_inputs(processor, clip, question.prompt)
            asked[index, group] += 1
            for name, options in ROWS.items():
                with sharpv.apply(network, **options) as pruning:
                    said = answer(network, processor, inputs)
                assert pruning.report is not None and pruning.report.kv_retention is not None
                right[name][index, group] += said.text == question.answer
                kept[name].append((pruning.report.layer_retention, pruning.report.kv_retention))
    publish("pocket_inside", *page(right, kept, asked))


def page(right: dict[str, np.ndarray], kept: dict, asked: np.ndarray) -> tuple[list[str], list[dict]]:
    """The Markdown page and its figures; intervals by bootstrap over videos, paired with dense."""
    videos = len(asked)
    draws = np.random.default_rng(0).multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
    draws = np.vstack([np.ones(videos), draws])
    counts = ", ".join(f"{int(total)} answers of {group}" for total, group in zip(asked.sum(0), GROUPS, strict=True))
    lines = [
        "# Pocket: inside the language model",
        "",
        f"{videos} videos of 8 frames; every question through processor, `sharpv.apply` and `generate`, decoded "
        f"answers matched exactly: {counts}. In brackets the difference to dense in points and its paired 95 % "
        "interval. An answer of one token is read at prefill, which FastV and VTW change and the second stage does "
        "not. Written by `python benchmarks/pocket_inside.py`.",
        "",
        "| | visual tokens x layers kept | KV bytes kept, text included | " + " | ".join(GROUPS) + " |",
        "| --- |" + " --- |" * (2 + len(GROUPS)),
    ]
    facts = []
    dense = (draws @ right["dense"]) / (draws @ asked)
    for name, hits in right.items():
        accuracy = (draws @ hits) / (draws @ asked)
        difference = 100 * (accuracy - dense)
        low, high = np.nanpercentile(difference[1:], [2.5, 97.5], axis=0)
        layers, stored = np.mean(kept[name], axis=0)
        cells = [
            f"{accuracy[0, g]:.3f}" + f" ({difference[0, g]:+.1f} [{low[g]:+.1f}, {high[g]:+.1f}])" * (name != "dense")
            for g in range(len(GROUPS))
        ]
        lines.append(f"| {name} | {100 * layers:.1f} % | {100 * stored:.1f} % | " + " | ".join(cells) + " |")
        facts.append(
            {"row": name, "layer_retention": float(layers), "kv_retention": float(stored),
             "accuracy": dict(zip(GROUPS, accuracy[0].tolist(), strict=True))}
        )  # fmt: skip
    return lines, facts


if __name__ == "__main__":
    typer.run(main)
