"""The second stage on pocket: the degradation curve per layer, and what M does to short and to long answers.

    python benchmarks/pocket_memory.py [--videos 100] [--model DIR]

Unlike pocket_accuracy.py this goes the whole way of a user: processor, ``sharpv.apply``, ``generate``, decoded text,
exact match. Writes docs/results/pocket_memory.{md,json} and prints the page.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from pocket_inside import GROUPS, group_of
from rich.console import Console
from rich.progress import track
from timing import publish
from torch import Tensor

import sharpv
from sharpv import Cosine, Report, pocket
from sharpv.asking import Answer, answer
from sharpv.criteria import LayerView
from sharpv.pocket.evaluate import evaluation_set, prompt_inputs

STAGE1 = {"all tokens": {"retention": 1.0}, "SharpV adaptive": {}}
SHARE_OF_SHORT = 0.2
"""Answers of one token are read at prefill and cannot change: they are asked about so many of the videos only."""
Memory = float | Cosine | None
MEMORY: tuple[Memory, ...] = (None, 0.2, 0.25, 0.3, 0.35, 0.4)


@dataclass(frozen=True)
class Only(Cosine):
    """Forgets one layer, whatever its cosine."""

    layer: int = 0

    def measure(self, layer: LayerView) -> Tensor:
        return super().measure(layer) + (2 if layer.index != self.layer else -2)


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 100,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    model: Annotated[str | None, typer.Option(help="Another checkpoint of pocket.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    console = Console()
    network, processor = pocket.load(directory=model)
    evaluation = evaluation_set(videos, frames)
    layers = len(network.get_decoder().layers)
    settings = [(name, memory) for name in STAGE1 for memory in MEMORY]
    settings += [("all tokens", Only(0.0, layer)) for layer in range(layers)]
    right: dict[tuple[str, Memory], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    reports: dict[tuple[str, Memory], list[Report]] = defaultdict(list)
    for index in track(range(videos), "asking", console=console, disable=not console.is_terminal):
        clip = evaluation.video(index)
        for question in evaluation.questions[index]:
            inputs = prompt_inputs(processor, clip, question.prompt)
            group = GROUPS[group_of(processor, question)]
            if group == GROUPS[0] and index >= videos * SHARE_OF_SHORT:
                continue
            for name, memory in settings:
                with sharpv.apply(network, memory=memory, **STAGE1[name]) as pruning:
                    said: Answer = answer(network, processor, inputs)
                assert pruning.report is not None
                right[name, memory][group].append(said.text == question.answer)
                reports[name, memory].append(pruning.report)
    publish("pocket_memory", *page(right, reports, f"{videos} videos of {frames} frames"))


def page(right: dict, reports: dict, what: str) -> tuple[list[str], dict]:
    """The Markdown page and its figures."""
    groups = sorted({group for row in right.values() for group in row}, key=lambda group: (len(group), group))
    counts = {group: len(right["all tokens", None][group]) for group in groups}
    lines = [
        "# Pocket: the second stage",
        "",
        f"{what}; every question asked through processor, `sharpv.apply` and `generate`, decoded answers matched "
        f"exactly: {', '.join(f'{count} answers of {group}' for group, count in counts.items())}. An answer of one "
        "token is read at prefill and cannot change; a part of the videos is asked for those. "
        "Written by `python benchmarks/pocket_memory.py`.",
        "",
        "## Similarity of the visual tokens' input to layer l with their input to layer 0",
        "",
    ]
    facts: dict = {"counts": counts, "curve": {}, "rows": []}
    first = next(iter(reports.values()))
    layers = first[0].layers
    lines += ["| tokens | " + " | ".join(f"layer {i}" for i in range(layers)) + " |", "| --- |" + " --- |" * layers]
    for name in STAGE1:
        curve = np.mean([np.array(report.measured)[:, 0] for report in reports[name, MEMORY[1]]], axis=0)
        facts["curve"][name] = curve.tolist()
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in curve) + " |")
    lines += [
        "",
        "## What forgetting does to answers",
        "",
        "M is the paper's rule; the last rows forget one layer each, whatever its similarity.",
        "",
        "| tokens | forgets | layers that forget, of "
        + str(layers)
        + " | retention over layers | KV bytes of dense | "
        + " | ".join(groups)
        + " |",
        "| --- |" + " --- |" * (4 + len(groups)),
    ]
    for (name, memory), row in right.items():
        mine = reports[name, memory]
        forgotten = np.mean([sum(flag for (flag,) in report.forgotten) for report in mine]) if memory else 0.0
        rule = f"layer {memory.layer}" if isinstance(memory, Only) else "nothing" if memory is None else f"M = {memory}"
        over_layers = np.mean([report.layer_retention for report in mine])
        stored = np.mean([report.kv_bytes for report in mine]) / np.mean([report.dense_kv_bytes for report in mine])
        accuracy = {group: float(np.mean(row[group])) for group in groups}
        facts["rows"].append(
            {"tokens": name, "forgets": rule, "layers": float(forgotten), "layer_retention": float(over_layers),
             "kv_share": float(stored), "accuracy": accuracy}
        )  # fmt: skip
        lines.append(
            f"| {name} | {rule} | {forgotten:.1f} | kept {100 * over_layers:.1f} % | "
            f"kept {100 * stored:.1f} % | " + " | ".join(f"{accuracy[group]:.3f}" for group in groups) + " |"
        )
    return lines, facts


if __name__ == "__main__":
    typer.run(main)
